import { setTimeout as sleep } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import { connectionTo, ormOptions, type DatabaseDefinition } from './database-definition.ts';
import { guarded } from './database-errors.ts';
import { retryUntilDone } from './retry.ts';

/** A migration that waits for a lock blocks all queries behind it in the queue, so it gives up soon, pauses, and tries again. */
const locking = { limitMs: 2_000, backoff: { firstMs: 1_000, maxMs: 1_000, jitter: 0 }, tries: 60 };
/** SQLSTATEs lock_not_available and deadlock_detected. */
const lockFailures: ReadonlySet<unknown> = new Set(['55P03', '40P01']);
/** The pause between two attempts to take the advisory lock that another migrating process holds. */
const turnPauseMs = 200;

/**
 * Brings the schema up to date, as the role that owns it, each migration in a transaction of its own. Safe to repeat, to run from two
 * processes at once, and to run while processes of the previous version work.
 */
export async function migrateDatabase(definition: DatabaseDefinition, options: { url: string }): Promise<void> {
  const [{ Migrator }, migrationsList] = await Promise.all([
    import('@mikro-orm/migrations'),
    Promise.all(definition.migrations.map(async ({ name, load }) => ({ name, class: await load() }))),
  ]);
  const shared = await ormOptions(definition);
  const orm = new MikroORM({
    ...shared,
    ...connectionTo(options.url, {
      application_name: `migrate ${definition.schema}`,
      options: `-c search_path=${definition.schema} -c lock_timeout=${locking.limitMs}`,
    }),
    pool: { min: 0, max: 2 },
    extensions: [Migrator],
    migrations: { ...shared.migrations, migrationsList, allOrNothing: false },
  });
  try {
    await guarded(async () => {
      const client = await (await orm.em.getConnection().getNativeClient()).connect();
      try {
        // Polled: a statement that waits for the lock would hold a snapshot, and `create index concurrently` waits for all snapshots.
        const turn = 'select pg_try_advisory_lock(hashtext($1)) as is_ours';
        while (!(await client.query(turn, [`migrate ${definition.schema}`])).rows[0].is_ours) await sleep(turnPauseMs);
        await retryLocks(async () => void (await orm.migrator.up()));
        const needing = definition.migrations.filter(({ needs }) => needs !== undefined);
        if (needing.length > 0) await client.query('alter table migrations add column if not exists needs text');
        for (const { name, needs } of needing) {
          await client.query('update migrations set needs = $2 where name = $1', [name, needs]);
        }
      } finally {
        client.release(true);
      }
    });
  } finally {
    await orm.close(true);
  }
}

/** Retries `work` while it can't get its locks. */
async function retryLocks(work: () => Promise<void>): Promise<void> {
  await retryUntilDone(work, {
    backoff: locking.backoff,
    onFailure(error, failures) {
      if (!lockFailures.has((error as { code?: unknown }).code) || failures === locking.tries) throw error;
    },
  });
}

/** The SQL that would turn the actual schema into the one that the entities describe; empty if they agree. Triggers are not compared. */
export async function schemaDrift(definition: DatabaseDefinition, options: { url: string }): Promise<string> {
  const orm = new MikroORM({
    ...(await ormOptions(definition)),
    ...connectionTo(options.url),
    schemaGenerator: { ignoreTriggers: true },
  });
  try {
    return await orm.schema.getUpdateSchemaSQL({ wrap: false, safe: false });
  } finally {
    await orm.close(true);
  }
}

/** Creates a role that may log in and a schema that it owns and no other role may use. Safe to repeat: then it sets the password again. */
export async function provisionDatabase(
  adminUrl: string,
  { schema, role, password }: { schema: string; role: string; password: string },
): Promise<void> {
  const orm = new MikroORM({ ...connectionTo(adminUrl), entities: [], discovery: { warnWhenNoEntities: false } });
  const connection = orm.em.getConnection();
  const identifier = (name: string) => orm.em.getPlatform().quoteIdentifier(name);
  const literal = (value: string) => orm.em.getPlatform().quoteValue(value);
  try {
    await guarded(() =>
      orm.em.transactional(async (em) => {
        const run = (statement: string) => connection.execute(statement, [], 'run', em.getTransactionContext());
        // Two processes that provision at once would collide in the system catalogues.
        await run(`select pg_advisory_xact_lock(hashtext('provision'))`);
        const known = await connection.execute(
          'select 1 from pg_roles where rolname = ?',
          [role],
          'all',
          em.getTransactionContext(),
        );
        if (known.length === 0) await run(`create role ${identifier(role)}`);
        await run(`alter role ${identifier(role)} login password ${literal(password)}`);
        // Unless it is a superuser, a role may only give a schema to a role that it is a member of.
        await run(`grant ${identifier(role)} to current_user`);
        await run(`create schema if not exists ${identifier(schema)} authorization ${identifier(role)}`);
        await run(`revoke all on schema ${identifier(schema)} from public`);
      }),
    );
  } finally {
    await orm.close(true);
  }
}
