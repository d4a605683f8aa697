import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { types, type CustomTypesConfig, type Pool, type PoolClient } from 'pg';
import { MikroORM, type EntityManager } from '@mikro-orm/postgresql';
import type { Constructor, EntitySchema } from '@mikro-orm/core';
import type { Migration } from '@mikro-orm/migrations';
import { Breaker } from './breaker.ts';
import { ConfigError, integer, postgresUrl } from './config.ts';
import { mayConnect } from './connections.ts';
import { within } from './deadline.ts';
import { engineSettings } from './engines.ts';
import { HubError, TimedOut } from './errors.ts';
import { counter } from './metrics.ts';

/** Settings of a process that has a database. */
export const databaseSettings = {
  DATABASE_URL: postgresUrl().describe(
    "PostgreSQL URL of this service's own role: postgres://role:password@host:5432/database",
  ),
  DATABASE_POOL: integer({ min: 1, max: 200 })
    .default(10)
    .describe('the most connections that one process has for its calls'),
  ...engineSettings,
};

/** What a service keeps, in a schema of its own that only its own role may use. */
export interface DatabaseDefinition {
  schema: string;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a schema is invariant in its entity
  entities: readonly EntitySchema<any>[];
  /** In the order in which they run. */
  migrations: readonly SchemaMigration[];
}

/**
 * One step of a schema. The processes of the version before go on with what it makes (expand), so it takes nothing away that they use:
 * no column, no default, no constraint that an `on conflict` names. What nothing uses any more goes a version later (contract).
 *
 * One that isn't transactional (`isTransactional`), for `create index concurrently`, is begun anew after a failure: each of its
 * statements may be repeated.
 */
export interface SchemaMigration {
  /** Stands in the table `migrations` of the schema once it has run. */
  name: string;
  /** Imports the migration, and with it the migrator: only a process that migrates pays for that. */
  load: () => Promise<Constructor<Migration>>;
  /** Of one that takes something away: the name of the migration that code must know at least to run on the schema from now on. */
  needs?: string;
}

/** A schema is not one that this code can work on. The message is a line for an operator, and says what to do. */
export class SchemaMismatch extends ConfigError {
  constructor(message: string) {
    super([]);
    this.name = 'SchemaMismatch';
    this.message = message;
  }
}

/** One statement after another on one connection, all of them or none. */
export interface SqlTransaction {
  /**
   * Runs a statement with `$1` parameters and returns its rows: timestamptz as Date, bigint as bigint. Its text must be a
   * constant: it is prepared once on each connection.
   *
   * Statements of a transaction run in the order in which they are asked for, and are sent without waiting for those before them. The
   * transaction fails with the first that fails, also where nobody waits for that one, so that its last writes can travel with the
   * commit.
   */
  sql<Row = Record<string, unknown>>(statement: string, values?: readonly unknown[]): Promise<Row[]>;
  /** Lets something be done once the transaction is committed. Only there within one; it must not throw. */
  afterCommit?(work: () => void): void;
}

/**
 * An open database. Whatever fails because PostgreSQL is away, restarting or too busy is a
 * HubError UNAVAILABLE `DATABASE_UNAVAILABLE`, at once when it has been so for a while; connections come back by themselves.
 */
export interface Database extends SqlTransaction {
  /** Works on entities, in an entity manager of its own. */
  entities<T>(work: (em: EntityManager) => Promise<T>): Promise<T>;
  /** Runs `work` in one transaction; rolls back if it throws. */
  transaction<T>(work: (transaction: SqlTransaction) => Promise<T>): Promise<T>;
  /**
   * Makes sure that the schema is one that this code can work on: all migrations have run that the code knows, and none that needs code
   * which knows more. If the database can't be asked now, `ping` asks it.
   *
   * @throws SchemaMismatch
   */
  requireSchema(): Promise<void>;
  /**
   * @throws HubError UNAVAILABLE if the database doesn't answer within 2 s
   * @throws SchemaMismatch if `requireSchema` would
   */
  ping(): Promise<void>;
  close(): Promise<void>;
}

const columnTypes: CustomTypesConfig = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    if (oid === types.builtins.TIMESTAMPTZ) return (value: string) => new Date(value);
    if (oid === types.builtins.INT8) return (value: string) => BigInt(value);
    return types.getTypeParser(oid, format as 'text');
  },
};

const statementsSent = counter(
  'database_statements_total',
  'SQL statements sent, with those that begin and end transactions, without those on entities',
);

/** A hung connection fails after this, and a frozen process loses its transaction, so that its locks don't stay for ever. */
const limits = { connect: 3_000, statement: 8_000, idleInTransaction: 10_000 };

/** MikroORM takes the host, the name and the role out of a URL; the rest of it, `sslmode` above all, is for pg itself. */
function connectionTo(url: string, options: object = {}) {
  return { clientUrl: url, driverOptions: { ...options, connectionString: url } };
}

function ormOptions(definition: DatabaseDefinition, url: string, options: object = {}) {
  return {
    ...connectionTo(url, options),
    schema: definition.schema,
    entities: [...definition.entities],
    discovery: { warnWhenNoEntities: false },
    migrations: { tableName: 'migrations', snapshot: false },
    logger: () => {},
  };
}

/** Opens a service's database. Doesn't connect yet: the first statement does. */
export function openDatabase(
  definition: DatabaseDefinition,
  options: { url: string; poolSize: number; name: string },
): Database {
  const orm = new MikroORM({
    ...ormOptions(definition, options.url, {
      application_name: options.name,
      pipeline: true,
      connectionTimeoutMillis: limits.connect,
      statement_timeout: limits.statement,
      query_timeout: limits.statement + 1_000,
      idle_in_transaction_session_timeout: limits.idleInTransaction,
      options: `-c search_path=${definition.schema}`,
    }),
    pool: { min: 0, max: options.poolSize, idleTimeoutMillis: 60_000 },
  });

  const forget = mayConnect(options.poolSize);
  const pool = () => orm.em.getConnection().getNativeClient();
  const prepared = new Map<string, string>();
  async function run(client: Pool | PoolClient, statement: string, values: readonly unknown[] = []) {
    let name = prepared.get(statement);
    if (name === undefined) prepared.set(statement, (name = `s${prepared.size}`));
    statementsSent.inc();
    return (await client.query({ name, text: statement, values: [...values], types: columnTypes })).rows;
  }

  const breaker = new Breaker(awayReason);
  const spared = <T>(work: () => Promise<T>) => breaker.run(() => guarded(work));
  let isToBeChecked = false;
  async function checkSchema(): Promise<void> {
    const rows = await guarded(async () => run(await pool(), appliedMigrations).catch(noneIfMissing));
    requireFitting(definition, rows as AppliedMigration[]);
    isToBeChecked = false;
  }
  return {
    sql: (statement, values) => spared(async () => run(await pool(), statement, values)),
    entities: (work) => spared(() => work(orm.em.fork())),
    transaction: (work) =>
      spared(async () => {
        const client = await (await pool()).connect();
        let broken: Error | undefined;
        const sent: Promise<unknown>[] = [];
        const send = <T>(ask: () => Promise<T>): Promise<T> => {
          writeTogether(client);
          const answer = ask();
          // It counts below, whether or not somebody else waits for it.
          answer.catch(() => {});
          sent.push(answer);
          return answer;
        };
        try {
          statementsSent.inc(2);
          void send(() => client.query('begin'));
          const later: (() => void)[] = [];
          const result = await work({
            sql: (statement, values) => send(() => run(client, statement, values)),
            afterCommit: (work) => void later.push(work),
          });
          // After a statement that failed a commit rolls back.
          void send(() => client.query('commit'));
          await Promise.all(sent);
          for (const each of later) each();
          return result;
        } catch (error) {
          await client.query('rollback').catch((failure: Error) => {
            broken = failure;
          });
          throw error;
        } finally {
          // A connection that can't even roll back is not given to the next one.
          client.release(broken);
        }
      }),
    async requireSchema() {
      isToBeChecked = true;
      await checkSchema().catch((error: unknown) => {
        if (!(error instanceof HubError)) throw error;
      });
    },
    ping: () =>
      guarded(async () => {
        const asked = isToBeChecked ? checkSchema() : (await pool()).query('select 1');
        await within<unknown>(2_000, asked, () => unavailable(new Error('no answer within 2 s')));
      }),
    async close() {
      await orm.close(true);
      forget();
    },
  };
}

/**
 * Has the statements of a transaction that are sent without waiting for each other leave in one write: each write is a system call, and
 * wakes PostgreSQL. pg writes each statement by itself.
 */
function writeTogether(client: PoolClient): void {
  const { stream } = (client as unknown as { connection: { stream: Writable } }).connection;
  if (stream.writableCorked > 0) return;
  stream.cork();
  process.nextTick(() => stream.uncork());
}

/** Rows as arrays by column, the way that unnest takes them. */
export function columns<Row>(rows: readonly Row[], names: readonly (keyof Row)[]): unknown[][] {
  return names.map((name) => rows.map((row) => row[name]));
}

/** A row of the table `migrations`. */
interface AppliedMigration {
  name: string;
  needs: string | null;
}

/** The column `needs` is there once a migration has needs. */
const appliedMigrations = `select name, to_jsonb(m) ->> 'needs' as needs from migrations m order by id`;

/** SQLSTATE 42P01: there is no such table. */
const undefinedTable = '42P01';

function noneIfMissing(error: Error & { code?: string }): AppliedMigration[] {
  if (error.code === undefinedTable) return [];
  throw error;
}

/** @throws SchemaMismatch unless the code of `definition` can work on a schema on which these migrations have run */
function requireFitting({ schema, migrations }: DatabaseDefinition, applied: readonly AppliedMigration[]): void {
  const known = new Set(migrations.map(({ name }) => name));
  const newer = applied.find(({ name, needs }) => !known.has(name) && needs !== null && !known.has(needs));
  if (newer !== undefined) {
    throw new SchemaMismatch(
      `The schema "${schema}" of DATABASE_URL is newer than this code: ${newer.name} needs code that knows ${newer.needs}. Start a newer version`,
    );
  }
  const done = new Set(applied.map(({ name }) => name));
  const missing = migrations.find(({ name }) => !done.has(name));
  if (missing === undefined) return;
  const found = applied.length === 0 ? 'has no tables' : 'is older than this code';
  throw new SchemaMismatch(
    `The schema "${schema}" of DATABASE_URL ${found}: ${missing.name} has not run. Run npm run migrate`,
  );
}

/**
 * How long a migration waits for a lock, in milliseconds: what comes behind it waits as long. Then it lets the others through for a
 * while, and tries again, so often.
 */
const locking = { limit: 2_000, pause: 1_000, tries: 60 };
/** SQLSTATE of what a statement that waits for a lock can end with: lock_not_available, deadlock_detected. */
const lockFailures: ReadonlySet<unknown> = new Set(['55P03', '40P01']);
/** Milliseconds between two tries to take the advisory lock that another migrating process holds. */
const turnEvery = 200;

/**
 * Brings the schema up to date, as the role that owns it, each migration in a transaction of its own. Safe to run again, from two
 * processes at once, and while the version before is at work.
 */
export async function migrateDatabase(definition: DatabaseDefinition, options: { url: string }): Promise<void> {
  const [{ Migrator }, migrationsList] = await Promise.all([
    import('@mikro-orm/migrations'),
    Promise.all(definition.migrations.map(async ({ name, load }) => ({ name, class: await load() }))),
  ]);
  const shared = ormOptions(definition, options.url, {
    application_name: `migrate ${definition.schema}`,
    options: `-c search_path=${definition.schema} -c lock_timeout=${locking.limit}`,
  });
  const orm = new MikroORM({
    ...shared,
    pool: { min: 0, max: 2 },
    extensions: [Migrator],
    migrations: { ...shared.migrations, migrationsList, allOrNothing: false },
  });
  try {
    await guarded(async () => {
      const client = await (await orm.em.getConnection().getNativeClient()).connect();
      try {
        // Asked for again and again: whoever waits in a statement has a snapshot, which `create index concurrently` would wait for.
        const turn = 'select pg_try_advisory_lock(hashtext($1)) as is_ours';
        while (!(await client.query(turn, [`migrate ${definition.schema}`])).rows[0].is_ours) await sleep(turnEvery);
        await patiently(() => orm.migrator.up());
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

/** Does again what can't have its locks while others are at work. */
async function patiently(work: () => Promise<unknown>): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await work();
      return;
    } catch (error) {
      if (!lockFailures.has((error as { code?: unknown }).code) || tries === locking.tries) throw error;
      await sleep(locking.pause);
    }
  }
}

/** The SQL that would turn the schema as it is into the one that the entities describe; empty if they agree. Of triggers they say nothing. */
export async function schemaDrift(definition: DatabaseDefinition, options: { url: string }): Promise<string> {
  const orm = new MikroORM({
    ...ormOptions(definition, options.url),
    schemaGenerator: { ignoreTriggers: true },
  });
  try {
    return await orm.schema.getUpdateSchemaSQL({ wrap: false, safe: false });
  } finally {
    await orm.close(true);
  }
}

/**
 * Makes a role that may log in and the schema that it owns, and keeps everybody else out of it. Safe to repeat: then it
 * sets the password again.
 */
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
        // Two that provision at once would collide on the catalogues.
        await run(`select pg_advisory_xact_lock(hashtext('provision'))`);
        const known = await connection.execute(
          'select 1 from pg_roles where rolname = ?',
          [role],
          'all',
          em.getTransactionContext(),
        );
        if (known.length === 0) await run(`create role ${identifier(role)}`);
        await run(`alter role ${identifier(role)} login password ${literal(password)}`);
        // An owner that is no superuser may only give a schema to a role that it is a member of.
        await run(`grant ${identifier(role)} to current_user`);
        await run(`create schema if not exists ${identifier(schema)} authorization ${identifier(role)}`);
        await run(`revoke all on schema ${identifier(schema)} from public`);
      }),
    );
  } finally {
    await orm.close(true);
  }
}

/** SQLSTATE classes and codes after which the same statement may work a little later (PostgreSQL, appendix A). */
const transientStates = /^(08...|53...|57P..|57014|55P03|40001|40P01|25P03)$/;
const transientErrnos = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
]);
const transientMessages =
  /Connection terminated|connection timeout|timeout expired|timeout exceeded|Query read timeout|not queryable/i;

const awayReason = 'DATABASE_UNAVAILABLE';

async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw isAway(error) ? unavailable(error) : error;
  }
}

/** Whether a failure of pg says that PostgreSQL is away, restarting or too busy. */
export function isAway(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof HubError) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string') return transientStates.test(code) || transientErrnos.has(code);
  return transientMessages.test(error.message);
}

/** SQLSTATE 57014: a statement was ended at its time limit (`statement_timeout`), and its transaction rolls back. */
const endedAtLimit = '57014';

function unavailable(cause: unknown): HubError {
  const Kind = (cause as { code?: unknown }).code === endedAtLimit ? TimedOut : HubError;
  return new Kind('UNAVAILABLE', awayReason, 'The database is not available at the moment', { retryAfter: 1, cause });
}
