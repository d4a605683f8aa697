import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService, Role, type RegisterRequest } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import {
  foldCase,
  nameViolations,
  passwordViolations,
  subscriptionStatus,
  usernamesFor,
  usernameViolations,
} from './accounts.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

/** One after another: hashing keeps every core busy, and what is done at once would wait for it. */
const test = ava.serial;

const limit = 4;
const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() =>
  hub.startService('auth', {
    SEED_USERS: '3',
    LOGIN_FAILURES: `${limit}`,
    ADMIN_USERS: 'reserved-name',
  }),
);
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const password = 'Engine-1843';
/** The RPCs for somebody at an address that no other test uses, unless it is given. */
const from = (address: string = uuid()) =>
  hub.client(AccountServiceService, auth.address, { metadata: { 'x-forwarded-for': address } });
const tokensFrom = (address: string = uuid()) =>
  hub.client(AuthServiceService, auth.address, { metadata: { 'x-forwarded-for': address } });
const withToken = (token: string) => hub.client(AccountServiceService, auth.address, { token });

const newcomer = (more: Partial<RegisterRequest> = {}): RegisterRequest => ({
  name: 'Ada Lovelace',
  email: `${uuid()}@example.com`,
  password,
  ...more,
});

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  return (await t.throwsAsync(call, { instanceOf: HubError })) as HubError;
}

async function reasonOf(t: ExecutionContext, call: Promise<unknown>): Promise<string> {
  const { kind, reason } = await refusal(t, call);
  return `${kind} ${reason}`;
}

const rulesOf = ({ fields }: Pick<HubError, 'fields'>) => fields.map(({ field, rule }) => `${field} ${rule}`);

/** Registers somebody and logs them in. */
async function member(more: Partial<RegisterRequest> = {}) {
  const wanted = newcomer(more);
  const account = await from().register(wanted);
  const tokens = await from().login({ email: wanted.email, password: wanted.password });
  return { account, tokens, api: withToken(tokens.accessToken) };
}

test('passwordViolations: names every rule that a password does not meet', (t) => {
  const rules = (text: string) => passwordViolations(text).map(({ rule }) => rule);
  t.deepEqual(rules(password), []);
  t.deepEqual(rules(''), ['min_length', 'uppercase', 'lowercase', 'digit', 'special']);
  t.deepEqual(rules('Aa1-567'), ['min_length']);
  t.deepEqual(rules('aaaa1111-'), ['uppercase']);
  t.deepEqual(rules('AAAA1111-'), ['lowercase']);
  t.deepEqual(rules('AAAAaaaa-'), ['digit']);
  t.deepEqual(rules('AAAAaaaa1'), ['special']);
  t.deepEqual(rules('ÄÄÄÄöööö٣€'), [], 'letters and digits of all scripts');
  t.deepEqual(rules('Pass word1'), [], 'a space can be printed');
  t.deepEqual(rules('Password1\t'), ['special'], 'a tab can not');
  t.deepEqual(rules('Aa1-😀😀😀'), ['min_length'], 'characters, not code units');
  t.deepEqual(rules(`Aa1-${'x'.repeat(68)}`), []);
  t.deepEqual(rules(`Aa1-${'x'.repeat(69)}`), ['max_bytes']);
  t.deepEqual(rules(`Aa1-${'é'.repeat(35)}`), ['max_bytes'], 'bytes, not characters');
  t.deepEqual(passwordViolations('', 'new_password')[0]?.field, 'new_password');
});

test('nameViolations and usernameViolations: what people may be called', (t) => {
  const names = ['', '   ', ' \u00a0\u2003', 'x', 'x'.repeat(100), ` ${'😀'.repeat(100)} `, 'x'.repeat(101)];
  t.deepEqual(
    names.map((name) => nameViolations(name).map(({ rule }) => rule)),
    [['required'], ['required'], ['required'], [], [], [], ['max_length']],
  );
  const good = ['abc', 'ABC', 'a.b_c-9', 'x'.repeat(32)];
  const bad = ['', 'ab', 'x'.repeat(33), 'a b', 'ärger', 'a@b', 'abc\n'];
  t.deepEqual(good.flatMap(usernameViolations), []);
  for (const each of bad) t.deepEqual(rulesOf({ fields: usernameViolations(each) }), ['username pattern'], each);
});

test('usernamesFor: makes names of an email that are names, with others for when they are taken', (t) => {
  t.deepEqual(usernamesFor('Ada.Lovelace@example.com', 'f00'), [
    'ada.lovelace',
    'ada.lovelace-2',
    'ada.lovelace-3',
    'ada.lovelace-4',
    'ada.lovelace-f00',
  ]);
  const emails = ['a@b.c', 'x+y/z!@b.c', `${'l'.repeat(64)}@b.c`, '.-_@b.c', '"a@b"@c.d', '++@b.c'];
  for (const email of emails) {
    for (const name of usernamesFor(email, '12345678')) t.deepEqual(usernameViolations(name), [], `${email}: ${name}`);
  }
  t.is(usernamesFor('a@b.c', '')[0], 'user-a');
});

test('foldCase: is what PostgreSQL makes of it', async (t) => {
  for (const text of ['Ada@Example.COM', 'ÄRGER', 'İstanbul', 'ẞ', 'plain']) {
    const [row] = await db.sql<{ folded: string }>('select lower($1::text collate "C") as folded', [text]);
    t.is(foldCase(text), row!.folded);
  }
});

test('subscriptionStatus: is as it is at that moment', (t) => {
  const now = new Date('2026-11-29T12:00:00Z');
  const at = (expiresAt: string | undefined) =>
    subscriptionStatus({ plan: 'pro', expiresAt: expiresAt === undefined ? undefined : new Date(expiresAt) }, now);
  t.deepEqual(
    [at(undefined), at('2026-11-29T12:00:00.001Z'), at('2026-11-29T12:00:00Z'), at('2026-11-01T12:00:00Z')],
    ['active', 'cancelled', 'expired', 'expired'],
  );
});

test('register: makes an account, which logs in by email and by name in any case', async (t) => {
  const unique = uuid().slice(0, 8);
  const wanted = newcomer({ name: '  Ada  ', email: `Ada.${unique}@Example.com`, username: `Ada-${unique}` });
  const { id, createdAt, ...account } = await from().register(wanted);
  t.deepEqual(account, {
    username: `ada-${unique}`,
    name: 'Ada',
    email: `Ada.${unique}@Example.com`,
    role: Role.ROLE_USER,
  });
  t.true(Math.abs(createdAt!.getTime() - Date.now()) < 60_000);

  const session = await from().login({ email: wanted.email.toUpperCase(), password });
  t.like(session, { tokenType: 'bearer', expiresIn: 1_800 });
  const verified = await hub.identities.message!.verify(session.accessToken);
  t.like(verified, { kind: 'user', userId: id, username: account.username, admin: false });
  t.like((await withToken(session.accessToken).getAccount({})).account, { ...account, id });

  for (const username of [wanted.email, wanted.email.toLowerCase(), `ADA-${unique}`, account.username]) {
    t.is((await tokensFrom().issueToken({ username, password })).userId, id, username);
  }
  const { token } = await tokensFrom().issueToken({ username: account.username, password });
  t.is((await withToken(token).getAccount({})).account?.id, id, 'a token of the other door is as good');
  t.deepEqual(
    await from()
      .login({ email: account.username, password })
      .then((found) => found.tokenType),
    'bearer',
  );
});

test('register: names every wrong field, each with its rule', async (t) => {
  const error = await refusal(
    t,
    from().register({ name: ' ', email: 'no email', password: 'aaaaaaa', username: 'a b' }),
  );
  t.is(error.kind, 'INVALID_ARGUMENT');
  t.deepEqual(rulesOf(error).toSorted(), [
    'email email',
    'name required',
    'password digit',
    'password min_length',
    'password special',
    'password uppercase',
    'username pattern',
  ]);
  const nothing = await refusal(t, from().register({ name: '', email: '', password: '' }));
  t.deepEqual([...new Set(nothing.fields.map(({ field }) => field))].toSorted(), ['email', 'name', 'password']);
  t.deepEqual(rulesOf(await refusal(t, from().register(newcomer({ password: `${password}${'x'.repeat(62)}` })))), [
    'password max_bytes',
  ]);
});

test('register: an email and a username are taken in any case', async (t) => {
  const first = newcomer({ username: `taken-${uuid().slice(0, 8)}` });
  await from().register(first);
  t.is(
    await reasonOf(t, from().register({ ...newcomer(), email: first.email.toUpperCase() })),
    'ALREADY_EXISTS EMAIL_TAKEN',
  );
  t.is(
    await reasonOf(t, from().register(newcomer({ username: first.username!.toUpperCase() }))),
    'ALREADY_EXISTS USERNAME_TAKEN',
  );
});

test('register: nobody gets a name that becomes an administrator at the next start', async (t) => {
  t.is(await reasonOf(t, from().register(newcomer({ username: 'Reserved-Name' }))), 'ALREADY_EXISTS USERNAME_TAKEN');
  const { username } = await from().register(newcomer({ email: 'reserved-name@example.com' }));
  t.is(username, 'reserved-name-2');
});

test('register: of twenty at once with one email one succeeds', async (t) => {
  const email = `race-${uuid()}@example.com`;
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, (_, number) =>
      from().register(newcomer({ email: number % 2 === 0 ? email : email.toUpperCase() })),
    ),
  );
  t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  const reasons = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as HubError).reason] : []));
  t.deepEqual([...new Set(reasons)], ['EMAIL_TAKEN']);
  const rows = await db.sql('select 1 from users where email_key = $1', [email]);
  t.is(rows.length, 1);
});

test('register: many with the same name before the @ each get another username', async (t) => {
  const name = `same-${uuid().slice(0, 8)}`;
  const made = await Promise.all(
    Array.from({ length: 12 }, (_, number) => from().register(newcomer({ email: `${name}@${number}.example.com` }))),
  );
  t.is(new Set(made.map(({ username }) => username)).size, 12);
  for (const { username } of made) t.true(username.startsWith(name), username);
});

test('login: an unknown email and a wrong password get the same answer after the same time', async (t) => {
  const { account } = await member();
  const time = async (email: string) => {
    const began = performance.now();
    const { kind, reason, message } = await refusal(t, from().login({ email, password: 'a wrong one' }));
    return { took: performance.now() - began, said: `${kind} ${reason} ${message}` };
  };
  const known: number[] = [];
  const unknown: number[] = [];
  const said = new Set<string>();
  for (let round = 0; round < 9; round += 1) {
    const [one, other] = [await time(account.email), await time(`${uuid()}@example.com`)];
    known.push(one.took);
    unknown.push(other.took);
    said.add(one.said).add(other.said);
  }
  t.deepEqual([...said], ['UNAUTHENTICATED INVALID_CREDENTIALS The email or the password is wrong']);
  // The shortest times are what the work takes; the others have waited for other programs as well.
  const [ofKnown, ofUnknown] = [Math.min(...known), Math.min(...unknown)];
  const ratio = ofKnown / ofUnknown;
  t.true(ratio > 0.75 && ratio < 1.33, `${ofKnown} ms and ${ofUnknown} ms`);
});

test('login: a password that is longer than bcrypt reads is wrong, though its beginning is right', async (t) => {
  const long = `Aa1-${'x'.repeat(68)}`;
  const { account } = await member({ password: long });
  t.is(
    await reasonOf(t, from().login({ email: account.email, password: `${long}y` })),
    'UNAUTHENTICATED INVALID_CREDENTIALS',
  );
});

test('register: an address may do it so often within an hour, and hears when it may again', async (t) => {
  const limited = await hub.startService('auth', { BCRYPT_COST: '10', REGISTRATIONS_PER_ADDRESS: '3' });
  const [one, other] = ['203.0.113.1', '203.0.113.2'];
  const register = (address: string, email = `${uuid()}@example.com`) =>
    hub
      .client(AccountServiceService, limited.address, { metadata: { 'x-forwarded-for': address } })
      .register({ name: 'Newcomer', email, password });
  const email = `${uuid()}@example.com`;
  await register(one, email);
  t.is(await reasonOf(t, register(one, email)), 'ALREADY_EXISTS EMAIL_TAKEN');
  t.is(
    await reasonOf(t, register(one, 'no email')),
    'INVALID_ARGUMENT INVALID_ARGUMENT',
    'which costs nothing, and does not count',
  );
  await register(one);
  for (const address of [one, `::ffff:${one}`]) {
    const error = await refusal(t, register(address));
    t.is(error.reason, 'TOO_MANY_REGISTRATIONS');
    t.true(error.retryAfter! > 3_590 && error.retryAfter! <= 3_600, String(error.retryAfter));
  }
  await register(other);

  await db.sql(`update registrations set registered_at = registered_at - interval '1 hour' where address = $1`, [one]);
  await register(one);
});

test('login: failures count for one user, by whatever name and door it is tried', async (t) => {
  const { account } = await member();
  const address = uuid();
  const wrong = 'a wrong one';
  await refusal(t, from(address).login({ email: account.email, password: wrong }));
  await refusal(t, from(address).login({ email: account.email.toUpperCase(), password: wrong }));
  await refusal(t, tokensFrom(address).issueToken({ username: account.username.toUpperCase(), password: wrong }));
  await refusal(t, tokensFrom(address).issueToken({ username: account.email, password: wrong }));
  for (const email of [account.email, account.username]) {
    const error = await refusal(t, from(address).login({ email, password }));
    t.is(error.reason, 'TOO_MANY_LOGIN_FAILURES');
    t.true(error.retryAfter! > 0);
  }
  t.is((await from().login({ email: account.email, password })).tokenType, 'bearer', 'from elsewhere');

  const nobody = `${uuid()}@example.com`;
  for (let failure = 0; failure < limit; failure += 1) {
    const email = failure % 2 === 0 ? nobody : nobody.toUpperCase();
    t.is(await reasonOf(t, from(address).login({ email, password })), 'UNAUTHENTICATED INVALID_CREDENTIALS');
  }
  t.is(
    await reasonOf(t, from(address).login({ email: nobody, password })),
    'RESOURCE_EXHAUSTED TOO_MANY_LOGIN_FAILURES',
  );
});

test('login: a disabled user gets the answer of a wrong password, at both doors', async (t) => {
  const { account, tokens } = await member();
  await db.sql(`update users set status = 'disabled' where id = $1`, [account.id]);
  t.is(await reasonOf(t, from().login({ email: account.email, password })), 'UNAUTHENTICATED INVALID_CREDENTIALS');
  t.is(
    await reasonOf(t, tokensFrom().issueToken({ username: account.username, password })),
    'UNAUTHENTICATED INVALID_CREDENTIALS',
  );
  t.is(await reasonOf(t, from().refreshTokens({ refreshToken: tokens.refreshToken })), 'UNAUTHENTICATED UNAUTHORIZED');
  await db.sql(`update users set status = 'active' where id = $1`, [account.id]);
  t.is((await from().refreshTokens({ refreshToken: tokens.refreshToken })).tokenType, 'bearer', 'enabled again');
});

test('login: no session is opened with a password that was changed while it was checked', async (t) => {
  const { account } = await member();
  const found = (await store.findCredentials(account.username))!;
  const session = { id: uuid(), userId: account.id, createdAt: new Date(), expiresAt: new Date(Date.now() + 60_000) };
  const pair = { username: account.username, address: uuid() };
  t.false(await store.openSession(session, 'another hash', pair));
  t.true(await store.openSession(session, found.passwordHash, pair));
});

test('updateAccount: changes the name, trimmed, and nothing where nothing is said', async (t) => {
  const { account, api } = await member();
  t.like((await api.updateAccount({ name: '  Countess  ' })).account, { id: account.id, name: 'Countess' });
  t.is((await api.updateAccount({})).account?.name, 'Countess');
  t.is((await api.getAccount({})).account?.name, 'Countess');
  t.deepEqual(rulesOf(await refusal(t, api.updateAccount({ name: ' ' }))), ['name required']);
  t.deepEqual(rulesOf(await refusal(t, api.updateAccount({ name: 'x'.repeat(101) }))), ['name max_length']);
});

test('an account that is gone is no caller any more', async (t) => {
  const { account, api } = await member();
  await db.sql('delete from users where id = $1', [account.id]);
  t.is(await reasonOf(t, api.getAccount({})), 'UNAUTHENTICATED TOKEN_INVALID');
  t.is(await reasonOf(t, api.updateAccount({ name: 'Nobody' })), 'UNAUTHENTICATED TOKEN_INVALID');
  t.is(await reasonOf(t, api.createApiKey({ name: 'x', expiresAt: undefined })), 'UNAUTHENTICATED TOKEN_INVALID');
});

test('users that were made without an email or a name are called as they log in', async (t) => {
  const id = uuid();
  const username = `made-${id.slice(0, 8)}`;
  await db.sql('insert into users (id, username, password_hash, created_at) values ($1, $2, $3, now())', [
    id,
    username,
    'none',
  ]);
  const api = withToken(await hub.userToken({ userId: id, username }));
  t.like((await api.getAccount({})).account, { id, username, name: username, email: undefined });
});

test('listUsers: finds a username in any case', async (t) => {
  const { account, tokens } = await member();
  const asUser = hub.client(AuthServiceService, auth.address, { token: tokens.accessToken });
  const found = await asUser.listUsers({ username: account.username.toUpperCase(), limit: undefined, offset: 0 });
  t.deepEqual(
    found.users.map(({ userId }) => userId),
    [account.id],
  );
});

test('the log shows no password, no hash and no token of an account', async (t) => {
  const { account, tokens, api } = await member();
  const { key } = await api.createApiKey({ name: 'a key', expiresAt: undefined });
  await from().refreshTokens({ refreshToken: tokens.refreshToken });
  await refusal(t, from().login({ email: account.email, password: 'a wrong one' }));
  const log = auth.lines.join('');
  t.regex(log, /CreateApiKey/);
  for (const secret of [password, 'a wrong one', key, tokens.refreshToken, tokens.accessToken]) {
    t.false(log.includes(secret));
  }
});
