import type { Database, SqlTransaction } from '#lib/database.ts';

/** Whose standing has changed. */
export type Subject = { userId: string } | { apiKeyId: string };

/** A change of a user or an API key, by its place among all changes. */
export interface Change {
  number: bigint;
  /** UUID of an API key that is not valid any more. */
  apiKeyId: string | undefined;
  /** A user as it is now; undefined for a key, and for a user that is gone. */
  user: { userId: string; admin: boolean; disabled: boolean } | undefined;
}

export const maxChangesInPage = 1_000;

/**
 * Records that a role, a status or an API key's validity changes, in the transaction that changes it: all services learn of it soon after
 * the commit. To be called last in a transaction, since it waits for other transactions that have called it and not ended yet.
 *
 * The numbers grow in the order of the commits, so that a reader who has seen one has seen all before it: they are drawn under a lock that ends
 * with the transaction. Such changes are rare.
 */
export async function recordStandingChange(transaction: SqlTransaction, subject: Subject): Promise<void> {
  // Outside of a transaction the lock would end before the change is there for others.
  if (transaction.afterCommit === undefined)
    throw new Error('A change of a standing is recorded in the transaction that makes it');
  const isApiKey = 'apiKeyId' in subject;
  await transaction.sql(`select pg_advisory_xact_lock(hashtext('standings'))`);
  await transaction.sql(
    `insert into standings (subject_id, is_api_key, number, noted_at)
     values ($1, $2, nextval('standing_numbers'), clock_timestamp())
     on conflict (subject_id) do update set number = excluded.number, noted_at = excluded.noted_at`,
    [isApiKey ? subject.apiKeyId : subject.userId, isApiKey],
  );
  transaction.afterCommit(() => {
    for (const listener of listeners) listener();
  });
}

/** Listeners of this process. They only learn that something has changed. */
const listeners = new Set<() => void>();

/** Calls `listener` after each change by this process, until the returned function is called. */
export function onStandingChange(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** How long a change of an API key is kept: much longer than any service remembers a key. */
const apiKeysKept = 300_000;
/** What clocks and the time between a look at a user and the token for it may add to a token's life. */
const margin = 300_000;

export type Standings = ReturnType<typeof openStandings>;

/** The queries of what has changed of users and API keys. */
export function openStandings(db: Database) {
  return {
    /** The changes after a number, oldest first, at most `maxChangesInPage`. */
    async changesAfter(number: bigint): Promise<Change[]> {
      const rows = await db.sql<{
        number: bigint;
        subjectId: string;
        isApiKey: boolean;
        admin: boolean | null;
        disabled: boolean | null;
      }>(
        `select number, subject_id as "subjectId", is_api_key as "isApiKey",
                role = 'admin' as admin, status = 'disabled' as disabled
           from standings left join users on not is_api_key and users.id = subject_id
          where number > $1 order by number limit $2`,
        [number, maxChangesInPage],
      );
      return rows.map(({ number, subjectId, isApiKey, admin, disabled }) => ({
        number,
        apiKeyId: isApiKey ? subjectId : undefined,
        user: admin === null || disabled === null ? undefined : { userId: subjectId, admin, disabled },
      }));
    },

    /** Takes down that tokens are issued at present that live for so many milliseconds. To be said every minute. */
    async noteLifetimes(lifetimes: readonly number[], now: Date): Promise<void> {
      await db.sql(
        `insert into token_lifetimes (lifetime, issued_until) select distinct lifetime, $2::timestamptz from unnest($1::bigint[]) as lifetime
         on conflict (lifetime) do update set issued_until = greatest(token_lifetimes.issued_until, excluded.issued_until)`,
        [lifetimes, now],
      );
    },

    /** Deletes at most `limit` changes that no token which is still valid, and no remembered key, can be older than. @returns how many */
    async sweep(now: Date, limit: number): Promise<number> {
      await db.sql(
        `delete from token_lifetimes where issued_until + (lifetime + $2) * interval '1 millisecond' < $1::timestamptz`,
        [now, margin],
      );
      const rows = await db.sql(
        `delete from standings where subject_id in (
           select subject_id from standings
            where case when is_api_key then noted_at + $4 * interval '1 millisecond' < $1::timestamptz
                  else not exists (
                    select from token_lifetimes
                     where least(noted_at, issued_until) + (lifetime + $3) * interval '1 millisecond' >= $1::timestamptz)
                  end
            order by number limit $2 for update skip locked
         ) returning 1`,
        [now, limit, margin, apiKeysKept],
      );
      return rows.length;
    },
  };
}
