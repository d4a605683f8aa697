import { columns, type Database, type SqlTransaction } from '#lib/database.ts';

/** How an attempt has ended: the numbers of chat4all.events.v1.AttemptOutcome. */
export const outcomes = { delivered: 1, failed: 2, givenUp: 3 } as const;

/** One request to an endpoint. */
export interface Attempt {
  /** UUID in the order of time (version 7). */
  id: string;
  eventId: string;
  type: string;
  at: Date;
  durationMs: number;
  statusCode: number;
  outcome: (typeof outcomes)[keyof typeof outcomes];
  error: string;
  /** How often the event was sent by then. */
  number: number;
  nextAt: Date | null;
}

/** Of each endpoint so many are kept, and those that come until the next sweep. */
const keptPerEndpoint = 1_000;

export type AttemptsStore = ReturnType<typeof openAttemptsStore>;

/** What was sent to endpoints, for their owners to look at. */
export function openAttemptsStore(database: Database) {
  return {
    async add(endpointId: string, attempt: Attempt): Promise<void> {
      await insertAttempts(database, endpointId, [attempt]);
    },

    /** The newest first: `limit` of those before an attempt, or of all. */
    async list(endpointId: string, before: string | undefined, limit: number): Promise<Attempt[]> {
      return database.sql<Attempt>(
        `select id, event_id as "eventId", type, at, duration_ms as "durationMs", status_code as "statusCode", outcome, error,
            number, next_at as "nextAt"
          from attempts where endpoint_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3`,
        [endpointId, before ?? null, limit],
      );
    },

    /** Removes what is older than a moment or more than is kept, `most` at once, and what is left of endpoints that are gone. */
    async sweep(before: Date, most: number): Promise<number> {
      const rows = await database.sql(
        `with old as (
          select id from attempts where id < $1 order by id limit $2
        ), over as (
          select a.id from endpoints e cross join lateral (
            select id from attempts where endpoint_id = e.id order by id desc offset ${keptPerEndpoint} limit $2
          ) a limit $2
        ), orphans as (
          delete from backlogs b where not exists (select from endpoints e where e.id = b.endpoint_id)
        )
        delete from attempts where id in (select id from old union select id from over) returning id`,
        [firstIdOf(before), most],
      );
      return rows.length;
    },
  };
}

/** Adds attempts of an endpoint, by themselves or in a transaction, whose commit then needn't wait for it. */
export function insertAttempts(
  { sql }: SqlTransaction,
  endpointId: string,
  attempts: readonly Attempt[],
): Promise<unknown> {
  return sql(
    `insert into attempts (endpoint_id, id, event_id, type, at, duration_ms, status_code, outcome, error, number, next_at)
      select $1, * from unnest($2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::integer[], $7::smallint[],
        $8::smallint[], $9::text[], $10::integer[], $11::timestamptz[])`,
    [
      endpointId,
      ...columns(attempts, [
        'id',
        'eventId',
        'type',
        'at',
        'durationMs',
        'statusCode',
        'outcome',
        'error',
        'number',
        'nextAt',
      ]),
    ],
  );
}

/** The least UUID of version 7 that is made at a moment. */
function firstIdOf(at: Date): string {
  const hex = at.getTime().toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}
