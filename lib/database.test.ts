import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { openHarness } from '../test/harness.ts';
import { openDatabase, provisionDatabase, type Database } from './database.ts';
import { HubError } from './errors.ts';

const harness = await openHarness();
const open = (url: string, poolSize = 3): Database =>
  openDatabase({ schema: 'message', entities: [], migrations: async () => [] }, { url, poolSize, name: 'test' });
const database = open(harness.databaseUrl('message'));
const admin = open(harness.adminDatabaseUrl);
test.after.always(async () => {
  await Promise.all([database.close(), admin.close()]);
  await harness.stop();
});

test.before(async () => {
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

test('errors of the statement itself pass as they are', async (t) => {
  const error = await t.throwsAsync(database.sql('select 1 / 0'));
  t.false(error instanceof HubError);
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
