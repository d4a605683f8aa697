import type { Bus, BusEvent } from './bus/bus.ts';
import { columns, type Database, type SqlTransaction } from './database.ts';
import type { Logger } from './log.ts';
import { repeat, type Loop } from './loop.ts';

/**
 * The outbox of a service (transactional outbox): events are added in the transaction of what they tell, so that neither happens without
 * the other, and are published afterwards.
 */

/** An event that waits to be published. */
export interface OutboxEvent extends Pick<BusEvent, 'id' | 'type' | 'key' | 'value' | 'requestId'> {
  topic: string;
}

/** An event of the outbox, with the id of its row. */
export interface OutboxEntry extends OutboxEvent {
  row: bigint;
}

/** Its entity is in lib/database-outbox-entity.ts. */
export const tableName = 'outbox_events';

/** SQL that makes the table of an outbox, in the schema of the service. */
export function outboxTable(): string {
  return `create table ${tableName} (
      id bigserial primary key,
      topic text not null,
      event_id uuid not null,
      type text not null,
      key text not null,
      value bytea not null,
      request_id text not null
    )`;
}

/** Adds events, in order, in the transaction of the change that they are about. The commit waits for it, so the caller needn't. */
export function addToOutbox(transaction: SqlTransaction, events: readonly OutboxEvent[]): void {
  if (events.length === 0) return;
  void transaction.sql(
    `insert into ${tableName} (topic, event_id, type, key, value, request_id)
      select topic, event_id, type, key, value, request_id
        from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[]) with ordinality
          as given (topic, event_id, type, key, value, request_id, place) order by place`,
    columns(events, ['topic', 'id', 'type', 'key', 'value', 'requestId']),
  );
}

/** A larger event is read alone. */
const maxBatchBytes = 1024 * 1024;

/** The oldest events: at most `limit`, and at most 1 MiB or one event. */
export async function oldestInOutbox(database: SqlTransaction, limit: number): Promise<OutboxEntry[]> {
  // `order by id` alone would mean what is called id in the result, which is the event's.
  return database.sql<OutboxEntry>(
    `select id as row, topic, event_id as id, type, key, value, request_id as "requestId" from (
        select *, sum(length(value)) over (order by id) as bytes from (
          select * from ${tableName} order by id limit $1
        ) as oldest
      ) as sized
      where bytes <= ${maxBatchBytes} or bytes = length(value) order by sized.id`,
    [limit],
  );
}

/** Removes events that are published. */
export async function removeFromOutbox(database: SqlTransaction, rows: readonly bigint[]): Promise<void> {
  await database.sql(`delete from ${tableName} where id = any($1)`, [rows]);
}

/** Publishes what is in the outbox of a service. */
export interface OutboxRelay extends Pick<Loop, 'stop'> {
  /** To be called after a commit that added events. */
  wake(): void;
}

export interface OutboxRelayOptions {
  database: Database;
  bus: Pick<Bus, 'publish'>;
  log: Logger;
}

const batchSize = 500;
/** How soon events are found whose process has ended before it published them. */
const pollEveryMs = 2_000;
/** First key of the advisory lock; the second is the schema, since each service has an outbox of its own. */
const lockSpace = 7_419_203;

/**
 * Publishes events in the order in which they were added, each at least once. One process does it at a time, as long as its transaction
 * lasts.
 */
export function startOutboxRelay({ database, bus, log }: OutboxRelayOptions): OutboxRelay {
  return repeat('Publishing from the outbox', log, async () => {
    if ((await oldestInOutbox(database, 1)).length === 0) return pollEveryMs;
    return database.transaction(async (transaction) => {
      const [lock] = await transaction.sql<{ free: boolean }>(
        `select pg_try_advisory_xact_lock(${lockSpace}, hashtext(current_schema())) as free`,
      );
      // Another process is publishing. What it has not seen is published by the next round of either.
      if (lock?.free !== true) return 100;
      const entries = await oldestInOutbox(transaction, batchSize);
      for (const [topic, some] of Map.groupBy(entries, (entry) => entry.topic)) {
        await bus.publish(topic, some.map(eventOf));
      }
      await removeFromOutbox(
        transaction,
        entries.map(({ row }) => row),
      );
      return 0;
    });
  });
}

/** An entry as it is published. */
export function eventOf({ id, type, key, value, requestId }: OutboxEntry): BusEvent {
  return { id, type, key, value, requestId };
}
