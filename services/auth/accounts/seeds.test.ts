import ava from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { openDatabase } from '#lib/database.ts';
import { openHarness, type StartedProcess } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

/** One after another: each test starts services on the same users. */
const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const login = (auth: StartedProcess, email: string, password: string) =>
  hub
    .client(AccountServiceService, auth.address, { metadata: { 'x-forwarded-for': uuid() } })
    .login({ email, password });
const usable = { LAPTOP_MODE: 'false', MAIL_DIR: '/nowhere', DATABASE_POOL: '3' };
const adminPassword = 'Zq7-vault-harbor';

test('SEED_USERS: users and an administrator that everybody knows, by email and by name', async (t) => {
  const auth = await hub.startService('auth', { SEED_USERS: '2' });
  const { accessToken } = await login(auth, 'admin@example.com', 'Admin-12345');
  t.like(await hub.identities.message!.verify(accessToken), { username: 'admin', admin: true });
  await login(auth, 'USER2@example.com', 'password123');
  const one = await store.findAccount('00000000-0000-4000-8000-000000000001');
  t.like(one, { username: 'user1', name: 'User 1', email: 'user1@example.com', role: 'user' });
  const { token } = await hub
    .client(AuthServiceService, auth.address)
    .issueToken({ username: 'user1@example.com', password: 'password123' });
  t.like(await hub.identities.message!.verify(token), { username: 'user1', admin: false, numId: 1n });
  t.deepEqual(
    await db.sql('select username, num_id from users order by num_id'),
    ['user1', 'user2', 'admin'].map((username, index) => ({ username, num_id: BigInt(index + 1) })),
  );
  const { user } = await hub.client(AuthServiceService, auth.address, { token }).getCurrentUser({});
  t.is(user?.numId, 1n);
  await auth.stop();
});

test('SEED_USERS: users from before get an email, and keep the rest', async (t) => {
  await db.sql(`update users set email = null, email_key = null, name = null where username = 'user1'`);
  await db.sql(`update users set email = null, email_key = null, name = 'Mine' where username = 'user2'`);
  const before = (await store.findCredentials('user1'))!.passwordHash;
  const [first, second] = await Promise.all([
    hub.startService('auth', { SEED_USERS: '2' }),
    hub.startService('auth', { SEED_USERS: '3' }),
  ]);
  await Promise.all([first.stop(), second.stop()]);
  const rows = await db.sql<{ name: string; email: string }>(
    `select name, email from users where username like 'user_' order by username`,
  );
  t.deepEqual(rows, [
    { name: 'User 1', email: 'user1@example.com' },
    { name: 'Mine', email: 'user2@example.com' },
    { name: 'User 3', email: 'user3@example.com' },
  ]);
  t.is((await store.findCredentials('user1'))!.passwordHash, before);
});

test('ADMIN_EMAIL: makes the first administrator, once, however many processes start', async (t) => {
  const env = { ...usable, ADMIN_EMAIL: 'Boss@corp.example', ADMIN_PASSWORD: adminPassword };
  const [auth, other] = await Promise.all([hub.startService('auth', env), hub.startService('auth', env)]);
  const { accessToken } = await login(auth, 'boss@CORP.example', adminPassword);
  t.like(await hub.identities.message!.verify(accessToken), { username: 'boss', admin: true });
  t.is((await db.sql(`select from users where email_key = 'boss@corp.example'`)).length, 1);
  t.false([...auth.lines, ...other.lines].join('').includes(adminPassword));
  await Promise.all([auth.stop(), other.stop()]);
});

test('ADMIN_EMAIL: a user who has the email becomes an administrator, and keeps the password', async (t) => {
  const env = { ...usable, ADMIN_EMAIL: 'USER3@example.com', ADMIN_PASSWORD: adminPassword };
  const auth = await hub.startService('auth', env);
  const { accessToken } = await login(auth, 'user3@example.com', 'password123');
  t.like(await hub.identities.message!.verify(accessToken), { username: 'user3', admin: true });
  await auth.stop();
});

test('settings that do not go together keep the service from starting', async (t) => {
  const refused = async (env: NodeJS.ProcessEnv, message: RegExp) =>
    t.throwsAsync(hub.startService('auth', { ...usable, ...env }), { name: 'ConfigError', message });
  const admin = { ADMIN_EMAIL: 'boss@corp.example' };
  await refused(admin, /ADMIN_EMAIL and ADMIN_PASSWORD go together/);
  await refused({ ADMIN_PASSWORD: adminPassword }, /go together/);
  await refused({ ...admin, ADMIN_PASSWORD: 'zq7-vault-harbor' }, /ADMIN_PASSWORD must have an upper-case letter/);
  await refused({ ...admin, ADMIN_PASSWORD: 'Admin-12345' }, /ADMIN_PASSWORD must be a secret/);
  await refused({ ADMIN_EMAIL: 'nobody', ADMIN_PASSWORD: adminPassword }, /ADMIN_EMAIL must be an email/);
  await refused({ MAIL_DIR: '' }, /SMTP_URL is required, or MAIL_DIR/);
  await refused({ SMTP_URL: 'smtp://127.0.0.1:25' }, /MAIL_FROM is required with SMTP_URL/);
  await refused({ SMTP_URL: 'http://127.0.0.1:25' }, /SMTP_URL must be smtp/);
  await refused({ ACCESS_TOKEN_TTL: '14m' }, /ACCESS_TOKEN_TTL must be from 15m to 60m/);
  await refused({ ACCESS_TOKEN_TTL: '61m' }, /ACCESS_TOKEN_TTL must be at most/);
  await refused({ RESET_URL: 'https://app.example/reset' }, /RESET_URL must be/);
  const laptop = await hub.startService('auth', { ACCESS_TOKEN_TTL: '2s', ADMIN_EMAIL: '', SMTP_URL: '' });
  const { expiresIn } = await login(laptop, 'user1@example.com', 'password123');
  t.is(expiresIn, 2);
  await laptop.stop();
});
