import { eventTypes, topics } from '#gen/events.ts';
import { hubDate } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { StatusChange } from '../message.ts';

/** A dead letter, without the event's value. */
export interface DeadLetter {
  id: string;
  topic: string;
  partition: number;
  group: string;
  reason: string;
  attempts: number;
  failedAt: Date;
  eventId: string;
  eventType: string;
  key: string;
  requestId: string;
  /** The message, recipient and channel, as far as they can be read. */
  messageId: string | null;
  recipientId: string | null;
  channel: string | null;
  replayedAt: Date | null;
  replayedBy: string | null;
}

export interface DeadLetterWithValue extends DeadLetter {
  value: Buffer;
}

export type NewDeadLetter = Omit<DeadLetterWithValue, 'replayedAt' | 'replayedBy'>;

/** Selects the dead letters that match all given fields. */
export interface Selection {
  ids?: readonly string[] | undefined;
  messageId?: string | undefined;
  channel?: string | undefined;
  topic?: string | undefined;
  /** Failed at this time or later. */
  from?: Date | undefined;
  /** Failed before this time. */
  to?: Date | undefined;
  state?: 'waiting' | 'replayed' | undefined;
}

export interface Replaying {
  /** The username of the administrator who replays. */
  by: string;
  requestId: string;
  /** The maximum number of dead letters to replay; those of one message stay together. */
  limit: number;
  /** The deadlines of a message that is accepted at a given time. */
  timesOf: (acceptedAt: Date) => { deliverBy: Date; expiresAt: Date };
  /** Publishes events again unchanged. */
  publish: (letters: readonly DeadLetterWithValue[]) => Promise<void>;
  /** Once it is aborted, nothing further is begun. */
  signal: AbortSignal;
}

/** The numbers of dead letters that were replayed, had nothing left to do, or were left because their message is open. */
export interface Replayed {
  replayed: number;
  settled: number;
  open: number;
  /** Messages with deliveries that begin again. */
  messages: number;
}

/** How many events one transaction publishes again: each may have 4 MiB. */
const republishedAtOnce = 20;

/** Reports that don't end a delivery: no delivery begins again because of them. */
const endsNothing = [eventTypes.MessageRouted, eventTypes.DeliveryAttempted] as string[];

export type DeadLetters = ReturnType<typeof openDeadLetters>;

/** The dead letters, and their replay. */
export function openDeadLetters(database: Database) {
  return {
    /** Stores dead letters. Existing ones are left as they are. */
    async record(letters: readonly NewDeadLetter[]): Promise<void> {
      await database.sql(
        `insert into dead_letters (id, topic, partition, consumer_group, reason, attempts, failed_at, event_id, event_type,
            key, request_id, value, message_id, recipient_id, channel)
          select * from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::int[], $7::timestamptz[],
              $8::text[], $9::text[], $10::text[], $11::text[], $12::bytea[], $13::uuid[], $14::uuid[], $15::text[])
          on conflict (id) do nothing`,
        (
          [
            'id',
            'topic',
            'partition',
            'group',
            'reason',
            'attempts',
            'failedAt',
            'eventId',
            'eventType',
            'key',
            'requestId',
            'value',
            'messageId',
            'recipientId',
            'channel',
          ] as const
        ).map((name) => letters.map((letter) => letter[name])),
      );
    },

    /** A page of the matching dead letters, oldest first, and their total number, from one snapshot. */
    async list(
      selection: Selection,
      { limit, offset }: { limit: number; offset: number },
    ): Promise<{ letters: DeadLetter[]; total: number }> {
      const rows = await database.sql<(DeadLetter | { id: null }) & { total: bigint }>(
        `select page.*, all_of_them.total
           from (select count(*) as total from dead_letters where ${matches}) as all_of_them
           left join (
             select ${columns} from dead_letters where ${matches} order by failed_at, id limit $8 offset $9
           ) as page on true
          order by page."failedAt", page.id`,
        [...valuesOf(selection), limit, offset],
      );
      const letters = rows.flatMap(({ total: _, ...letter }) => (letter.id === null ? [] : [letter as DeadLetter]));
      return { letters, total: Number(rows[0]!.total) };
    },

    /** The number of matching dead letters. */
    async count(selection: Selection): Promise<number> {
      const [row] = await database.sql<{ total: bigint }>(
        `select count(*) as total from dead_letters where ${matches}`,
        valuesOf(selection),
      );
      return Number(row!.total);
    },

    async find(id: string): Promise<DeadLetterWithValue | undefined> {
      const [letter] = await database.sql<DeadLetterWithValue>(
        `select ${columns}, value from dead_letters where id = $1`,
        [id],
      );
      return letter;
    },

    /**
     * Replays the matching dead letters. For an ended message, the failed deliveries that its dead letters are about begin again, in one
     * transaction per message. Dead letters of unknown messages are published again, and so are reports of open messages; other dead
     * letters of open messages are left as they are.
     *
     * Concurrent replays don't interfere: the second one finds the message open.
     *
     * @throws HubError of `publish`; earlier replays stay
     */
    async replay(selection: Selection, replaying: Replaying): Promise<Replayed> {
      const chosen = await database.sql<{ id: string; message_id: string | null }>(
        `select l.id, m.message_id from dead_letters l left join messages m using (message_id)
          where ${matches} order by failed_at, id limit $8`,
        [...valuesOf(selection), replaying.limit],
      );
      const total: Replayed = { replayed: 0, settled: 0, open: 0, messages: 0 };
      const add = (done: Partial<Replayed>) => {
        for (const [name, count] of Object.entries(done)) total[name as keyof Replayed] += count;
      };
      const isOver = () => replaying.signal.aborted;

      for (const messageId of new Set(chosen.map((row) => row.message_id).filter((id) => id !== null))) {
        if (isOver()) return total;
        add(await replayMessage(database, messageId, selection, replaying));
      }
      const others = chosen.filter((row) => row.message_id === null).map(({ id }) => id);
      for (let next = 0; next < others.length && !isOver(); next += republishedAtOnce) {
        const ids = others.slice(next, next + republishedAtOnce);
        add({ replayed: await database.transaction((all) => republish(all, ids, selection, replaying)) });
      }
      return total;
    },

    /** Deletes at most `limit` dead letters that failed and were last replayed before `moment`. @returns how many */
    forget(moment: Date, limit: number): Promise<number> {
      return deleteOld(
        database,
        {
          table: 'dead_letters',
          isOld: 'failed_at < $1 and coalesce(replayed_at, failed_at) < $1',
          oldestBy: 'failed_at',
        },
        moment,
        limit,
      );
    },
  };
}

const columns = `id, topic, partition, consumer_group as "group", reason, attempts, failed_at as "failedAt",
  event_id as "eventId", event_type as "eventType", key, request_id as "requestId", message_id as "messageId",
  recipient_id as "recipientId", channel, replayed_at as "replayedAt", replayed_by as "replayedBy"`;

/** SQL condition for a selection, with the parameters of `valuesOf`. */
const matches = `($1::uuid[] is null or id = any($1)) and ($2::uuid is null or message_id = $2)
  and ($3::text is null or channel = $3) and ($4::text is null or topic = $4)
  and ($5::timestamptz is null or failed_at >= $5) and ($6::timestamptz is null or failed_at < $6)
  and ($7::boolean is null or (replayed_at is not null) = $7)`;

function valuesOf({ ids, messageId, channel, topic, from, to, state }: Selection): unknown[] {
  return [ids, messageId, channel, topic, from, to, state && state === 'replayed'].map((value) => value ?? null);
}

async function replayMessage(
  database: Database,
  messageId: string,
  selection: Selection,
  replaying: Replaying,
): Promise<Partial<Replayed>> {
  const { by, requestId, timesOf } = replaying;
  return database.transaction(async (transaction) => {
    // Locked before its dead letters, so that concurrent replays wait for each other here.
    const [message] = await transaction.sql<{ status: string; replay: number }>(
      'select status, replay from messages where message_id = $1 for update',
      [messageId],
    );
    const letters = await transaction.sql<DeadLetter>(
      `select ${columns} from dead_letters where ${matches} and message_id = $8 order by failed_at, id limit 500
        for update`,
      [...valuesOf(selection), messageId],
    );
    if (message === undefined || letters.length === 0) return {};

    if (message.status !== 'delivered' && message.status !== 'failed') {
      const reports = letters.filter(({ topic }) => topic === topics.messageStatus).slice(0, republishedAtOnce);
      const ids = reports.map(({ id }) => id);
      const replayed = await republish(transaction, ids, selection, replaying);
      return { replayed, open: letters.length - replayed };
    }

    const now = hubDate();
    const reopened = await transaction.sql(
      `update deliveries d set status = 'accepted', attempts = 0, error = '', updated_at = $3, replay = $4
        where message_id = $1 and status = 'failed' and exists (
          select from dead_letters l where l.id = any($2) and l.event_type <> all($5)
            and (l.recipient_id is null or l.recipient_id = d.recipient_id) and (l.channel is null or l.channel = d.channel)
        ) returning recipient_id`,
      [messageId, letters.map(({ id }) => id), now, message.replay + 1, endsNothing],
    );
    await mark(
      transaction,
      letters.map(({ id }) => id),
      by,
    );
    if (reopened.length === 0) return { settled: letters.length };
    const { deliverBy, expiresAt } = timesOf(now);
    const step: StatusChange = { status: 'accepted', at: now, note: `replayed by ${by}` };
    await transaction.sql(
      `with message as (
        update messages set status = 'accepted', replay = $2, updated_at = $3, deliver_by = $4, expires_at = $5, history = history || $6
          where message_id = $1
      ), open as (
        insert into open_messages (expires_at, message_id) values ($5, $1)
      )
      insert into outbox (message_id, request_id, created_at) values ($1, $7, now())`,
      [messageId, message.replay + 1, now, deliverBy, expiresAt, JSON.stringify([step]), requestId],
    );
    return { replayed: letters.length, messages: 1 };
  });
}

/**
 * Publishes events again unchanged, and then records that: in this order, so that none is lost. Those locked by another replay are skipped.
 *
 * @returns how many
 */
async function republish(
  transaction: SqlTransaction,
  ids: readonly string[],
  selection: Selection,
  { by, publish }: Replaying,
): Promise<number> {
  if (ids.length === 0) return 0;
  const letters = await transaction.sql<DeadLetterWithValue>(
    `select ${columns}, value from dead_letters where ${matches} and id = any($8) order by failed_at, id
      for update skip locked`,
    [...valuesOf(selection), ids],
  );
  await publish(letters);
  await mark(
    transaction,
    letters.map(({ id }) => id),
    by,
  );
  return letters.length;
}

async function mark(transaction: SqlTransaction, ids: readonly string[], by: string): Promise<void> {
  await transaction.sql('update dead_letters set replayed_at = now(), replayed_by = $2 where id = any($1)', [ids, by]);
}
