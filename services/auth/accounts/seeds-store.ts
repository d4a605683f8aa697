import type { Database } from '#lib/database.ts';
import { recordStandingChange } from '../standings/standings.ts';

/** The queries about users that are there from the start. */
export function seedQueries(db: Database) {
  return {
    /** How many of the users `user1` to `user<count>` are missing, or have no email yet. */
    async countMissingSeeds(count: number): Promise<number> {
      const [row] = await db.sql<{ missing: bigint }>(
        `select count(*) as missing from generate_series(1, $1::int) as n
          where not exists (select from users where username = 'user' || n and email is not null)`,
        [count],
      );
      return Number(row?.missing);
    },

    /**
     * Makes those of the users `user1` to `user<count>` that are missing, and gives names and emails to those that were made without.
     * Their ids are known beforehand, like their password: 00000000-0000-4000-8000-000000000001 is user1.
     */
    async seedUsers(count: number, passwordHash: string, createdAt: Date): Promise<void> {
      await db.transaction(async ({ sql }) => {
        // One process after another: their rows have ids, names and emails in common.
        await sql(`select pg_advisory_xact_lock(hashtext('auth: users from the start'))`);
        await sql(
          `insert into users as there (id, username, name, email, email_key, password_hash, created_at)
           select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n, 'User ' || n,
                  'user' || n || '@example.com', 'user' || n || '@example.com', $2, $3
             from generate_series(1, $1::int) as n
            where not exists (select from users where email_key = 'user' || n || '@example.com')
            order by n
           on conflict (username) do update
             set name = coalesce(there.name, excluded.name), email = excluded.email, email_key = excluded.email_key
           where there.email is null`,
          [count, passwordHash, createdAt],
        );
      });
    },

    /**
     * Makes users with these usernames or emails, in lower case, administrators. Nobody is demoted.
     *
     * @returns the names and emails that nobody has
     */
    async appointAdmins(named: readonly string[]): Promise<string[]> {
      return db.transaction(async (transaction) => {
        const appointed = await transaction.sql<{ id: string }>(
          `update users set role = 'admin', is_admin = true
            where role <> 'admin' and (username = any($1::text[]) or email_key = any($1::text[]))
           returning id`,
          [named],
        );
        const rows = await transaction.sql<{ name: string }>(
          `select name from unnest($1::text[]) as named (name)
            where not exists (select from users where username = named.name or email_key = named.name)`,
          [named],
        );
        for (const { id } of appointed) await recordStandingChange(transaction, { userId: id });
        return rows.map(({ name }) => name);
      });
    },
  };
}
