import type { Writable } from 'node:stream';
import { Pool, types, type CustomTypesConfig, type PoolClient, type QueryConfig } from 'pg';
import type { EntityManager, MikroORM } from '@mikro-orm/postgresql';
import { Breaker } from './breaker.ts';
import { integer, postgresUrl } from './config.ts';
import { mayConnect } from './connections.ts';
import { openEntities, type DatabaseDefinition } from './database-definition.ts';
import { awayReason, guarded, unavailable } from './database-errors.ts';
import { appliedMigrations, noneIfMissing, requireFitting, type AppliedMigration } from './database-version.ts';
import { within } from './deadline.ts';
import { engineSettings } from './engines.ts';
import { HubError } from './errors.ts';
import { counter, durationHistogram } from './metrics.ts';
import { withArrays } from './sql-arrays.ts';
import { inSpan } from './tracing.ts';

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

/** A transaction. */
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
  /** Calls `work` once the transaction is committed. Missing outside of transactions. `work` must not throw. */
  afterCommit?(work: () => void): void;
}

/**
 * An open database. While PostgreSQL is unavailable, restarting or too busy, everything fails with HubError UNAVAILABLE
 * `DATABASE_UNAVAILABLE`: after some time at once (circuit breaker). Lost connections are reopened.
 */
export interface Database extends SqlTransaction {
  /** Runs `work` with an entity manager of its own. The first call loads MikroORM, so it is for what is asked for rarely. */
  entities<T>(work: (em: EntityManager) => Promise<T>): Promise<T>;
  /** Runs `work` in one transaction; rolls back if it throws. */
  transaction<T>(work: (transaction: SqlTransaction) => Promise<T>): Promise<T>;
  /**
   * Checks that this code can work on the schema: all migrations that it knows have run, and none that needs newer code. If the database
   * doesn't answer now, `ping` checks it later.
   *
   * @throws SchemaMismatch
   */
  requireSchema(): Promise<void>;
  /**
   * Asks nothing if the database has answered within the last second.
   *
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

const poolWait = durationHistogram(
  'database_pool_wait_seconds',
  'How long a statement or transaction waits for a connection of its pool, a new one included, without those on entities',
  ['schema'],
);
const statementDuration = durationHistogram(
  'database_statement_duration_seconds',
  'From the sending of an SQL statement to its answer, those of transactions and the waits for locks included',
  ['schema'],
);

/**
 * In milliseconds. A hung connection fails after its timeout, and the transaction of a frozen process is aborted, which releases its locks.
 */
const limits = { connect: 3_000, statement: 8_000, idleInTransaction: 10_000 };
/** How long an answer shows that the database is there. */
const knownForMs = 1_000;

/** Opens a service's database. The first statement connects. */
export function openDatabase(
  definition: DatabaseDefinition,
  options: { url: string; poolSize: number; name: string },
): Database {
  const pool = new Pool({
    connectionString: options.url,
    application_name: options.name,
    pipeline: true,
    connectionTimeoutMillis: limits.connect,
    statement_timeout: limits.statement,
    query_timeout: limits.statement + 1_000,
    idle_in_transaction_session_timeout: limits.idleInTransaction,
    options: `-c search_path=${definition.schema}`,
    max: options.poolSize,
    idleTimeoutMillis: 60_000,
  });
  // A connection that is lost fails the statements on it, and is not used again. Without a listener the error would end the process.
  pool.on('error', () => {});
  pool.on('connect', (client) => void client.on('error', () => {}));
  const forget = mayConnect(options.poolSize);
  let orm: Promise<MikroORM> | undefined;
  const labels = { schema: definition.schema };
  async function timed<T>(histogram: typeof poolWait, work: () => Promise<T>): Promise<T> {
    const began = performance.now();
    try {
      return await work();
    } finally {
      histogram.observe(labels, (performance.now() - began) / 1_000);
    }
  }
  const connect = (): Promise<PoolClient> => timed(poolWait, () => pool.connect());
  /** By performance.now(). */
  let answeredAt = -Infinity;
  async function query(client: PoolClient, config: string | QueryConfig) {
    const answer = await timed(statementDuration, () => client.query(config));
    answeredAt = performance.now();
    return answer;
  }
  const prepared = new Map<string, string>();
  async function run(client: PoolClient, statement: string, values: readonly unknown[] = []) {
    let name = prepared.get(statement);
    if (name === undefined) prepared.set(statement, (name = `s${prepared.size}`));
    statementsSent.inc();
    const config = { name, text: statement, values: withArrays(values), types: columnTypes };
    const attributes = { 'db.system.name': 'postgresql', 'db.query.text': statement };
    return inSpan('PostgreSQL', { kind: 'client', attributes }, async () => (await query(client, config)).rows);
  }
  /** As `query` of the pool does it: a connection on which a statement has failed isn't used again. */
  async function runAlone(statement: string, values?: readonly unknown[]) {
    const client = await connect();
    let failure: Error | undefined;
    try {
      return await run(client, statement, values);
    } catch (error) {
      failure = error as Error;
      throw error;
    } finally {
      client.release(failure);
    }
  }

  const breaker = new Breaker({ name: `${definition.schema}.database`, reason: awayReason });
  const throughBreaker = <T>(work: () => Promise<T>) => breaker.run(() => guarded(work));
  let isToBeChecked = false;
  async function checkSchema(): Promise<void> {
    const rows = await guarded(() => runAlone(appliedMigrations).catch(noneIfMissing));
    requireFitting(definition, rows as AppliedMigration[]);
    isToBeChecked = false;
  }
  return {
    sql: (statement, values) => throughBreaker(() => runAlone(statement, values)),
    entities: (work) =>
      throughBreaker(async () => {
        orm ??= openEntities(definition, { url: options.url, pool });
        return work((await orm).em.fork());
      }),
    transaction: (work) =>
      throughBreaker(async () => {
        const client = await connect();
        let broken: Error | undefined;
        const sent: Promise<unknown>[] = [];
        const send = <T>(ask: () => Promise<T>): Promise<T> => {
          writeTogether(client);
          const answer = ask();
          // The failure is handled below, even if the caller doesn't await this statement.
          answer.catch(() => {});
          sent.push(answer);
          return answer;
        };
        try {
          statementsSent.inc(2);
          void send(() => query(client, 'begin'));
          const later: (() => void)[] = [];
          const result = await work({
            sql: (statement, values) => send(() => run(client, statement, values)),
            afterCommit: (work) => void later.push(work),
          });
          // In a failed transaction, commit rolls back.
          void send(() => query(client, 'commit'));
          await Promise.all(sent);
          for (const each of later) each();
          return result;
        } catch (error) {
          await client.query('rollback').catch((failure: Error) => {
            broken = failure;
          });
          throw error;
        } finally {
          // A connection that can't even roll back is not returned to the pool.
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
        if (!isToBeChecked && performance.now() - answeredAt < knownForMs) return;
        const asked = isToBeChecked ? checkSchema() : pool.query('select 1');
        await within<unknown>(2_000, asked, () => unavailable(new Error('no answer within 2 s')));
      }),
    async close() {
      await pool.end();
      forget();
    },
  };
}

/**
 * Sends pipelined statements of a transaction in one write. pg writes each statement by itself, and each write is a system call that wakes
 * PostgreSQL.
 */
function writeTogether(client: PoolClient): void {
  const { stream } = (client as unknown as { connection: { stream: Writable } }).connection;
  if (stream.writableCorked > 0) return;
  stream.cork();
  process.nextTick(() => stream.uncork());
}

/** Turns rows into one array for each column, as `unnest` takes them. */
export function columns<Row>(rows: readonly Row[], names: readonly (keyof Row)[]): unknown[][] {
  return names.map((name) => rows.map((row) => row[name]));
}
