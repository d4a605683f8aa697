import { types, type CustomTypesConfig, type Pool, type PoolClient } from 'pg';
import { MikroORM, type EntityManager } from '@mikro-orm/postgresql';
import type { EntitySchema, MigrationObject } from '@mikro-orm/core';
import { Breaker } from './breaker.ts';
import { integer, postgresUrl } from './config.ts';
import { within } from './deadline.ts';
import { HubError } from './errors.ts';

/** Settings of a process that has a database. */
export const databaseSettings = {
  DATABASE_URL: postgresUrl().describe(
    "PostgreSQL URL of this service's own role: postgres://role:password@host:5432/database",
  ),
  DATABASE_POOL: integer({ min: 1, max: 200 })
    .default(10)
    .describe('the most connections that one process has for its calls'),
};

/** What a service keeps, in a schema of its own that only its own role may use. */
export interface DatabaseDefinition {
  schema: string;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a schema is invariant in its entity
  entities: readonly EntitySchema<any>[];
  /** In the order in which they run. Loaded only to run them: it takes a while. */
  migrations: () => Promise<MigrationObject[]>;
}

/** One statement after another on one connection, all of them or none. */
export interface SqlTransaction {
  /**
   * Runs a statement with `$1` parameters and returns its rows: timestamptz as Date, bigint as bigint. Its text must be a
   * constant: it is prepared once on each connection.
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
  /** @throws HubError UNAVAILABLE if the database doesn't answer within 2 s */
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
    migrations: { schema: definition.schema, tableName: 'migrations', snapshot: false },
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
      connectionTimeoutMillis: limits.connect,
      statement_timeout: limits.statement,
      query_timeout: limits.statement + 1_000,
      idle_in_transaction_session_timeout: limits.idleInTransaction,
      options: `-c search_path=${definition.schema}`,
    }),
    pool: { min: 0, max: options.poolSize, idleTimeoutMillis: 60_000 },
  });

  const pool = () => orm.em.getConnection().getNativeClient();
  const prepared = new Map<string, string>();
  async function run(client: Pool | PoolClient, statement: string, values: readonly unknown[] = []) {
    let name = prepared.get(statement);
    if (name === undefined) prepared.set(statement, (name = `s${prepared.size}`));
    return (await client.query({ name, text: statement, values: [...values], types: columnTypes })).rows;
  }

  const breaker = new Breaker(awayReason);
  const spared = <T>(work: () => Promise<T>) => breaker.run(() => guarded(work));
  return {
    sql: (statement, values) => spared(async () => run(await pool(), statement, values)),
    entities: (work) => spared(() => work(orm.em.fork())),
    transaction: (work) =>
      spared(async () => {
        const client = await (await pool()).connect();
        let broken: Error | undefined;
        try {
          await client.query('begin');
          const later: (() => void)[] = [];
          const result = await work({
            sql: (statement, values) => run(client, statement, values),
            afterCommit: (work) => void later.push(work),
          });
          await client.query('commit');
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
    ping: () =>
      guarded(async () => {
        const client = await pool();
        await within(2_000, client.query('select 1'), () => unavailable(new Error('no answer within 2 s')));
      }),
    close: () => orm.close(true),
  };
}

/** Brings the schema up to date, as the role that owns it. Safe to run again and from two processes at once. */
export async function migrateDatabase(definition: DatabaseDefinition, options: { url: string }): Promise<void> {
  const [{ Migrator }, migrationsList] = await Promise.all([import('@mikro-orm/migrations'), definition.migrations()]);
  const shared = ormOptions(definition, options.url);
  const orm = new MikroORM({
    ...shared,
    pool: { min: 0, max: 2 },
    extensions: [Migrator],
    migrations: { ...shared.migrations, migrationsList },
  });
  try {
    await guarded(async () => {
      const client = await (await orm.em.getConnection().getNativeClient()).connect();
      try {
        await client.query('select pg_advisory_lock(hashtext($1))', [`migrate ${definition.schema}`]);
        await orm.migrator.up();
      } finally {
        client.release(true);
      }
    });
  } finally {
    await orm.close(true);
  }
}

/** The SQL that would turn the schema as it is into the one that the entities describe; empty if they agree. */
export async function schemaDrift(definition: DatabaseDefinition, options: { url: string }): Promise<string> {
  const orm = new MikroORM(ormOptions(definition, options.url));
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

function isAway(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof HubError) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string') return transientStates.test(code) || transientErrnos.has(code);
  return transientMessages.test(error.message);
}

function unavailable(cause: unknown): HubError {
  return new HubError('UNAVAILABLE', awayReason, 'The database is not available at the moment', {
    retryAfter: 1,
    cause,
  });
}
