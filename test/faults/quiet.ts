import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { connect } from './observe.ts';
import type { System } from './system.ts';

/** Milliseconds between two looks. */
const lookEvery = 50;
/** Milliseconds after which a system that isn't well again is left to the next fault. */
export const patience = 120_000;

/** Something that is to be so. */
export type Condition = (client: pg.Client) => Promise<boolean>;

/** Everything that was accepted before a moment has ended. */
export function hasEnded(moment: number): Condition {
  return async (client) => {
    const { rows } = await client.query(
      `select 1 from message.messages where status in ('accepted', 'in_transit') and created_at <= $1 limit 1`,
      [new Date(moment)],
    );
    return rows.length === 0;
  };
}

/** What is still under way, by name: SQL that is true then. What is to be looked at again is so in turn, every few seconds. */
const underWay = {
  messages: `exists (select from message.messages where status in ('accepted', 'in_transit'))`,
  outboxes: `exists (select from message.outbox) or exists (select from message.outbox_events)
    or exists (select from conversation.outbox_events) or exists (select from file.outbox_events)`,
  removals: `exists (select from file.removals where due_at < now() - interval '6 seconds')`,
  deliveries: `exists (select from connectors.deliveries where ended_at is null)
    or exists (select from connectors.parked) or exists (select from connectors.lanes)
    or exists (select from connectors.requests)`,
  invocations: `exists (select from tools.reservations) or exists (select from tools.outbox)`,
  turns: `exists (select from assistant.turns where ended_at is null)`,
  webhooks: `exists (select from events.endpoints where status = 'active' and (due_at is not null or lease_by is not null))
    or exists (select from events.backlogs) or (select min(last_id) < max(last_id) from events.heads)`,
};

/** What is still under way, by name; on Kafka it can't be seen here what is left on the bus. */
export async function whatIsOpen(client: pg.Client, { kafkaBrokers }: System): Promise<string[]> {
  const questions = Object.entries({
    ...underWay,
    // What is done is acknowledged after it: an event may be left on the bus for a moment when everything has ended.
    ...(kafkaBrokers === undefined
      ? { bus: 'exists (select from bus.progress join bus.partitions using (topic, partition) where next <= last)' }
      : {}),
  });
  const { rows } = await client.query<Record<string, boolean>>(
    `select ${questions.map(([name, question]) => `(${question}) as ${name}`).join(', ')}`,
  );
  return questions.map(([name]) => name).filter((name) => rows[0]![name]);
}

/** Everything has ended, and nothing is left to be done. */
export function isQuiet(system: System): Condition {
  return async (client) => (await whatIsOpen(client, system)).length === 0;
}

/**
 * When the last of what receivers of webhooks failed to take is sent again: each failure doubles the pause, so that may be minutes after they
 * are well. In milliseconds since the epoch, by the database's clock; 0 if nothing waits.
 */
export async function lastRetry(client: pg.Client): Promise<number> {
  const { rows } = await client.query<{ at: number }>(
    `select coalesce(extract(epoch from greatest((select max(next_at) from events.backlogs),
        (select max(hold_until) from events.endpoints where status = 'active'))) * 1000, 0)::float8 as at`,
  );
  return rows[0]!.at;
}

/** Waits for a condition, also while the database is away. @returns the milliseconds since `from` */
export async function recover(
  system: System,
  from: number,
  signal: AbortSignal,
  condition: Condition,
): Promise<number> {
  while (Date.now() < from + patience) {
    try {
      await using database = await connect(system.databaseUrl);
      while (Date.now() < from + patience) {
        if (await condition(database.client)) return Date.now() - from;
        await sleep(lookEvery, undefined, { signal });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (Date.now() > from + patience) throw error;
      await sleep(lookEvery * 4, undefined, { signal });
    }
  }
  return Date.now() - from;
}
