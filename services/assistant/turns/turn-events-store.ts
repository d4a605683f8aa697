import type { Database, SqlTransaction } from '#lib/database.ts';
import { Rounds } from '#lib/rounds.ts';
import type { TurnState } from './turn.ts';

/** An event as it is kept: encoded. */
export interface StoredEvent {
  messageId: bigint;
  number: number;
  event: Uint8Array;
}

/** What there is to read of a turn behind an event. */
export interface Reading {
  /** Undefined if nothing is known of the turn any more. */
  state: TurnState | undefined;
  events: { number: number; event: Buffer }[];
  /** Whether there is more, to be read at once. */
  isCut: boolean;
}

/** Events that are written, or read of one turn, by one statement. */
const eventsAtOnce = 500;
/** Turns whose events are read by one statement. */
const turnsAtOnce = 200;

export interface TurnEvents {
  /** Keeps an event, together with all that come meanwhile. */
  append(event: StoredEvent): Promise<void>;
  /** Reads the events of a turn after a number; those who ask at the same time share a statement. */
  read(messageId: bigint, after: number): Promise<Reading>;
}

/** The events of turns, for those who follow a turn at another process, or later. */
export function openTurnEvents(db: Database): TurnEvents {
  const writing = new Rounds<StoredEvent, void>(
    async (events) => {
      await insertEvents(db, events);
      return events.map(() => undefined);
    },
    { name: 'assistant.events_written', items: eventsAtOnce },
  );

  const reading = new Rounds<{ messageId: bigint; after: number }, Reading>(
    async (asked) => {
      const rows = await db.sql<{
        place: bigint;
        state: TurnState | null;
        number: bigint | null;
        event: Buffer | null;
      }>(
        `select place, state, number, event
       from unnest($1::bigint[], $2::bigint[]) with ordinality as asked (message_id, after, place)
       left join turns t on t.message_id = asked.message_id
       left join lateral (
         select number, event from turn_events e where e.message_id = asked.message_id and e.number > asked.after
         order by number limit ${eventsAtOnce}
       ) events on true
       order by place, number`,
        [asked.map(({ messageId }) => messageId), asked.map(({ after }) => after)],
      );
      const byPlace = Map.groupBy(rows, ({ place }) => Number(place));
      return asked.map((_, index) => {
        const found = byPlace.get(index + 1) ?? [];
        const events = found.flatMap(({ number, event }) =>
          number === null || event === null ? [] : [{ number: Number(number), event }],
        );
        return { state: found[0]?.state ?? undefined, events, isCut: events.length === eventsAtOnce };
      });
    },
    { name: 'assistant.events_read', items: turnsAtOnce },
  );
  return {
    append: (event) => writing.do(event),
    read: (messageId, after) => reading.do({ messageId, after }),
  };
}

/** Keeps events; those of turns that have been deleted are dropped. */
export async function insertEvents(sql: SqlTransaction, events: readonly StoredEvent[]): Promise<void> {
  await sql.sql(
    `insert into turn_events (message_id, number, event)
     select message_id, number, event from unnest($1::bigint[], $2::bigint[], $3::bytea[]) as e (message_id, number, event)
     join turns using (message_id) on conflict do nothing`,
    [
      events.map(({ messageId }) => messageId),
      events.map(({ number }) => number),
      events.map(({ event }) => Buffer.from(event)),
    ],
  );
}

/** All events of a turn, the first one first. */
export async function eventsOf(sql: SqlTransaction, messageId: bigint): Promise<Reading['events']> {
  const rows = await sql.sql<{ number: bigint; event: Buffer }>(
    'select number, event from turn_events where message_id = $1 order by number',
    [messageId],
  );
  return rows.map(({ number, event }) => ({ number: Number(number), event }));
}
