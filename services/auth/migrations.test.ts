import test from 'ava';
import { v4 as uuid } from 'uuid';
import { migrateDatabase, openDatabase, schemaDrift, type DatabaseDefinition } from '#lib/database.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { database, openStore } from './store.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);

/** The migrations up to the one whose name begins so. */
function upTo(number: string): DatabaseDefinition {
  return {
    ...database,
    migrations: async () => (await database.migrations()).filter(({ name }) => name.slice(0, 4) <= number),
  };
}

test('0003-accounts: users whose names differ in case alone all survive, and those from before go on', async (t) => {
  const url = hub.databaseUrl('auth');
  await db.sql('drop table if exists auth.standings, auth.token_lifetimes cascade');
  await db.sql('drop sequence if exists auth.standing_numbers cascade');
  await db.sql(
    `drop table auth.user_subscriptions, auth.audit_events, auth.mails, auth.reset_tokens, auth.reset_requests,
       auth.api_keys, auth.refresh_tokens, auth.login_failures, auth.auth_sessions, auth.users, auth.migrations cascade`,
  );
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
    await db.sql('insert into users (id, username, password_hash, is_admin, created_at) values ($1, $2, $3, $4, $5)', [
      ids.get(name),
      name,
      `hash of ${name}`,
      isAdmin,
      new Date(Date.UTC(2026, 0, day)),
    ]);
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
});
