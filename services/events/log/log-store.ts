import { columns, type Database, type SqlTransaction } from '#lib/database.ts';

/** An event before it has its place in the log. */
export interface NewEntry {
  /** UUID of the event. One that is in the log already, of today or yesterday, is left out. */
  eventId: string;
  /** Whose members are told; null for an event that only `userId` is told. */
  conversationId: string | null;
  userId: string | null;
  /** The number of its field in `StreamEventsResponse.event`. */
  type: number;
  /** A StreamEventsResponse without its cursor. */
  body: Buffer;
  /** Who may see the events of the conversation from this one on, and who may up to this one. */
  joins?: readonly string[];
  leaves?: readonly string[];
}

/** An event of the log. */
export interface Entry {
  /** Its place: numbers without gaps, in the order in which events became visible. */
  id: number;
  type: number;
  conversationId: string | null;
  userId: string | null;
  body: Buffer;
}

/** Where the log ends and begins. */
export interface Head {
  /** The id of the last event; 0 if there was none. */
  lastId: number;
  /** The id of the last event that was removed; 0 if none was. */
  removedTo: number;
  /** Differs after the log has begun anew, or was restored from a backup. */
  epoch: number;
}

/** What has become of events that were to be appended. */
export interface Appended {
  /** The id of the last event of the log. */
  head: number;
  /** Those that were not in the log before, the last of them at its end. */
  entries: Entry[];
}

/** Which part of the log somebody wants to read. */
export interface PageRequest {
  userId: string;
  /** Events with greater ids. */
  after: number;
  /** And none beyond this one. */
  upTo: number;
  limit: number;
  /** The user's own id among them stands for the events of no conversation. All events, if there are none. */
  conversationIds: readonly string[];
  types: readonly number[];
}

/** What somebody could see of a conversation: the events from `fromId` to `toId`, both inclusive. */
export interface Membership {
  conversationId: string;
  fromId: number;
  /** Null while it lasts. */
  toId: number | null;
}

export type LogStore = ReturnType<typeof openLogStore>;

/** How much later an event may be in the log than one that happened after it. */
const outOfOrderMs = 5_000;
/** A page has this many bytes at most, or one event. */
const maxPageBytes = 1024 * 1024;

/**
 * The log of events. Its head is a row that whoever appends has locked until the commit: so ids have no gaps, and an event is visible
 * before any with a greater id is. Whoever has read up to an id never has to look back.
 */
export function openLogStore(database: Database) {
  /** Appends entries that don't depend on each other's memberships. */
  async function appendTogether(transaction: SqlTransaction, entries: readonly NewEntry[]): Promise<Appended> {
    const rows = entries.map((entry, place) => ({ ...entry, place }));
    const memberships = entries.flatMap(({ eventId, joins = [], leaves = [] }) => [
      ...joins.map((userId) => ({ eventId, userId, joins: true })),
      ...leaves.map((userId) => ({ eventId, userId, joins: false })),
    ]);
    const placed = await transaction.sql<{ place: number | null; last_id: bigint }>(
      `with given as (
        select * from unnest($1::int[], $2::uuid[], $3::uuid[], $4::uuid[], $5::smallint[], $6::bytea[])
          as g (place, event_id, conversation_id, user_id, type, body)
      ), firsts as (
        select distinct on (event_id) * from given order by event_id, place
      ), fresh as (
        select f.*, row_number() over (order by place) as number, h.last_id, h.day from firsts f, heads h
          where h.name = 'log'
            and not exists (select from log l where l.event_id = f.event_id and l.day >= h.day - 1)
      ), placed as (
        insert into log (id, day, event_id, conversation_id, user_id, type, body)
          select last_id + number, day, event_id, conversation_id, user_id, type, body from fresh order by number
          returning id, event_id, conversation_id
      ), head as (
        update heads set last_id = last_id + (select count(*) from placed) where name = 'log' returning last_id
      ), changes as (
        select p.id, p.conversation_id, m.user_id, m.joins from placed p
          join unnest($7::uuid[], $8::uuid[], $9::boolean[]) as m (event_id, user_id, joins) using (event_id)
      ), joined as (
        insert into members (user_id, conversation_id, from_id)
          select user_id, conversation_id, id from changes c where joins and not exists (
            select from members m
              where m.user_id = c.user_id and m.conversation_id = c.conversation_id and m.to_id is null)
      ), ended as (
        update members m set to_id = c.id from changes c
          where not c.joins and m.user_id = c.user_id and m.conversation_id = c.conversation_id and m.to_id is null
      )
      select f.place, head.last_id from head left join fresh f on true order by f.number`,
      [
        ...columns(rows, ['place', 'eventId', 'conversationId', 'userId', 'type', 'body']),
        ...columns(memberships, ['eventId', 'userId', 'joins']),
      ],
    );
    const fresh = placed.filter(({ place }) => place !== null);
    const head = Number(placed[0]!.last_id);
    const first = head - fresh.length + 1;
    return {
      head,
      entries: fresh.map(({ place }, index) => {
        const { type, conversationId, userId, body } = rows[place!]!;
        return { id: first + index, type, conversationId, userId, body };
      }),
    };
  }

  return {
    /** Appends events, at least one, in their order. */
    async append(entries: readonly NewEntry[]): Promise<Appended> {
      return database.transaction(async (transaction) => {
        void transaction.sql(`update heads set day = greatest(day, ${today}) where name = 'log'`);
        const appended = await Promise.all(apart(entries).map((some) => appendTogether(transaction, some)));
        return { head: appended.at(-1)!.head, entries: appended.flatMap((each) => each.entries) };
      });
    },

    async head(): Promise<Head> {
      const [row] = await database.sql<{ last_id: bigint; removed_to: bigint; epoch: bigint }>(
        `select last_id, removed_to, epoch from heads where name = 'log'`,
      );
      return { lastId: Number(row!.last_id), removedTo: Number(row!.removed_to), epoch: Number(row!.epoch) };
    },

    /** Those of the conversations of which it is known who may see what. */
    async knownConversations(ids: readonly string[]): Promise<string[]> {
      const rows = await database.sql<{ id: string }>(
        `select id from unnest($1::uuid[]) as given (id)
          where exists (select from members m where m.conversation_id = given.id)`,
        [ids],
      );
      return rows.map(({ id }) => id);
    },

    /** Lets the members of conversations of which nothing is known see their events from now on. */
    async adopt(conversations: readonly { conversationId: string; memberIds: readonly string[] }[]): Promise<void> {
      const rows = conversations.flatMap(({ conversationId, memberIds }) =>
        memberIds.map((userId) => ({ conversationId, userId })),
      );
      await database.sql(
        `insert into members (user_id, conversation_id, from_id)
          select g.user_id, g.conversation_id, h.last_id + 1
            from unnest($1::uuid[], $2::uuid[]) as g (conversation_id, user_id), heads h where h.name = 'log'
            and not exists (select from members m where m.conversation_id = g.conversation_id)
          on conflict do nothing`,
        columns(rows, ['conversationId', 'userId']),
      );
    },

    /** The conversations that somebody could see a part of beyond an id. */
    async membershipsOf(userId: string, after: number): Promise<Membership[]> {
      const rows = await database.sql<{ conversation_id: string; from_id: bigint; to_id: bigint | null }>(
        'select conversation_id, from_id, to_id from members where user_id = $1 and (to_id is null or to_id > $2)',
        [userId, after],
      );
      return rows.map(({ conversation_id: conversationId, from_id: fromId, to_id: toId }) => ({
        conversationId,
        fromId: Number(fromId),
        toId: toId === null ? null : Number(toId),
      }));
    },

    /** Who is a member of a conversation now. */
    async membersOf(conversationId: string): Promise<string[]> {
      const rows = await database.sql<{ user_id: string }>(
        'select user_id from members where conversation_id = $1 and to_id is null',
        [conversationId],
      );
      return rows.map(({ user_id: userId }) => userId);
    },

    /**
     * Events that somebody may see, in their order: `limit` at most, and 1 MiB or one event; and where the log began at that moment, since
     * events up to there may be missing.
     */
    async page({ userId, after, upTo, limit, conversationIds, types }: PageRequest): Promise<{
      entries: Entry[];
      removedTo: number;
      /** Whether there may be more up to `upTo`. */
      more: boolean;
    }> {
      const rows = await database.sql<EntryRow & { removed_to: bigint; found: bigint | null }>(
        `select h.removed_to, e.* from heads h left join lateral (
          select *, sum(length(body)) over (order by id) as bytes, count(*) over () as found from (
            select * from (
              (select l.* from members m cross join lateral (
                select id, type, conversation_id, user_id, body from log
                  where conversation_id = m.conversation_id and id > greatest($2, m.from_id - 1)
                    and id <= least($3, coalesce(m.to_id, $3)) and (cardinality($6::smallint[]) = 0 or type = any($6))
                  order by id limit $4
              ) l where m.user_id = $1 and coalesce(m.to_id, $3) > $2
                and (cardinality($5::uuid[]) = 0 or m.conversation_id = any($5)))
              union all
              (select id, type, conversation_id, user_id, body from log
                where user_id = $1 and id > $2 and id <= $3 and (cardinality($5::uuid[]) = 0 or $1 = any($5))
                  and (cardinality($6::smallint[]) = 0 or type = any($6))
                order by id limit $4)
            ) as visible order by id limit $4
          ) as sized
        ) e on e.bytes <= ${maxPageBytes} or e.bytes = length(e.body)
        where h.name = 'log' order by e.id`,
        [userId, after, upTo, limit, conversationIds, types],
      );
      const entries = rows.filter(({ id }) => id !== null).map(entryOf);
      const [{ removed_to: removedTo, found }] = rows as [(typeof rows)[number]];
      const isCut = entries.length === limit || entries.length < Number(found ?? 0);
      return { entries, removedTo: Number(removedTo), more: isCut };
    },

    /** The id of the last event before a moment, or a little before that: events are in the order of their times, but for seconds. */
    async idBefore(at: Date, timeOf: (body: Buffer) => number): Promise<number> {
      const { removedTo, lastId } = await this.head();
      let [low, high] = [removedTo, lastId];
      while (low < high) {
        const middle = Math.ceil((low + high) / 2);
        const [row] = await database.sql<{ body: Buffer }>('select body from log where id = $1', [middle]);
        if (row === undefined || timeOf(row.body) < at.getTime() - outOfOrderMs) low = middle;
        else high = middle - 1;
      }
      return low;
    },

    /** All events behind an id, in their order: `limit` at most, and 1 MiB or one event. */
    async after(id: number, limit: number): Promise<Entry[]> {
      const rows = await database.sql<EntryRow>(
        `select id, type, conversation_id, user_id, body from (
          select *, sum(length(body)) over (order by id) as bytes from (
            select id, type, conversation_id, user_id, body from log where id > $1 order by id limit $2
          ) as oldest
        ) as sized where bytes <= ${maxPageBytes} or bytes = length(body) order by id`,
        [id, limit],
      );
      return rows.map(entryOf);
    },

    /** Makes the partitions of today and tomorrow. */
    async makePartitions(): Promise<void> {
      const [row] = await database.sql<{ day: string }>(`select to_char(${today}, 'YYYY-MM-DD') as day`);
      for (const ahead of [0, 1]) {
        const from = dayAfter(row!.day, ahead);
        await database.sql(
          `create table if not exists ${partitionOf(from)} partition of log
            for values from ('${from}') to ('${dayAfter(from, 1)}')`,
        );
      }
    },

    /** Drops the partitions of days that ended before a moment. @returns how many there were */
    async dropPartitions(before: Date): Promise<number> {
      const rows = await database.sql<{ name: string }>(
        `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
          where i.inhparent = 'log'::regclass order by c.relname`,
      );
      const last = partitionOf(before.toISOString().slice(0, 10));
      const old = rows.map(({ name }) => name).filter((name) => name < last);
      for (const name of old) {
        await database.transaction(async (transaction) => {
          // Nobody appends meanwhile, so that where the log begins and what is there always agree.
          await transaction.sql(
            `update heads set removed_to = greatest(removed_to, (select coalesce(max(id), 0) from ${name})) where name = 'log'`,
          );
          await transaction.sql(`drop table ${name}`);
        });
      }
      return old.length;
    },
  };
}

interface EntryRow {
  id: bigint;
  type: number;
  conversation_id: string | null;
  user_id: string | null;
  body: Buffer;
}

function entryOf({ id, type, conversation_id: conversationId, user_id: userId, body }: EntryRow): Entry {
  return { id: Number(id), type, conversationId, userId, body };
}

const today = `(now() at time zone 'UTC')::date`;

function dayAfter(day: string, days: number): string {
  return new Date(Date.parse(`${day}T00:00:00Z`) + days * 86_400_000).toISOString().slice(0, 10);
}

/** @param day such as 2026-01-31 */
function partitionOf(day: string): string {
  return `log_${day.replaceAll('-', '_')}`;
}

/** One that changes who is a member stands alone: one statement doesn't see what it does itself. */
function apart(entries: readonly NewEntry[]): NewEntry[][] {
  const groups: NewEntry[][] = [];
  for (const entry of entries) {
    const last = groups.at(-1);
    const isAlone = (each: NewEntry | undefined) => each?.joins !== undefined || each?.leaves !== undefined;
    if (last === undefined || isAlone(entry) || isAlone(last[0])) groups.push([entry]);
    else last.push(entry);
  }
  return groups;
}
