import { hubDate, hubTime } from '#lib/clock.ts';
import { columns, type Database } from '#lib/database.ts';
import { endpointColumns, type Endpoint } from './endpoints-store.ts';
import type { Standing } from './standing.ts';
import { insertAttempts, type Attempt } from './attempts-store.ts';

/** The right to work on an endpoint until it ends, or the endpoint is changed. */
export interface Lease {
  /** Of the endpoint. */
  id: string;
  /** UUID: each claim has another one. */
  lease: string;
}

/** An endpoint that a worker works on. */
export interface Work extends Endpoint, Standing, Lease {
  /** All up to there was delivered, given up or left out, but for what stands in backlogs. */
  position: number;
  epoch: number;
  /**
   * There may be something for it up to there; beyond that nobody has looked, and between there and `position` there is nothing. Null if
   * nobody has looked since it was created or resumed: there may be something anywhere.
   */
  markedTo: number | null;
}

/**
 * Part of an endpoint's events that is delivered apart from the others, one after the other: the events of a conversation one of which has
 * failed, or that come faster than they are taken; events that are sent once more; or word that events were lost.
 */
export interface Backlog {
  id: string;
  kind: 'conversation' | 'replay' | 'reset';
  /** The lane (`laneOf`) of kind `conversation`; else null. */
  conversationId: string | null;
  /** All of it up to there was delivered or given up. */
  after: number;
  /** Where a replay ends, and after how many events at most. */
  upTo: number | null;
  remaining: number | null;
  /** Attempts of the next event. */
  attempts: number;
  failingSince: Date | null;
  nextAt: Date;
}

/** What a worker has found out about its endpoint. */
export interface Progress extends Standing {
  position: number;
  backlogs: readonly Backlog[];
  removedBacklogIds: readonly string[];
  attempts: readonly Attempt[];
}

const workColumns = `${endpointColumns}, e.lease_by as lease, e.failures, e.hold_until as "holdUntil", e.position, e.epoch, e.marked_to as "markedTo"`;

export type WorkStore = ReturnType<typeof openWorkStore>;

/**
 * Who works on which endpoints. A lease belongs to one claim: a worker whose endpoint was changed meanwhile, and claimed again, records
 * nothing any more, even if both workers are of one process. Whoever changes several endpoints locks them in the order of their ids, so that
 * two don't wait for each other.
 */
export function openWorkStore(database: Database) {
  return {
    /**
     * Notes for which endpoints there may be something new in the log. If another process does that at the moment, it is left to that one.
     *
     * @param most so many events at most
     */
    async mark(most: number): Promise<Marked | undefined> {
      const [seen] = await database.sql<{ same: boolean; any: boolean }>(
        `select w.last_id = h.last_id as same, exists (select from endpoints where status = 'active') as any
          from heads w, heads h where w.name = 'webhooks' and h.name = 'log'`,
      );
      if (seen?.same === true) return { to: 0, more: false, any: seen.any, endpoints: [] };
      return database.transaction(async (transaction) => {
        const [heads] = await transaction.sql<{ from: bigint; to: bigint; any: boolean }>(
          `select w.last_id as from, h.last_id as to, exists (select from endpoints where status = 'active') as any
            from heads w, heads h where w.name = 'webhooks' and h.name = 'log' for update of w skip locked`,
        );
        if (heads === undefined) return undefined;
        const [from, end] = [Number(heads.from), Number(heads.to)];
        const to = heads.any && end > from ? Math.min(end, from + most) : end;
        if (from === end) return { to: end, more: false, any: heads.any, endpoints: [] };
        const endpoints = !heads.any
          ? []
          : await transaction.sql<{ id: string; lease: string | null }>(
              `with fresh as (
                select conversation_id, user_id, max(id) as id from log where id > $1 and id <= $2 group by conversation_id, user_id
              ), told as (
                select m.user_id from fresh f join members m on m.conversation_id = f.conversation_id
                  where m.to_id is null or m.to_id > $1
                union select user_id from fresh where user_id is not null
              ), marked as (
                select id from endpoints where status = 'active' and user_id in (select user_id from told) order by id for update
              )
              update endpoints e set marked_to = $2,
                  position = case when marked_to <= position then greatest(position, $1) else position end,
                  due_at = greatest(hold_until, least(due_at, $3))
                from marked where e.id = marked.id
                returning e.id, lease_by as lease`,
              [from, to, hubDate()],
            );
        await transaction.sql(`update heads set last_id = $1 where name = 'webhooks'`, [to]);
        return { to, more: to < end, any: heads.any, endpoints };
      });
    },

    /** Takes endpoints on which there is something to do, and that nobody works on: the longest due first. */
    async claim(most: number, leaseMs: number): Promise<{ work: Work; backlogs: Backlog[] }[]> {
      const rows = await database.sql<WorkRow>(
        `with due as (
          select id from endpoints where status = 'active' and due_at <= $1 and (lease_until is null or lease_until < $1)
            order by due_at limit $2 for update skip locked
        )
        update endpoints e set lease_by = gen_random_uuid(), lease_until = $3 from due where e.id = due.id
          returning ${workColumns}`,
        [hubDate(), most, new Date(hubTime() + leaseMs)],
      );
      if (rows.length === 0) return [];
      const backlogs = await database.sql<BacklogRow>(
        `select id, endpoint_id as "endpointId", kind, conversation_id as "conversationId", after_id as after, up_to as "upTo",
            remaining, attempts, failing_since as "failingSince", next_at as "nextAt"
          from backlogs where endpoint_id = any($1::uuid[])`,
        [rows.map(({ id }) => id)],
      );
      return rows.map((row) => ({
        work: workOf(row),
        backlogs: backlogs.filter(({ endpointId }) => endpointId === row.id).map(backlogOf),
      }));
    },

    /** Renews leases. @returns the endpoints whose leases were not lost, as they are now */
    async renew(held: readonly Lease[], leaseMs: number): Promise<Work[]> {
      const rows = await database.sql<WorkRow>(
        `with kept as (
          select id from endpoints where id = any($1::uuid[]) and lease_by = any($2::uuid[]) and status = 'active' order by id for update
        )
        update endpoints e set lease_until = $3 from kept where e.id = kept.id
          returning ${workColumns}`,
        [...columns(held, ['id', 'lease']), new Date(hubTime() + leaseMs)],
      );
      return rows.map(workOf);
    },

    /** Records what was done. @returns false if the lease is lost; then nothing was recorded */
    async record({ id, lease }: Lease, progress: Progress): Promise<boolean> {
      const { position, failures, failingSince, holdUntil, removedBacklogIds, attempts } = progress;
      const backlogs = progress.backlogs.map((backlog) => ({ ...backlog, endpointId: id }));
      return database.transaction(async (transaction) => {
        const own = await transaction.sql(
          `update endpoints set position = greatest(position, $3), failures = $4, failing_since = $5, hold_until = $6
            where id = $2 and lease_by = $1 returning id`,
          [lease, id, position, failures, failingSince, holdUntil],
        );
        if (own.length === 0) return false;
        if (backlogs.length > 0) {
          void transaction.sql(
            `insert into backlogs (id, endpoint_id, kind, conversation_id, after_id, up_to, remaining, attempts, failing_since,
                next_at)
              select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::integer[],
                $8::integer[], $9::timestamptz[], $10::timestamptz[])
              on conflict (id) do update set after_id = excluded.after_id, remaining = excluded.remaining,
                attempts = excluded.attempts, failing_since = excluded.failing_since, next_at = excluded.next_at`,
            columns(backlogs, [
              'id',
              'endpointId',
              'kind',
              'conversationId',
              'after',
              'upTo',
              'remaining',
              'attempts',
              'failingSince',
              'nextAt',
            ]),
          );
        }
        if (removedBacklogIds.length > 0) {
          void transaction.sql('delete from backlogs where id = any($1::uuid[])', [removedBacklogIds]);
        }
        if (attempts.length > 0) void insertAttempts(transaction, id, attempts);
        return true;
      });
    },

    /**
     * Gives an endpoint back.
     *
     * @param readTo up to where the log was read: if there is a mark beyond that, there is something to do at once. Null if it was not read
     * to its end yet
     * @param nextAt when there is something to do for it, if nothing comes before
     */
    async release({ id, lease }: Lease, readTo: number | null, nextAt: Date | null): Promise<void> {
      await database.sql(
        `update endpoints set lease_by = null, lease_until = null, marked_to = coalesce(marked_to, $3),
            due_at = case when marked_to > $3 then greatest(hold_until, $5) else $4 end
          where id = $2 and lease_by = $1`,
        [lease, id, readTo, nextAt, hubDate()],
      );
    },

    /** Stops an endpoint that doesn't work. @returns false if the lease is lost, or the endpoint isn't active */
    async stop({ id, lease }: Lease, status: 'paused' | 'disabled'): Promise<boolean> {
      const rows = await database.sql(
        `update endpoints set status = $3, due_at = null, lease_by = null, lease_until = null, updated_at = $4
          where id = $2 and lease_by = $1 and status = 'active' returning id`,
        [lease, id, status, hubDate()],
      );
      return rows.length > 0;
    },

    /** Begins anew at the end of a log: what an endpoint had to be sent before is lost, and it is told so. */
    async reset({ id, lease }: Lease, at: { epoch: number; position: number }, told: Backlog): Promise<void> {
      await database.transaction(async (transaction) => {
        const own = await transaction.sql(
          `update endpoints set epoch = $3, position = $4, marked_to = $4 where id = $2 and lease_by = $1 returning id`,
          [lease, id, at.epoch, at.position],
        );
        if (own.length === 0) return;
        void transaction.sql('delete from backlogs where endpoint_id = $1', [id]);
        await transaction.sql(
          `insert into backlogs (id, endpoint_id, kind, after_id, attempts, next_at) values ($1, $2, 'reset', $3, 0, $4)`,
          [told.id, id, told.after, told.nextAt],
        );
      });
    },
  };
}

export interface Marked {
  /** Up to where the log was looked at. */
  to: number;
  more: boolean;
  /** Whether there is any active endpoint. */
  any: boolean;
  /** For which there may be some, each with the lease under which it is worked on, if any. */
  endpoints: { id: string; lease: string | null }[];
}

/** bigint columns come as bigint. */
type WorkRow = Omit<Work, 'position' | 'epoch' | 'markedTo'> & {
  position: bigint;
  epoch: bigint;
  markedTo: bigint | null;
};
type BacklogRow = Omit<Backlog, 'after' | 'upTo'> & { endpointId: string; after: bigint; upTo: bigint | null };

function workOf(row: WorkRow): Work {
  const markedTo = row.markedTo === null ? null : Number(row.markedTo);
  return { ...row, position: Number(row.position), epoch: Number(row.epoch), markedTo };
}

function backlogOf({ endpointId: _, ...row }: BacklogRow): Backlog {
  return { ...row, after: Number(row.after), upTo: row.upTo === null ? null : Number(row.upTo) };
}
