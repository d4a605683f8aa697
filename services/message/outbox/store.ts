import { MessageChanged } from '#gen/chat4all/message/v1/events.ts';
import { eventTypes } from '#gen/events.ts';
import type { BusEvent } from '#lib/bus/bus.ts';
import type { Database } from '#lib/database.ts';
import { eventOf, oldestInOutbox } from '#lib/database-outbox.ts';
import { v5 as uuidOf } from 'uuid';
import { messageColumns, storedMessage, type MessageRow } from '../messages/store.ts';
import { acceptedEventOf, withSeq } from '../messages/wire.ts';

/** An event that is not on the bus yet. */
export interface OutboxEntry {
  /** Whether it tells that a message was accepted, or of a change since. */
  kind: 'accepted' | 'change';
  /** Of an acceptance: how often the message had been replayed. */
  round?: number;
  /** The id of its row, in the table of its kind. */
  id: bigint;
  event: BusEvent;
}

/** The right to publish from the outbox. The epoch grows each time that the lease goes to another owner. */
export interface Lease {
  owner: string;
  epoch: bigint;
}

/** The PostgreSQL notification by which processes that accept messages wake the one that relays them. */
export const outboxNotification = 'message_outbox';

export type Outbox = ReturnType<typeof openOutbox>;

/** A larger event is published alone. */
const maxBatchBytes = 1024 * 1024;

/** Events that are not published yet, and the lease of the process that publishes them. */
export function openOutbox(database: Database) {
  /** Acceptances and replays that are not on the bus yet. */
  async function unpublishedAcceptances(limit: number): Promise<{ entries: OutboxEntry[]; more: boolean }> {
    const rows = await database.sql<OutboxRow>(
      `select id, message_id, conversation_id, seq, event, request_id, found from (
          select *, sum(length(event)) over (order by id) as bytes, count(*) over () as found from (
            select * from outbox order by id limit $1
          ) as oldest
        ) as sized
        where bytes is null or bytes <= ${maxBatchBytes} or bytes = length(event) order by id`,
      [limit],
    );
    const unwritten = rows.filter((row) => row.event === null).map((row) => row.message_id);
    const written = unwritten.length === 0 ? new Map<string, Written>() : await writeEvents(database, unwritten);
    const entries = rows.map((row) => {
      const { key, id, value } =
        row.event === null
          ? written.get(row.message_id)!
          : { key: row.conversation_id!, id: row.message_id, value: withSeq(row.event, row.seq!) };
      const type = eventTypes.MessageAccepted;
      const round = row.event === null ? written.get(row.message_id)!.round : 0;
      return {
        kind: 'accepted' as const,
        round,
        id: row.id,
        event: { id, type, key, value, requestId: row.request_id },
      };
    });
    const found = Number(rows[0]?.found ?? 0);
    return { entries, more: found === limit || rows.length < found };
  }

  return {
    /**
     * The events that are not on the bus yet, in the order in which they have to go there: of each kind `limit` at most, and 1 MiB or one
     * event; and whether there are more.
     */
    async unpublished(limit: number): Promise<{ entries: OutboxEntry[]; more: boolean }> {
      // Changes are read first: what they are about was accepted before, so its acceptance is published or among those that are read then.
      const found = await oldestInOutbox(database, limit);
      const accepted = await unpublishedAcceptances(limit);
      if (accepted.more) return accepted;
      const changes = found.map((entry) => ({ kind: 'change' as const, id: entry.row, event: eventOf(entry) }));
      const bytes = found.reduce((sum, { value }) => sum + value.length, 0);
      const entries = inRounds([...accepted.entries, ...changes]);
      return { entries, more: found.length === limit || bytes > maxBatchBytes / 2 };
    },

    /** Takes events that are on the bus out of the outbox, unless the lease has gone to somebody else. */
    async published(entries: readonly OutboxEntry[], lease: Lease): Promise<void> {
      const rowsOf = (wanted: OutboxEntry['kind']) => entries.filter(({ kind }) => kind === wanted).map(({ id }) => id);
      await database.sql(
        `with lease as materialized (
            select from leases where name = 'relay' and owner = $3 and epoch = $4
          ), changes as (
            delete from outbox_events where id = any($2) and exists (select from lease)
          )
          delete from outbox where id = any($1) and exists (select from lease)`,
        [rowsOf('accepted'), rowsOf('change'), lease.owner, lease.epoch],
      );
    },

    /** How long the oldest event has been waiting for the bus, in milliseconds; 0 if none is. */
    async age(): Promise<number> {
      const [oldest] = await database.sql<{ age: number }>(
        `select ${ageOf('created_at')} as age from outbox order by id limit 1`,
      );
      return oldest?.age ?? 0;
    },

    /** How many events wait for the bus, and for how many milliseconds the oldest one has. */
    async backlog(): Promise<{ events: number; age: number }> {
      const [row] = await database.sql<{ events: bigint; age: number | null }>(
        `select count(*) as events, ${ageOf('min(created_at)')} as age from outbox`,
      );
      return { events: Number(row!.events), age: row!.age ?? 0 };
    },

    /** Notifies the process that relays that there is something in the outbox. */
    async notify(): Promise<void> {
      await database.sql(`select pg_notify('${outboxNotification}', '')`);
    },

    /** Takes or keeps the relay's lease for `milliseconds`; undefined while somebody else has it. */
    async holdLease(owner: string, milliseconds: number): Promise<Lease | undefined> {
      // While another process has the lease this only reads.
      const [lease] = await database.sql<{ epoch: bigint }>(
        `insert into leases as l (name, owner, epoch, expires_at)
          select 'relay', $1::uuid, 1, now() + $2 * interval '1 millisecond'
            where not exists (select from leases where name = 'relay' and owner <> $1 and expires_at >= now())
          on conflict (name) do update set
            owner = excluded.owner,
            epoch = case when l.owner = excluded.owner then l.epoch else l.epoch + 1 end,
            expires_at = excluded.expires_at
          where l.owner = excluded.owner or l.expires_at < now()
          returning epoch`,
        [owner, milliseconds],
      );
      return lease === undefined ? undefined : { owner, epoch: lease.epoch };
    },

    /** Releases the relay's lease, so that another process needn't wait for its end. */
    async releaseLease(owner: string): Promise<void> {
      // The column has whole milliseconds: rounded up, now would be in the future.
      await database.sql(
        `update leases set expires_at = now() - interval '1 millisecond' where name = 'relay' and owner = $1`,
        [owner],
      );
    },
  };
}

interface OutboxRow {
  id: bigint;
  message_id: string;
  /** This and what follows is null where the event has still to be written. */
  conversation_id: string | null;
  seq: bigint | null;
  event: Buffer | null;
  request_id: string;
  /** How many rows there were before their bytes were looked at. */
  found: bigint;
}

/** Milliseconds since a time that the database has written, by the database's clock: those of processes may differ. */
function ageOf(moment: string): string {
  return `greatest(0, extract(epoch from now() - ${moment}) * 1000)::float8`;
}

/** Puts a replay behind what became of its message before: only where there is a replay, since a change has to be read for that. */
function inRounds(entries: OutboxEntry[]): OutboxEntry[] {
  if (!entries.some(({ round = 0 }) => round > 0)) return entries;
  const roundOf = ({ round, event }: OutboxEntry) =>
    round ?? (event.type === eventTypes.MessageChanged ? MessageChanged.decode(event.value).replay : 0);
  const rounds = new Map(entries.map((entry) => [entry, roundOf(entry)]));
  return entries.toSorted((one, other) => rounds.get(one)! - rounds.get(other)!);
}

type Written = Pick<BusEvent, 'id' | 'key' | 'value'> & { round: number };

/** Ids of events about a replay are made in here from the message's id and the round. */
const replayNamespace = '3d6c1f0e-52a1-4c0b-9a53-1a3a1c0f6d2b';

/**
 * The events of messages, by message, where the outbox has none: a replay, which knows its deliveries by their round, or an acceptance by
 * an earlier version.
 */
async function writeEvents(database: Database, messageIds: readonly string[]): Promise<Map<string, Written>> {
  const rows = await database.sql<MessageRow & { only: { recipientId: string; channel: string }[] | null }>(
    `select ${messageColumns},
        case when m.replay > 0 then (
          select jsonb_agg(jsonb_build_object('recipientId', d.recipient_id, 'channel', d.channel)
              order by array_position(m.recipient_ids, d.recipient_id), d.channel)
            from deliveries d where d.message_id = m.message_id and d.replay = m.replay
        ) end as only
      from messages m where message_id = any($1)`,
    [messageIds],
  );
  return new Map(
    rows.map((row) => {
      const message = storedMessage(row);
      const { messageId, conversationId, replay } = message;
      return [
        messageId,
        {
          // Each round is an event of its own: the bus leaves out of a batch what it has seen acknowledged.
          id: replay === 0 ? messageId : uuidOf(`${messageId}/${replay}`, replayNamespace),
          key: conversationId,
          value: withSeq(acceptedEventOf(message, row.only ?? []), row.seq),
          round: replay,
        },
      ];
    }),
  );
}
