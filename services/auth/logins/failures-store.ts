import { v4 as uuid } from 'uuid';
import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { FailureLimit, FilledLimits, LoginPair } from '../auth.ts';

/** The queries about logins that failed. */
export function failureQueries(db: Database) {
  return {
    /** Which limits are full, counting no failures up to `since`. */
    async filledLimits(pair: LoginPair, limit: FailureLimit, since: Date): Promise<FilledLimits> {
      const [found] = await db.sql<{ ofPair: Date | null; ofAddress: Date | null }>(
        `select
           (select failed_at from login_failures
             where username = $1 and address = $2 and failed_at > $3
             order by failed_at desc offset $4::int - 1 limit 1) as "ofPair",
           (select failed_at from login_failures
             where address = $2 and failed_at > $3 and $5::int is not null
             order by failed_at desc offset coalesce($5::int, 1) - 1 limit 1) as "ofAddress"`,
        [pair.username, pair.address, since, limit.failures, limit.perAddress ?? null],
      );
      return { ofPair: found?.ofPair ?? undefined, ofAddress: found?.ofAddress ?? undefined };
    },

    async recordFailure(pair: LoginPair, failedAt: Date): Promise<void> {
      await db.sql('insert into login_failures (id, username, address, failed_at) values ($1, $2, $3, $4)', [
        uuid(),
        pair.username,
        pair.address,
        failedAt,
      ]);
    },

    /** Deletes at most `limit` failures from before `until`. @returns how many */
    sweepFailures(until: Date, limit: number): Promise<number> {
      return deleteOld(db, { table: 'login_failures', isOld: 'failed_at <= $1', oldestBy: 'failed_at' }, until, limit);
    },
  };
}
