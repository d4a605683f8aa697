import { addToOutbox, type OutboxEvent } from '#lib/database-outbox.ts';
import { columns, type Database, type SqlTransaction } from '#lib/database.ts';
import { deliveriesOf, hasEnded, settle, type DeliveryState, type Report, type Status } from '../message.ts';
import { changeEvent } from './wire.ts';

/** The result of applying reports: the ids of unknown messages, and the messages that ended. */
interface Applied {
  unknown: string[];
  ended: Ended[];
}

/** A message that has ended. */
export interface Ended {
  status: Status;
  acceptedAt: Date;
  replay: number;
}

/** Applies reports to accepted messages, and ends those whose deadline has passed. */
export function openSettlement(database: Database) {
  return {
    /** Applies reports in one transaction. Ids of unknown messages are returned. */
    async applyReports(reports: ReadonlyMap<string, readonly Report[]>): Promise<Applied> {
      return database.transaction(async (transaction) => {
        const ids = [...reports.keys()];
        const [messages, reported] = await Promise.all([
          // Locked in a fixed order, so that two transactions can't deadlock.
          transaction.sql<MessageRow>(
            `select ${messageColumns} from messages m where message_id = any($1) order by message_id for update`,
            [ids],
          ),
          reportedDeliveries(transaction, ids),
        ]);
        const reportsOf = (messageId: string) => reports.get(messageId) as readonly Report[];
        const ended = write(transaction, messages, reported, reportsOf);
        const known = new Set(messages.map((row) => row.message_id));
        return { unknown: ids.filter((messageId) => !known.has(messageId)), ended };
      });
    },

    /** Fails the open deliveries of at most `limit` expired messages. @returns how many messages there were */
    async expire(now: Date, reason: string, limit: number): Promise<number> {
      return database.transaction(async (transaction) => {
        const due = await transaction.sql<MessageRow>(
          `select ${messageColumns} from open_messages o join messages m using (message_id, expires_at)
            where o.expires_at <= $1 order by o.expires_at limit $2 for update of m skip locked`,
          [now, limit],
        );
        if (due.length === 0) return 0;
        const ids = due.map((row) => row.message_id);
        return write(transaction, due, await reportedDeliveries(transaction, ids), () => [
          { kind: 'expired', at: now, reason },
        ]).length;
      });
    },

    /** When the next open message expires; undefined if none is open. */
    async nextExpiry(): Promise<Date | undefined> {
      const [row] = await database.sql<{ at: Date | null }>('select min(expires_at) as at from open_messages');
      return row?.at ?? undefined;
    },

    /**
     * Adds the open messages that were accepted within `milliseconds` before the newest one to `open_messages`, where the previous version
     * doesn't list them.
     */
    async adoptOpen(milliseconds: number): Promise<void> {
      await database.sql(
        `insert into open_messages (expires_at, message_id)
          select expires_at, message_id from messages
            where created_at >= (select max(created_at) from messages) - $1 * interval '1 ms' and status in ('accepted', 'in_transit')
          on conflict do nothing`,
        [milliseconds],
      );
    },
  };
}

/** The columns of a message `m` that are needed to apply reports to it. */
const messageColumns = `m.message_id, m.conversation_id, m.seq, m.recipient_ids, m.channels, m.status, m.created_at, m.updated_at, m.expires_at, m.replay`;

interface MessageRow {
  message_id: string;
  conversation_id: string;
  seq: bigint;
  recipient_ids: string[];
  channels: string[];
  status: Status;
  created_at: Date;
  updated_at: Date;
  expires_at: Date;
  replay: number;
}

/** The deliveries with reports, by message. */
async function reportedDeliveries(
  transaction: SqlTransaction,
  messageIds: readonly string[],
): Promise<ReadonlyMap<string, readonly DeliveryState[]>> {
  const rows = await transaction.sql<DeliveryState & { messageId: string }>(
    `select message_id as "messageId", recipient_id as "recipientId", channel, status, attempts, error, updated_at as "updatedAt",
        next_attempt_at as "nextAttemptAt"
      from deliveries where message_id = any($1)`,
    [messageIds],
  );
  return Map.groupBy(rows, (row) => row.messageId);
}

/**
 * Applies reports to messages that the transaction has locked. The changes of all messages are sent together with the commit.
 *
 * @returns the messages that ended
 */
function write(
  transaction: SqlTransaction,
  messages: readonly MessageRow[],
  reported: ReadonlyMap<string, readonly DeliveryState[]>,
  reportsOf: (messageId: string) => readonly Report[],
): Ended[] {
  const deliveries: (DeliveryState & { messageId: string })[] = [];
  const moved: { messageId: string; status: Status; at: Date; steps: string }[] = [];
  const ended: Ended[] = [];
  const over: { messageId: string; expiresAt: Date }[] = [];
  const changes: OutboxEvent[] = [];
  for (const row of messages) {
    const { message_id: messageId, recipient_ids: recipientIds, status, replay } = row;
    const message = { recipientIds, channels: row.channels, status, createdAt: row.created_at };
    const settlement = settle(
      { status, updatedAt: row.updated_at, replay, deliveries: deliveriesOf(message, reported.get(messageId) ?? []) },
      reportsOf(messageId),
    );
    for (const delivery of settlement.deliveries) deliveries.push({ messageId, ...delivery });
    const last = settlement.history.at(-1);
    if (last !== undefined) {
      moved.push({ messageId, status: last.status, at: last.at, steps: JSON.stringify(settlement.history) });
      if (hasEnded(last.status)) ended.push({ status: last.status, acceptedAt: row.created_at, replay });
    }
    if (settlement.deliveries.length > 0 || last !== undefined) {
      const { conversation_id: conversationId, seq } = row;
      changes.push(
        changeEvent({ messageId, conversationId, seq, replay, status, updatedAt: row.updated_at }, settlement),
      );
    }
    // Also if it had ended before, so that it is not listed any more.
    if (hasEnded(last?.status ?? status)) over.push({ messageId, expiresAt: row.expires_at });
  }

  if (deliveries.length > 0) {
    void transaction.sql(
      `insert into deliveries (message_id, recipient_id, channel, status, attempts, error, updated_at, next_attempt_at)
        select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[], $7::timestamptz[], $8::timestamptz[])
        on conflict (message_id, recipient_id, channel) do update
          set status = excluded.status, attempts = excluded.attempts, error = excluded.error, updated_at = excluded.updated_at,
            next_attempt_at = excluded.next_attempt_at`,
      columns(deliveries, [
        'messageId',
        'recipientId',
        'channel',
        'status',
        'attempts',
        'error',
        'updatedAt',
        'nextAttemptAt',
      ]),
    );
  }
  if (moved.length > 0) {
    void transaction.sql(
      `update messages m set status = new.status, updated_at = new.at, history = m.history || new.steps
        from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::jsonb[]) as new (message_id, status, at, steps)
        where m.message_id = new.message_id`,
      columns(moved, ['messageId', 'status', 'at', 'steps']),
    );
  }
  if (over.length > 0) {
    void transaction.sql(
      `delete from open_messages o using unnest($1::timestamptz[], $2::uuid[]) as over (expires_at, message_id)
        where o.expires_at = over.expires_at and o.message_id = over.message_id`,
      columns(over, ['expiresAt', 'messageId']),
    );
  }
  addToOutbox(transaction, changes);
  return ended;
}
