import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { outcomes } from '../../services/events/webhooks/attempts-store.ts';
import { connect } from './observe.ts';
import type { System } from './system.ts';

/** Milliseconds between two looks. */
const lookEvery = 50;
/** Milliseconds after which a system that isn't well again is left to the next fault. */
export const patience = 120_000;
/** Milliseconds in which all webhooks must have caught up, and those without a delivery after which they count as stalled. */
export const webhooksLimit = 900_000;
const webhooksStall = 30_000;

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

/** Everything has ended, and nothing is left to be done, apart from what `ignored` names. */
export function isQuiet(system: System, ignored: readonly string[] = []): Condition {
  return async (client) => (await whatIsOpen(client, system)).every((name) => ignored.includes(name));
}

/**
 * Webhooks have caught up, or are stalled. To catch up may take minutes: the messages that clients send in a hurry at the end cause events
 * for each webhook, and what a receiver failed to take is sent again by a schedule that doubles its pauses.
 */
export function webhooksRest(since: number): Condition {
  return async (client) => {
    const { rows } = await client.query<{ isOpen: boolean; movedAt: number }>(
      `select (${underWay.webhooks}) as "isOpen",
          coalesce(extract(epoch from greatest((select max(at) from events.attempts where outcome = $1),
            (select max(next_at) from events.backlogs),
            (select max(hold_until) from events.endpoints where status = 'active'))) * 1000, 0)::float8 as "movedAt"`,
      [outcomes.delivered],
    );
    const { isOpen, movedAt } = rows[0]!;
    return !isOpen || Date.now() > Math.max(since, movedAt) + webhooksStall;
  };
}

/** Waits for a condition, for `limit` at most, also while the database is away. @returns the milliseconds since `from` */
export async function recover(
  system: System,
  from: number,
  signal: AbortSignal,
  condition: Condition,
  limit = patience,
): Promise<number> {
  while (Date.now() < from + limit) {
    try {
      await using database = await connect(system.databaseUrl);
      while (Date.now() < from + limit) {
        if (await condition(database.client)) return Date.now() - from;
        await sleep(lookEvery, undefined, { signal });
      }
    } catch (error) {
      signal.throwIfAborted();
      if (Date.now() > from + limit) throw error;
      await sleep(lookEvery * 4, undefined, { signal });
    }
  }
  return Date.now() - from;
}
