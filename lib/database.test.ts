import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import { Migration } from '@mikro-orm/migrations';
import test, { type ExecutionContext } from 'ava';
import { register } from 'prom-client';
import { createAuthority, writeCertificates, type Issued } from '../test/certificates.ts';
import { openHarness } from '../test/harness.ts';
import { opened, openedTogether } from '../test/opened.ts';
import { openDatabase, type Database } from './database.ts';
import type { SchemaMigration } from './database-definition.ts';
import { migrateDatabase, provisionDatabase } from './database-migrations.ts';
import { SchemaMismatch } from './database-version.ts';
import { HubError, TimedOut } from './errors.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const open = (url: string, poolSize = 3): Database =>
  openDatabase({ schema: 'message', migrations: [] }, { url, poolSize, name: 'test' });
const [database, admin] = openedTogether<Database>([
  { open: () => open(harness.databaseUrl('message')), close: (database) => database.close() },
  { open: () => open(harness.adminDatabaseUrl), close: (database) => database.close() },
]) as [Database, Database];

test.serial.before(async () => {
  await database.sql('create table things (id int primary key)');
});

test('sql: times are Dates, big integers bigint, and arrays go in and out', async (t) => {
  const at = new Date('2026-11-21T10:00:00.123Z');
  const [row] = await database.sql('select $1::timestamptz as at, 9007199254740993 as big, $2::text[] as list', [
    at,
    ['a', 'ü'],
  ]);
  t.deepEqual(row, { at, big: 9_007_199_254_740_993n, list: ['a', 'ü'] });
});

test('transaction: all of it or nothing', async (t) => {
  await database.transaction(async ({ sql }) => {
    await sql('insert into things values ($1)', [1]);
    await sql('insert into things values ($1)', [2]);
  });
  await t.throwsAsync(
    database.transaction(async ({ sql }) => {
      await sql('insert into things values ($1)', [3]);
      throw new Error('no');
    }),
    { message: 'no' },
  );
  t.deepEqual(await database.sql('select id from things order by id'), [{ id: 1 }, { id: 2 }]);
});

test('transaction: statements that nobody waits for run in their order, and are committed with the rest', async (t) => {
  await database.sql('create table pipelined (n int, at int generated always as identity)');
  const insert = 'insert into pipelined (n) values ($1) returning n';
  const found = await database.transaction(async ({ sql }) => {
    for (let n = 1; n <= 50; n += 1) void sql(insert, [n]);
    const counted = await sql<{ count: bigint }>('select count(*) from pipelined');
    void sql(insert, [51]);
    return counted;
  });
  t.deepEqual(found, [{ count: 50n }]);
  const rows = await database.sql<{ n: number }>('select n from pipelined order by at');
  t.deepEqual(
    rows.map(({ n }) => n),
    Array.from({ length: 51 }, (_, index) => index + 1),
  );
});

test('transaction: a statement that nobody waits for and that fails fails all of it, with its own error', async (t) => {
  await database.sql('create table failing (n int primary key)');
  const failed = database.transaction(async ({ sql, afterCommit }) => {
    afterCommit?.(() => t.fail('nothing was committed'));
    void sql('insert into failing values (1)');
    void sql('insert into failing values ($1)', ['1']);
    void sql('insert into failing values (2)');
  });
  t.like(await t.throwsAsync(failed), { code: '23505' });
  t.deepEqual(await database.sql('select * from failing'), []);
  t.deepEqual(await database.sql('select 1 as one'), [{ one: 1 }]);
});

test('metrics say how long statements wait for a connection, and how long they take, in transactions too', async (t) => {
  const one = openDatabase(
    { schema: 'of_metrics', migrations: [] },
    { url: harness.databaseUrl('message'), poolSize: 1, name: 'test' },
  );
  t.teardown(() => one.close());
  const shown = async (metric: string) => {
    const { values } = await register.getSingleMetric(`chat4all_${metric}`)!.get();
    const ofSchema = values.filter(({ labels }) => labels['schema'] === 'of_metrics');
    const valueOf = (what: string) =>
      ofSchema.find((value) => (value as { metricName?: string }).metricName === `chat4all_${metric}_${what}`)?.value;
    return { count: valueOf('count'), sum: valueOf('sum')! };
  };
  let waiting: Promise<unknown> | undefined;
  await one.transaction(async ({ sql }) => {
    waiting = one.sql('select 1');
    await sql('select pg_sleep(0.1)');
  });
  await waiting;
  const [waits, statements] = [
    await shown('database_pool_wait_seconds'),
    await shown('database_statement_duration_seconds'),
  ];
  t.is(waits.count, 2);
  t.true(waits.sum >= 0.1, 'the one waited for the other to sleep');
  t.is(statements.count, 4, 'begin, sleep, commit, and the one that waited');
  t.true(statements.sum >= 0.1);
  await t.throwsAsync(one.sql('select 1 / 0'));
  t.is((await shown('database_statement_duration_seconds')).count, 5);
});

test('errors of the statement itself pass as they are', async (t) => {
  const error = await t.throwsAsync(database.sql('select 1 / 0'));
  t.false(error instanceof HubError);
});

test('a statement that exceeds its time limit is UNAVAILABLE and says so, and its transaction leaves nothing', async (t) => {
  const tooLong = database.transaction(async ({ sql }) => {
    await sql('set local statement_timeout = 50');
    await sql('insert into things values (100)');
    await sql('select pg_sleep(60)');
  });
  t.is((await t.throwsAsync<TimedOut>(tooLong, { instanceOf: TimedOut }))?.kind, 'UNAVAILABLE');
  t.deepEqual(await database.sql('select id from things where id = 100'), []);
});

test('a connection that PostgreSQL ends is UNAVAILABLE, the process goes on, and so does the next statement', async (t) => {
  const ended = database.transaction(async ({ sql }) => {
    const [self] = await sql<{ pid: number }>('select pg_backend_pid() as pid');
    await admin.sql('select pg_terminate_backend($1)', [self?.pid]);
    // Nothing is asked while the connection goes: nobody waits for an answer that could fail.
    await sleep(50);
    await sql('select 1');
  });
  t.like(await t.throwsAsync(ended), { kind: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
  t.deepEqual(await database.sql('select 1 as one'), [{ one: 1 }]);
});

test('a database that is not there is UNAVAILABLE with a delay', async (t) => {
  const nowhere = open('postgres://nobody:nothing@127.0.0.1:1/none');
  t.like(await t.throwsAsync(nowhere.ping()), { kind: 'UNAVAILABLE', retryAfter: 1 });
  t.like(await t.throwsAsync(nowhere.transaction(async () => {})), { kind: 'UNAVAILABLE' });
  await nowhere.close();
});

test('a role sees no schema but its own', async (t) => {
  for (const schema of ['auth', 'conversation', 'router', 'connectors', 'bus']) {
    const refused = await t.throwsAsync(database.sql(`create table ${schema}.intruder (id int)`));
    t.like(refused, { code: '42501' }, schema);
  }
  t.like(await t.throwsAsync(database.sql('select * from auth.users')), { code: '42501' });
});

/** A migration that runs these statements. */
function migration(name: string, statements: readonly string[], more: { needs?: string; isAlone?: boolean } = {}) {
  class Given extends Migration {
    override isTransactional(): boolean {
      return more.isAlone !== true;
    }
    override up(): void {
      for (const statement of statements) this.addSql(statement);
    }
  }
  return { name, load: async () => Given, ...(more.needs === undefined ? {} : { needs: more.needs }) };
}

/** A service of the schema that this file has, whose code knows these migrations. */
function knowing(migrations: readonly SchemaMigration[]) {
  const definition = { schema: 'message', migrations };
  const url = harness.databaseUrl('message');
  return {
    migrate: () => migrateDatabase(definition, { url }),
    async requireSchema(): Promise<void> {
      const database = openDatabase(definition, { url, poolSize: 1, name: 'test' });
      try {
        await database.requireSchema();
      } finally {
        await database.close();
      }
    },
  };
}

test('migrateDatabase: what waits for a lock lets others through after a while, and is tried again', async (t) => {
  await database.sql('create table busy (id int)');
  const reading = Promise.withResolvers<void>();
  const isRead = Promise.withResolvers<void>();
  const holder = database.transaction(async ({ sql }) => {
    await sql('select from busy');
    reading.resolve();
    await isRead.promise;
  });
  await reading.promise;
  const migrating = knowing([migration('busy', ['alter table busy add column more int'])]).migrate();
  const waits = `select from pg_stat_activity where application_name = 'migrate message' and wait_event_type = 'Lock'`;
  while ((await admin.sql(waits)).length === 0) await sleep(20);
  await database.sql('select from busy');
  isRead.resolve();
  await Promise.all([holder, migrating]);
  t.deepEqual(await database.sql('select more from busy'), []);
});

test('migrateDatabase: an index is made concurrently, by one of two who are asked at once', async (t) => {
  await database.sql('create table indexed (id int)');
  const statements = [
    'drop index concurrently if exists indexed_index',
    'create index concurrently indexed_index on indexed (id)',
  ];
  const { migrate } = knowing([migration('indexed', statements, { isAlone: true })]);
  await Promise.all([migrate(), migrate(), migrate()]);
  t.deepEqual(
    await database.sql(`select indisvalid as valid from pg_index where indexrelid = 'indexed_index'::regclass`),
    [{ valid: true }],
  );
  t.deepEqual(await database.sql(`select count(*) from migrations where name = 'indexed'`), [{ count: 1n }]);
});

test('requireSchema: code of before goes on, until something is taken away that it uses', async (t) => {
  const [made, more] = [
    migration('made', ['create table made (old int)']),
    migration('more', ['alter table made add fresh int']),
  ];
  const less = migration('less', ['alter table made drop old'], { needs: 'more' });
  const versions = [[made], [made, more], [made, more, less]].map(knowing);
  const [first, second, third] = versions as [(typeof versions)[0], (typeof versions)[0], (typeof versions)[0]];
  const refusal = async (version: typeof first) => {
    const error = await t.throwsAsync(version.requireSchema(), { instanceOf: SchemaMismatch });
    return error!.message;
  };
  t.is(
    await refusal(first),
    'The schema "message" of DATABASE_URL is older than this code: made has not run. Run npm run migrate',
  );
  await first.migrate();
  await first.requireSchema();
  t.is(
    await refusal(second),
    'The schema "message" of DATABASE_URL is older than this code: more has not run. Run npm run migrate',
  );
  await second.migrate();
  await Promise.all([first, second].map((version) => version.requireSchema()));
  await third.migrate();
  await Promise.all([second, third].map((version) => version.requireSchema()));
  t.is(
    await refusal(first),
    'The schema "message" of DATABASE_URL is newer than this code: less needs code that knows more. Start a newer version',
  );
  await second.migrate();
  await third.migrate();
});

test('requireSchema: where the database is away, ping asks it', async (t) => {
  const away = openDatabase(
    { schema: 'message', migrations: [migration('never', [])] },
    { url: 'postgres://nobody@127.0.0.1:1/nothing', poolSize: 1, name: 'test' },
  );
  await t.notThrowsAsync(away.requireSchema());
  await t.throwsAsync(away.ping(), { instanceOf: HubError });
  await away.close();
  const there = openDatabase(
    { schema: 'message', migrations: [migration('never', [])] },
    { url: harness.databaseUrl('message'), poolSize: 1, name: 'test' },
  );
  await t.notThrowsAsync(there.ping(), 'it was not asked for');
  await t.throwsAsync(there.requireSchema(), { instanceOf: SchemaMismatch });
  await t.throwsAsync(there.ping(), { instanceOf: SchemaMismatch });
  await there.close();
});

test('provisionDatabase: may be repeated and done twice at once, and the last password counts', async (t) => {
  const role = 'chat4all_provisioned';
  const provision = (password: string) =>
    provisionDatabase(harness.adminDatabaseUrl, { schema: 'provisioned', role, password });
  await Promise.all([provision('one'), provision('one')]);
  await provision(`it's "two" \\ two`);
  const url = new URL(harness.adminDatabaseUrl);
  url.username = role;
  url.password = encodeURIComponent(`it's "two" \\ two`);
  const own = open(url.href);
  t.deepEqual(await own.sql('select current_user::text as me'), [{ me: role }]);
  await own.close();
  await admin.sql('drop schema provisioned');
  await admin.sql(`drop role ${role}`);
});

/** The database behind a door that speaks TLS, as PostgreSQL does it: who asks for it is answered `S`. */
async function openTlsDoor(t: ExecutionContext, { cert, key }: Issued): Promise<number> {
  const { hostname, port } = new URL(harness.adminDatabaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    socket.once('data', (request) => {
      // An SSLRequest (PostgreSQL, "Message Formats"); whoever says something else is turned away.
      if (request.length !== 8 || request.readInt32BE(4) !== 80_877_103) return socket.destroy();
      socket.write('S');
      const inner = new TLSSocket(socket, { isServer: true, cert, key });
      const outer = connect(Number(port), hostname);
      for (const [from, to] of [
        [inner, outer],
        [outer, inner],
      ] as const) {
        from.on('error', () => {}).pipe(to);
        from.on('close', () => to.destroy());
      }
      sockets.add(outer);
    });
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return (server.address() as AddressInfo).port;
}

test('sslmode of the URL counts: TLS or nothing, and only with whom the authority vouches for', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-database-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const authority = createAuthority('databases');
  const { CA_CA: ours } = await writeCertificates(folder, 'CA', authority.issue([]), authority);
  const { CA_CA: others } = await writeCertificates(folder, 'CA', authority.issue([]), createAuthority('others'));
  const port = await openTlsDoor(t, authority.issue(['localhost']));
  const url = (from: string, parameters: Record<string, string | undefined>, at = port) => {
    const changed = new URL(from);
    changed.host = `localhost:${at}`;
    changed.search = new URLSearchParams(parameters as Record<string, string>).toString();
    return changed.href;
  };
  const encrypted = (from: string) => url(from, { sslmode: 'verify-full', sslrootcert: ours });
  const ask = async (address: string) => {
    const opened = open(address);
    t.teardown(() => opened.close());
    return opened.sql('select 1 as one');
  };

  const own = harness.databaseUrl('message');
  t.deepEqual(await ask(encrypted(own)), [{ one: 1 }]);
  await t.throwsAsync(ask(url(own, { sslmode: 'verify-full', sslrootcert: others })), undefined, 'another authority');
  await t.throwsAsync(ask(url(own, {})), undefined, 'plain text at a door that takes none');
  const direct = Number(new URL(own).port);
  await t.throwsAsync(ask(url(own, { sslmode: 'verify-full', sslrootcert: ours }, direct)), {
    message: /does not support SSL/,
  });

  const role = { schema: 'encrypted', role: 'chat4all_encrypted', password: 'uK9_x2LmQ-7f' };
  t.teardown(() =>
    admin.sql(`drop schema if exists encrypted`).then(() => admin.sql('drop role if exists chat4all_encrypted')),
  );
  await provisionDatabase(encrypted(harness.adminDatabaseUrl), role);
  await t.throwsAsync(provisionDatabase(url(harness.adminDatabaseUrl, {}), role));
});
