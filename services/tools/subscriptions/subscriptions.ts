import { v4 as uuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { addSubscriptionChange } from '../outbox.ts';
import { cancelled, subscribed, subscriptionAt, type PlanName, type SubscriptionState } from '../tools.ts';

export interface Subscription extends SubscriptionState {
  /** UUID; stays the same for a user. */
  id: string;
  userId: string;
  /** Increased with each change that is reported to the auth service. */
  version: number;
}

/** A subscription, and the entry of the outbox that tells of its change, if it was changed. */
export interface Changed {
  subscription: Subscription;
  entry: bigint | undefined;
}

export type Subscriptions = ReturnType<typeof openSubscriptions>;

interface Row {
  id: string;
  user_id: string;
  plan: PlanName;
  tokens_used: bigint;
  period_start: Date;
  period_end: Date;
  expires_at: Date | null;
  version: bigint;
}

const columns = 'id, user_id, plan, tokens_used, period_start, period_end, expires_at, version';

function storedSubscription(row: Row): Subscription {
  return {
    id: row.id,
    userId: row.user_id,
    plan: row.plan,
    tokensUsed: Number(row.tokens_used),
    periodStart: row.period_start,
    periodEnd: row.period_end,
    expiresAt: row.expires_at ?? undefined,
    version: Number(row.version),
  };
}

/** The subscriptions of users, as they are stored; nobody else changes them until the transaction ends. */
export async function lockSubscriptions(
  transaction: SqlTransaction,
  userIds: readonly string[],
): Promise<Map<string, Subscription>> {
  const rows = await transaction.sql<Row>(
    `select ${columns} from subscriptions where user_id = any($1::uuid[]) order by user_id for no key update`,
    [userIds],
  );
  return new Map(rows.map((row) => [row.user_id, storedSubscription(row)]));
}

/** The subscriptions of users. @param period milliseconds */
export function openSubscriptions(db: Database, period: number) {
  async function save(transaction: SqlTransaction, subscription: Subscription): Promise<Changed> {
    const { id, userId, plan, tokensUsed, periodStart, periodEnd, expiresAt } = subscription;
    const version = subscription.version + 1;
    await transaction.sql(
      `insert into subscriptions (${columns}) values ($1, $2, $3, $4, $5, $6, $7, $8)
       on conflict (user_id) do update set
         plan = excluded.plan, tokens_used = excluded.tokens_used, period_start = excluded.period_start,
         period_end = excluded.period_end, expires_at = excluded.expires_at, version = excluded.version`,
      [id, userId, plan, tokensUsed, periodStart, periodEnd, expiresAt ?? null, version],
    );
    const entry = await addSubscriptionChange(transaction, { userId, plan, expiresAt, version });
    return { subscription: { ...subscription, version }, entry };
  }

  return {
    /** A user's subscription, as it is now. */
    async find(userId: string): Promise<Subscription | undefined> {
      const [row] = await db.sql<Row>(`select ${columns} from subscriptions where user_id = $1`, [userId]);
      return row === undefined ? undefined : subscriptionAt(storedSubscription(row), hubDate(), period);
    },

    /** Subscribes a user to a plan, changes the plan, or takes a cancellation back. Of several at once one is the first. */
    async subscribe(userId: string, plan: PlanName): Promise<Changed> {
      return db.transaction(async (transaction) => {
        // Serialises concurrent first subscriptions, for which there is no row to lock yet.
        await transaction.sql('select pg_advisory_xact_lock(hashtextextended($1, 0))', [`subscribe ${userId}`]);
        const now = hubDate();
        const stored = (await lockSubscriptions(transaction, [userId])).get(userId);
        const wanted = subscribed(stored, plan, now, period);
        if (wanted === undefined) return { subscription: subscriptionAt(stored!, now, period), entry: undefined };
        return save(transaction, { id: stored?.id ?? uuid(), userId, version: stored?.version ?? 0, ...wanted });
      });
    },

    /** Cancels a user's subscription; undefined if there is none. */
    async cancel(userId: string): Promise<Changed | undefined> {
      return db.transaction(async (transaction) => {
        const now = hubDate();
        const stored = (await lockSubscriptions(transaction, [userId])).get(userId);
        if (stored === undefined) return undefined;
        const wanted = cancelled(stored, now, period);
        if (wanted === undefined) return { subscription: stored, entry: undefined };
        return save(transaction, { ...stored, ...wanted });
      });
    },

    /** How many users have a usable subscription to each plan. */
    async countByPlan(): Promise<Map<PlanName, number>> {
      const rows = await db.sql<{ plan: PlanName; users: bigint }>(
        'select plan, count(*) as users from subscriptions where expires_at is null or expires_at > $1 group by plan',
        [hubDate()],
      );
      return new Map(rows.map(({ plan, users }) => [plan, Number(users)]));
    },
  };
}
