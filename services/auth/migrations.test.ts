import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openDatabase } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { migrateDatabase, schemaDrift } from '#lib/database-migrations.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);

/** The migrations up to the one whose name begins so. */
function upTo(number: string): DatabaseDefinition {
  return {
    ...database,
    migrations: database.migrations.filter(({ name }) => name.slice(0, 4) <= number),
  };
}

test.serial(
  '0003-accounts: users whose names differ in case alone all survive, and those from before go on',
  async (t) => {
    const url = hub.databaseUrl('auth');
    const tables = await db.sql<{ name: string }>(
      `select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname = 'auth'`,
    );
    await db.sql(`drop table ${tables.map(({ name }) => name).join()} cascade`);
    await db.sql('drop sequence if exists auth.standing_numbers cascade');
    await migrateDatabase(upTo('0002'), { url });

    const users: [name: string, isAdmin: boolean, day: number][] = [
      ['alice', false, 5],
      ['Alice', true, 1],
      ['ALICE', false, 2],
      ['alice-2', false, 9],
      ['Bob', false, 2],
      ['BOB', false, 1],
      ['carol', true, 1],
      ['Ärger', false, 1],
    ];
    const ids = new Map(users.map(([name]) => [name, uuid()]));
    for (const [name, isAdmin, day] of users) {
      await db.sql(
        'insert into users (id, username, password_hash, is_admin, created_at) values ($1, $2, $3, $4, $5)',
        [ids.get(name), name, `hash of ${name}`, isAdmin, new Date(Date.UTC(2026, 0, day))],
      );
    }
    const expiresAt = new Date(Date.now() + 60_000);
    const openOldSession = () =>
      db.sql('insert into auth_sessions (id, user_id, created_at, expires_at) values ($1, $2, now(), $3)', [
        uuid(),
        ids.get('carol'),
        expiresAt,
      ]);
    await openOldSession();
    await migrateDatabase(database, { url });

    const rows = await db.sql<{ id: string; username: string; name: string | null; role: string; hash: string }>(
      'select id, username, name, role, password_hash as hash from users order by username',
    );
    const shown = new Map(rows.map((row) => [row.id, [row.username, row.name, row.role, row.hash]]));
    t.deepEqual(
      users.map(([name]) => shown.get(ids.get(name)!)),
      [
        ['alice', null, 'user', 'hash of alice'],
        ['alice-3', 'Alice', 'admin', 'hash of Alice'],
        ['alice-4', 'ALICE', 'user', 'hash of ALICE'],
        ['alice-2', null, 'user', 'hash of alice-2'],
        ['bob-2', 'Bob', 'user', 'hash of Bob'],
        ['bob', 'BOB', 'user', 'hash of BOB'],
        ['carol', null, 'admin', 'hash of carol'],
        ['Ärger', null, 'user', 'hash of Ärger'],
      ],
    );
    t.is(await schemaDrift(database, { url }), '');

    // What a process of the version before says goes on being understood, until it is replaced.
    await t.notThrowsAsync(openOldSession());
    t.deepEqual(await db.sql('select is_admin from users where username = $1', ['carol']), [{ is_admin: true }]);
    const store = openStore(db);
    t.is(await store.sweepSessions(new Date(), 10), 0);
    t.is(await store.sweepSessions(new Date(expiresAt.getTime() + 1), 10), 2);
    await t.throwsAsync(
      db.sql(`insert into users (id, username, password_hash, created_at) values ($1, 'Dave', 'x', now())`, [uuid()]),
      { message: /users_username_check/ },
    );
  },
);

test.serial('0005-user-numbers: users have numbers in the order of registration', async (t) => {
  const rows = await db.sql<{ username: string; num_id: bigint }>(`select username, num_id from users order by num_id`);
  const inOrder = await db.sql<{ username: string }>('select username from users order by created_at, id');
  t.deepEqual(
    rows.map(({ username, num_id }) => [username, num_id]),
    inOrder.map(({ username }, index) => [username, BigInt(index + 1)]),
  );
  const store = openStore(db);
  const user = {
    name: 'Eve',
    email: 'eve@example.com',
    passwordHash: 'x',
    role: 'user',
    createdAt: new Date(),
  } as const;
  t.true(await store.addUser({ ...user, id: uuid(), username: 'eve' }));
  t.false(await store.addUser({ ...user, id: uuid(), username: 'eve-2' }), 'the email is taken');
  t.false(
    await store.addUser({ ...user, id: uuid(), username: 'eve', email: 'eve2@example.com' }),
    'the name is taken',
  );
  t.true(await store.addUser({ ...user, id: uuid(), username: 'fred', email: 'fred@example.com' }));
  const numberOf = async (name: string) => (await store.findCredentials(name))?.numId;
  const [eve, fred] = [await numberOf('eve'), await numberOf('fred')];
  t.true(eve! > BigInt(rows.length));
  t.is(fred, eve! + 1n, 'a registration that is refused uses up none');
});

test.serial('0007-user-count: follows whatever adds and deletes users, and whoever lists them is told', async (t) => {
  const store = openStore(db);
  const counted = async () => (await db.sql<{ count: bigint }>('select count(*) from users'))[0]!.count;
  const page = { username: undefined, limit: 2, offset: 1 };
  const [users, total] = await store.listUsers(page);
  t.is(users.length, 2);
  t.is(total, await counted());
  await db.sql(
    `insert into users (id, username, password_hash, created_at) select gen_random_uuid(), 'many-' || n, 'x', now() from generate_series(1, 50) n`,
  );
  t.is((await store.listUsers(page))[1], total + 50n);
  await db.sql(`delete from users where username like 'many-%'`);
  await db.sql(`delete from users where username = 'nobody'`);
  t.is(await store.countUsers(), total);
  await t.throwsAsync(
    db.transaction(async ({ sql }) => {
      await sql(
        `insert into users (id, username, password_hash, created_at) values (gen_random_uuid(), 'undone', 'x', now())`,
      );
      throw new Error('undone');
    }),
  );
  t.is(await store.countUsers(), total);
  t.deepEqual(await store.listUsers({ username: 'nobody', limit: 1, offset: 0 }), [[], 0n]);
  const plan = await db.sql<Record<string, string>>(`explain select total from user_counts where name = 'all'`);
  t.notRegex(JSON.stringify(plan), / users/);
});
