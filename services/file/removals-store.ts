import type { Database, SqlTransaction } from '#lib/database.ts';

/** A removal that a process has claimed. */
export interface Removal {
  storageKey: string;
  /** How many attempts have failed. */
  attempts: number;
}

/** A process's lease to complete an upload, or to remove something: no other does it meanwhile. */
export interface Lease {
  by: string;
  ms: number;
}

/** What is to be removed from the store of contents, and which process does it. */
export function openRemovals(db: Database) {
  return {
    /**
     * Claims removals that are due and that no other process has claimed, the oldest first. Times are stored in milliseconds, rounded: what is
     * due now may be found a moment later.
     */
    async holdRemovals({ by, ms }: Lease, limit: number): Promise<Removal[]> {
      return db.sql<Removal>(
        `with due as (
            select storage_key from removals where greatest(due_at, held_until) <= now() + interval '1 millisecond'
              order by greatest(due_at, held_until) limit $3
              for update skip locked)
          update removals r set held_by = $1, held_until = now() + $2 * interval '1 millisecond'
            from due where r.storage_key = due.storage_key
          returning r.storage_key as "storageKey", r.attempts`,
        [by, ms, limit],
      );
    },

    /**
     * Ends a removal: nothing is left under this key. Without effect if `by` has lost its claim: then another process looks once more.
     *
     * @param pauseMs until the store is looked at again, if it is to be looked at twice
     */
    async removed(storageKey: string, by: string, pauseMs: number): Promise<void> {
      await db.sql(
        `with once as (delete from removals where storage_key = $1 and held_by = $2 and not again)
          update removals
            set again = false, due_at = now() + $3 * interval '1 millisecond', held_by = null, held_until = null, attempts = 0
            where storage_key = $1 and held_by = $2 and again`,
        [storageKey, by, pauseMs],
      );
    },

    /**
     * Releases a removal that failed, if `by` still has the claim.
     *
     * @param pauseMs during which no process tries again
     * @param failures how many more attempts count as failed
     */
    async releaseRemoval(storageKey: string, by: string, pauseMs: number, failures: 0 | 1): Promise<void> {
      await db.sql(
        `update removals
          set held_by = null, held_until = now() + $3 * interval '1 millisecond', attempts = attempts + $4
          where storage_key = $1 and held_by = $2`,
        [storageKey, by, pauseMs, failures],
      );
    },
  };
}

/** Records, in the transaction that makes them useless, that contents are to be removed. */
export async function remove(
  { sql }: SqlTransaction,
  storageKeys: readonly string[],
  look: 'once' | 'twice' = 'once',
): Promise<void> {
  // A process that is removing it may have looked before something was stored, so its claim ends and the key is removed once more.
  await sql(
    `insert into removals as r (storage_key, due_at, again) select unnest($1::text[]), now(), $2
      on conflict (storage_key) do update set again = r.again or excluded.again, held_by = null,
        held_until = case when r.held_by is null then r.held_until end`,
    [storageKeys, look === 'twice'],
  );
}
