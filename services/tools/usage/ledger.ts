import { randomInt } from 'node:crypto';
import { v7 as orderedUuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { Rounds } from '#lib/rounds.ts';
import type { Plans } from '../subscriptions/plans.ts';
import { lockSubscriptions, type Subscription } from '../subscriptions/subscriptions.ts';
import { decide, subscriptionAt, type PlanName, type ResponseStatus } from '../tools.ts';

/** A call that wants to begin. */
export interface Claim {
  userId: string;
  toolId: string;
  requestId: string;
  /** The tokens that it is expected to use; undefined if unknown: then it reserves all that are left. */
  expected: number | undefined;
  /** Why it can't begin although the user may: the tool is missing, or its circuit is open. */
  refusal: HubError | undefined;
  /** Milliseconds that its reservation lasts, if not as long as others. */
  lifetime?: number;
}

/** Tokens set aside for a call under way. */
export interface Reservation {
  /** UUID, which its usage record keeps. */
  id: string;
  /** After that it is ended as failed. */
  expiresAt: Date;
}

/** What a call has used, to replace its reservation. */
export interface Settlement {
  reservationId: string;
  userId: string;
  /** How the call ended; undefined if the tool wasn't asked: then it leaves no trace. */
  status: ResponseStatus | undefined;
  tokens: number;
  /** Milliseconds. */
  duration: number;
}

export type Ledger = ReturnType<typeof openLedger>;

export interface LedgerOptions {
  plans: Plans;
  /** Milliseconds of a period. */
  period: number;
  /** Milliseconds that a reservation lasts. */
  lifetime: number;
}

type Entry = { claim: Claim } | { settlement: Settlement };
/** The answer to a claim, a HubError being a refusal; or whether a settlement counts. */
type Outcome = Reservation | HubError | 'undecided' | 'settled' | 'gone';

interface Ended {
  id: string;
  user_id: string;
  began_at: Date;
  used: bigint;
  status: ResponseStatus | null;
}

interface Reserved {
  user_id: string;
  began_at: Date;
  tokens: bigint;
}

/** Users are spread over lanes, each with one transaction at a time, so that not all of them wait for the same one. */
const laneCount = 8;
/** The sums of a day are spread over this many rows, so that processes seldom update the same one. */
const partCount = 16;
const maxEntriesInRound = 500;
const maxExpiredAtOnce = 500;

/**
 * Decides which calls may begin, and counts what they use. A call reserves tokens before its tool is called; then its usage replaces the
 * reservation, in the table of usage and in the counter of the subscription together. If the process dies in between, the call counts as
 * failed once its reservation expires.
 *
 * A process writes in a few lanes, each with one transaction after another for all entries that came meanwhile. Transactions first lock the
 * subscriptions that they are about, in the order of their users, so that they can't deadlock.
 */
export function openLedger(db: Database, { plans, period, lifetime }: LedgerOptions) {
  /** A random start for the lanes of this process, so that processes use different rows. */
  const firstPart = randomInt(partCount);
  const lanes = Array.from({ length: laneCount }, (_, lane) => {
    const part = (firstPart + lane) % partCount;
    return new Rounds<Entry, Outcome>((entries) => db.transaction((transaction) => write(transaction, entries, part)), {
      name: 'tools.usage',
      items: maxEntriesInRound,
    });
  });
  const laneOf = (userId: string) => lanes[Number.parseInt(userId.slice(-2), 16) % laneCount]!;
  /** Callers that wait for other calls of their user to end. */
  const waiting = new Map<string, Set<() => void>>();

  async function write(transaction: SqlTransaction, entries: readonly Entry[], part: number): Promise<Outcome[]> {
    const now = hubDate();
    const users = [...new Set(entries.map((entry) => ('claim' in entry ? entry.claim : entry.settlement).userId))];
    const settlements = entries.flatMap((entry) => ('settlement' in entry ? [entry.settlement] : []));
    const claims = entries.flatMap((entry) => ('claim' in entry ? [entry.claim] : []));
    // Pipelined; PostgreSQL runs them one after another.
    const [stored, ended, reserved] = await Promise.all([
      lockSubscriptions(transaction, users),
      end(transaction, settlements, part),
      reservedBy(transaction, claims),
    ]);
    const current = new Map(
      [...stored].map(([userId, subscription]) => [userId, subscriptionAt(subscription, now, period)]),
    );
    const settled = await count(transaction, settlements, ended, current);
    const claimed = admit(transaction, claims, reserved, current, now);
    return entries.map((entry) => ('claim' in entry ? claimed.get(entry.claim)! : settled.get(entry.settlement)!));
  }

  /** Replaces reservations by usage. */
  async function end(
    transaction: SqlTransaction,
    settlements: readonly Settlement[],
    part: number,
  ): Promise<readonly Ended[]> {
    if (settlements.length === 0) return [];
    return transaction.sql<Ended>(
      `with results as (
         select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::int[]) as r (id, status, used, duration)
       ), ended as (
         delete from reservations using results where reservations.id = results.id
         returning reservations.*, results.status, results.used, results.duration
       ), added as (
         insert into usage (id, user_id, tool_id, plan, began_at, tokens, status, duration_ms, request_id)
         select id, user_id, tool_id, plan, began_at, used, status, duration, request_id from ended
          where status is not null
       ), summed as (
         insert into usage_days as d (day, tool_id, plan, part, invocations, tokens, most_tokens)
         select (began_at at time zone 'UTC')::date, tool_id, plan, $5::smallint, count(*), sum(used), max(used)
           from ended where status is not null group by 1, 2, 3 order by 1, 2, 3
         on conflict (day, tool_id, plan, part) do update set
           invocations = d.invocations + excluded.invocations,
           tokens = d.tokens + excluded.tokens,
           most_tokens = greatest(d.most_tokens, excluded.most_tokens)
       )
       select id, user_id, began_at, used, status from ended`,
      [
        settlements.map(({ reservationId }) => reservationId),
        settlements.map(({ status }) => status ?? null),
        settlements.map(({ tokens }) => tokens),
        settlements.map(({ duration }) => duration),
        part,
      ],
    );
  }

  /** Adds what has ended to the counters of the subscriptions. */
  async function count(
    transaction: SqlTransaction,
    settlements: readonly Settlement[],
    ended: readonly Ended[],
    current: Map<string, Subscription>,
  ): Promise<Map<Settlement, 'settled' | 'gone'>> {
    const changed = new Map<string, Subscription>();
    for (const { user_id: userId, began_at: beganAt, used, status } of ended) {
      const subscription = current.get(userId);
      // What began in an earlier period counts in that one.
      if (subscription === undefined || status === null || used === 0n || beganAt < subscription.periodStart) continue;
      const counted = { ...subscription, tokensUsed: subscription.tokensUsed + Number(used) };
      current.set(userId, counted);
      changed.set(userId, counted);
    }
    if (changed.size > 0) {
      const rows = [...changed.values()];
      void transaction.sql(
        `update subscriptions s set tokens_used = c.used, period_start = c.start, period_end = c.end
           from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::timestamptz[]) as c (user_id, used, start, "end")
          where s.user_id = c.user_id`,
        [
          rows.map(({ userId }) => userId),
          rows.map(({ tokensUsed }) => tokensUsed),
          rows.map(({ periodStart }) => periodStart),
          rows.map(({ periodEnd }) => periodEnd),
        ],
      );
    }
    const done = new Set(ended.map(({ id }) => id));
    const missing = settlements.filter(({ reservationId }) => !done.has(reservationId));
    for (const id of await alreadyCounted(transaction, missing)) done.add(id);
    return new Map(settlements.map((each) => [each, done.has(each.reservationId) ? 'settled' : 'gone']));
  }

  /** Settlements that were committed by a transaction whose answer was lost. */
  async function alreadyCounted(transaction: SqlTransaction, missing: readonly Settlement[]): Promise<string[]> {
    if (missing.length === 0) return [];
    const rows = await transaction.sql<{ id: string }>(
      `select u.id from usage u
         join unnest($1::uuid[], $2::text[], $3::bigint[], $4::int[]) as m (id, status, used, duration)
           on m.id = u.id and m.status = u.status and m.used = u.tokens and m.duration = u.duration_ms`,
      [
        missing.map(({ reservationId }) => reservationId),
        missing.map(({ status }) => status ?? null),
        missing.map(({ tokens }) => tokens),
        missing.map(({ duration }) => duration),
      ],
    );
    return rows.map(({ id }) => id);
  }

  function admit(
    transaction: SqlTransaction,
    claims: readonly Claim[],
    reservations: readonly Reserved[],
    current: ReadonlyMap<string, Subscription>,
    now: Date,
  ): Map<Claim, Reservation | HubError | 'undecided'> {
    const outcomes = new Map<Claim, Reservation | HubError | 'undecided'>();
    const reserved = new Map<string, number>();
    for (const { user_id: userId, began_at: beganAt, tokens } of reservations) {
      const start = current.get(userId)?.periodStart;
      if (start === undefined || beganAt < start) continue;
      reserved.set(userId, (reserved.get(userId) ?? 0) + Number(tokens));
    }
    const admitted: (Claim & Reservation & { plan: PlanName; tokens: number })[] = [];
    for (const claim of claims) {
      const { userId } = claim;
      const subscription = current.get(userId);
      const limit = subscription === undefined ? 0 : plans[subscription.plan].tokenLimit;
      const before = reserved.get(userId) ?? 0;
      const decision = decide(subscription, { now, limit, reserved: before });
      if (decision instanceof HubError || subscription === undefined) {
        outcomes.set(claim, decision as HubError);
      } else if (claim.refusal !== undefined || decision === 'undecided') {
        outcomes.set(claim, claim.refusal ?? 'undecided');
      } else {
        const expiresAt = new Date(now.getTime() + (claim.lifetime ?? lifetime));
        const reservation = { id: orderedUuid(), expiresAt };
        const tokens = Math.max(1, Math.min(claim.expected ?? limit, limit - subscription.tokensUsed));
        reserved.set(userId, before + tokens);
        admitted.push({ ...claim, ...reservation, plan: subscription.plan, tokens });
        outcomes.set(claim, reservation);
      }
    }
    if (admitted.length > 0) {
      void transaction.sql(
        `insert into reservations (id, user_id, tool_id, plan, tokens, began_at, expires_at, request_id)
         select id, user_id, tool_id, plan, tokens, $8, expires_at, request_id
           from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[])
             as a (id, user_id, tool_id, plan, tokens, request_id, expires_at)`,
        [
          admitted.map(({ id }) => id),
          admitted.map(({ userId }) => userId),
          admitted.map(({ toolId }) => toolId),
          admitted.map(({ plan }) => plan),
          admitted.map(({ tokens }) => tokens),
          admitted.map(({ requestId }) => requestId),
          admitted.map(({ expiresAt }) => expiresAt),
          now,
        ],
      );
    }
    return outcomes;
  }

  /** The reservations of calls in flight of the users who want to begin one, including those from an earlier period. */
  async function reservedBy(transaction: SqlTransaction, claims: readonly Claim[]): Promise<readonly Reserved[]> {
    if (claims.length === 0) return [];
    return transaction.sql<Reserved>(
      'select user_id, began_at, sum(tokens)::bigint as tokens from reservations where user_id = any($1::uuid[]) group by 1, 2',
      [[...new Set(claims.map(({ userId }) => userId))]],
    );
  }

  return {
    /** Reserves tokens for a call, or says why it can't begin, or that calls of its user have to end before that is known. */
    async claim(claim: Claim): Promise<Reservation | HubError | 'undecided'> {
      return (await laneOf(claim.userId).do({ claim })) as Reservation | HubError | 'undecided';
    },

    /**
     * Puts what a call has used in the place of its reservation. May be repeated.
     *
     * @returns false if the reservation had expired: then the call counts as one that failed
     */
    async settle(settlement: Settlement): Promise<boolean> {
      const outcome = await laneOf(settlement.userId).do({ settlement });
      for (const wake of waiting.get(settlement.userId) ?? []) wake();
      return outcome === 'settled';
    },

    /** Waits until a call of a user has ended, as far as this process knows, or for `milliseconds`. */
    async nextEnd(userId: string, milliseconds: number): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      const own = waiting.get(userId) ?? new Set();
      waiting.set(userId, own.add(resolve));
      const timer = setTimeout(resolve, milliseconds);
      await promise;
      clearTimeout(timer);
      own.delete(resolve);
      if (own.size === 0) waiting.delete(userId);
    },

    /** Ends calls whose reservations have expired: with an error, and without tokens. @returns how many */
    async expire(): Promise<number> {
      const found = await db.sql<{ id: string; user_id: string; began_at: Date; expires_at: Date }>(
        'select id, user_id, began_at, expires_at from reservations where expires_at <= $1 order by expires_at limit $2',
        [hubDate(), maxExpiredAtOnce],
      );
      const settlements = found.map(({ id, user_id: userId, began_at: beganAt, expires_at: expiresAt }) => ({
        reservationId: id,
        userId,
        status: 'error' as const,
        tokens: 0,
        duration: expiresAt.getTime() - beganAt.getTime(),
      }));
      await Promise.all(settlements.map((settlement) => this.settle(settlement)));
      return found.length;
    },

    /** The maximum that a call of a tool has used since `since`; undefined if none has used any. */
    async maxTokens(toolId: string, since: Date): Promise<number | undefined> {
      const [row] = await db.sql<{ maximum: bigint | null }>(
        'select max(most_tokens) as maximum from usage_days where tool_id = $1 and day >= $2::timestamptz::date',
        [toolId, since],
      );
      return row?.maximum ? Number(row.maximum) : undefined;
    },
  };
}
