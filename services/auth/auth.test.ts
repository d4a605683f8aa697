import { setImmediate as tick } from 'node:timers/promises';
import ava, { type ExecutionContext } from 'ava';
import bcrypt from 'bcrypt';
import { v4 as uuid } from 'uuid';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { failuresCountFrom, tokenValidity, tooManyFailures } from './auth.ts';
import { openHandlers } from './handlers.ts';
import { settings } from './index.ts';
import { openPasswords, openTurns } from './passwords.ts';
import { database, openStore } from './store.ts';

/** One after another: hashing keeps every core busy, and what is done at once would wait for it. */
const test = ava.serial;

const cost = 10;
const limit = 4;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() =>
  hub.startService('auth', { SEED_USERS: '5', BCRYPT_COST: `${cost}`, LOGIN_FAILURES: `${limit}` }),
);
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const password = 'password123';
/** The RPCs for somebody at an address that no other test uses, unless it is given. */
const from = (address: string = uuid()) =>
  hub.client(AuthServiceService, auth.address, { metadata: { 'x-forwarded-for': address } });
const asService = async () =>
  hub.client(AuthServiceService, auth.address, { token: await hub.serviceToken('conversation', 'auth') });
const asUser = async (userId: string, username: string) =>
  hub.client(AuthServiceService, auth.address, { token: await hub.userToken({ userId, username }) });

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  const error = await t.throwsAsync(call, { instanceOf: HubError });
  return error as HubError;
}

/** The handlers themselves, over the real store, with a bcrypt that records what it is asked to compare with. */
function recordingHandlers({ failures = limit, atOnce = 2 } = {}) {
  const compared: string[] = [];
  const compare = async (data: string | Buffer, hash: string) => {
    compared.push(hash);
    return bcrypt.compare(data, hash);
  };
  const handlers = openHandlers({
    store,
    identities: hub.identities.auth!,
    passwords: openPasswords(cost, compare as typeof bcrypt.compare),
    turns: openTurns({ atOnce, waiting: 100 }),
    failureLimit: { failures, window: 60_000 },
    tokenLifetime: 3_600_000,
  });
  const login = (username: string, given: string, address: string) =>
    handlers.issueToken(
      { username, password: given },
      { caller: undefined, requestId: 'test', address, origin: undefined, signal: new AbortController().signal },
    );
  return { compared, login };
}

test('tokenValidity: what is left at the moment of issue is never less than what is said', (t) => {
  const onTheSecond = tokenValidity(new Date('2026-11-21T10:00:00.000Z'), 3_600_000);
  t.deepEqual(onTheSecond, { expiresIn: 3600, expiresAt: new Date('2026-11-21T11:00:00.000Z') });
  const between = tokenValidity(new Date('2026-11-21T10:00:00.001Z'), 3_600_000);
  t.deepEqual(between, { expiresIn: 3600, expiresAt: new Date('2026-11-21T11:00:01.000Z') });
  t.is(tokenValidity(new Date(), 3_600_999).expiresIn, 3600);
});

test('tooManyFailures: says the whole seconds until the failure that filled the limit counts no more', (t) => {
  const rule = { failures: 20, window: 900_000 };
  const filledAt = new Date('2026-11-21T10:00:00Z');
  t.is(tooManyFailures(filledAt, filledAt, rule).retryAfter, 900);
  t.is(tooManyFailures(filledAt, new Date('2026-11-21T10:14:59.500Z'), rule).retryAfter, 1);
  t.deepEqual(failuresCountFrom(new Date('2026-11-21T10:15:00Z'), rule), filledAt);
});

test('openTurns: so many work at once, the others follow in their order', async (t) => {
  const turns = openTurns({ atOnce: 2, waiting: 10 });
  const { signal } = new AbortController();
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const all = [0, 1, 2, 3].map((number) =>
    turns.take(signal, async () => {
      begun.push(number);
      await new Promise<void>((resolve) => ends.push(resolve));
    }),
  );
  await tick();
  t.deepEqual(begun, [0, 1]);
  ends[1]!();
  await tick();
  t.deepEqual(begun, [0, 1, 2]);
  ends[0]!();
  await tick();
  t.deepEqual(begun, [0, 1, 2, 3]);
  ends[2]!();
  ends[3]!();
  await Promise.all(all);
});

test('openTurns: one too many is refused, and one whose caller has gone leaves the queue', async (t) => {
  const turns = openTurns({ atOnce: 1, waiting: 1 });
  const { signal } = new AbortController();
  const gone = new AbortController();
  const first = Promise.withResolvers<void>();
  const working = turns.take(signal, () => first.promise);
  const waiting = turns.take(gone.signal, async () => t.fail('nobody waits for this any more'));
  const refused = await refusal(
    t,
    turns.take(signal, async () => {}),
  );
  t.is(refused.kind, 'UNAVAILABLE');
  t.is(refused.reason, 'TOO_BUSY');
  t.truthy(refused.retryAfter);
  gone.abort();
  t.is((await refusal(t, waiting)).kind, 'CANCELLED');
  const next = turns.take(signal, async () => 'my turn');
  first.resolve();
  await working;
  t.is(await next, 'my turn');
  t.is(
    (
      await refusal(
        t,
        turns.take(gone.signal, async () => {}),
      )
    ).kind,
    'CANCELLED',
  );
});

test('openTurns: work that fails gives its turn back', async (t) => {
  const turns = openTurns({ atOnce: 1, waiting: 0 });
  const { signal } = new AbortController();
  await t.throwsAsync(
    turns.take(signal, async () => {
      throw new Error('no luck');
    }),
    { message: 'no luck' },
  );
  t.is(await turns.take(signal, async () => 'free'), 'free');
});

test('settings: a token lives at least an hour, and a bad value is named', (t) => {
  const error = t.throws(() => loadConfig(settings, { TOKEN_TTL: '3599s', BCRYPT_COST: '9' }), {
    instanceOf: ConfigError,
  });
  t.regex(error?.message ?? '', /TOKEN_TTL must be at least 3600000ms/);
  t.regex(error?.message ?? '', /BCRYPT_COST must be from 10 to 15/);
});

test('issueToken: gives a token that every service believes, for as long as it says', async (t) => {
  const before = Date.now();
  const answer = await from().issueToken({ username: 'user1', password });
  t.is(answer.token, answer.accessToken);
  t.is(answer.tokenType, 'bearer');
  t.is(answer.username, 'user1');
  t.is(answer.expiresIn, 3600);
  const expiresAt = answer.expiresAt!.getTime();
  t.is(expiresAt % 1000, 0);
  t.true(expiresAt >= before + 3_600_000);
  t.deepEqual(await hub.identities.conversation!.verify(answer.token), {
    kind: 'user',
    userId: answer.userId,
    username: 'user1',
    admin: false,
  });
});

test('issueToken: keeps a session for each token', async (t) => {
  const first = await from().issueToken({ username: 'user2', password });
  const second = await from().issueToken({ username: 'user2', password });
  const sessions = await db.sql<{ expires_at: Date }>(
    'select expires_at from auth_sessions where user_id = $1 order by created_at',
    [first.userId],
  );
  t.deepEqual(
    sessions.map((session) => session.expires_at),
    [first.expiresAt, second.expiresAt],
  );
});

test("issueToken: an administrator gets an administrator's token", async (t) => {
  await db.sql(
    `insert into users (id, username, password_hash, is_admin, created_at) values ($1, 'boss', $2, true, now())`,
    [uuid(), await bcrypt.hash('secret', cost)],
  );
  const { token } = await from().issueToken({ username: 'boss', password: 'secret' });
  const identity = await hub.identities.auth!.verify(token);
  t.true(identity.kind === 'user' && identity.admin);
});

test('issueToken: a wrong password and an unknown user get the same answer', async (t) => {
  const client = from();
  const wrong = await refusal(t, client.issueToken({ username: 'user1', password: 'password124' }));
  const unknown = await refusal(t, client.issueToken({ username: 'nobody', password: 'password124' }));
  t.is(wrong.kind, 'UNAUTHENTICATED');
  t.is(wrong.reason, 'INVALID_CREDENTIALS');
  const told = ({ kind, reason, message, fields, retryAfter }: HubError) => ({
    kind,
    reason,
    message,
    fields,
    retryAfter,
  });
  t.deepEqual(told(unknown), told(wrong));
});

test('issueToken: an unknown user costs one comparison with a hash of the same cost, like a wrong password', async (t) => {
  const { compared, login } = recordingHandlers();
  const address = uuid();
  await refusal(t, login('user1', 'wrong', address));
  await refusal(t, login('nobody', 'wrong', address));
  t.deepEqual(
    compared.map((hash) => bcrypt.getRounds(hash)),
    [cost, cost],
  );
});

test('issueToken: names every wrong field, and refuses a password that bcrypt would cut', async (t) => {
  const missing = await refusal(t, from().issueToken({ username: '', password: '' }));
  t.is(missing.kind, 'INVALID_ARGUMENT');
  t.deepEqual(
    missing.fields.map(({ field }) => field),
    ['username', 'password'],
  );
  const long = await refusal(t, from().issueToken({ username: 'user1', password: 'é'.repeat(36) + '!' }));
  t.deepEqual(
    long.fields.map(({ field }) => field),
    ['password'],
  );
});

for (const [who, username] of [
  ['a user', 'user3'],
  ['a username that nobody has', 'no-such-user'],
] as const) {
  test(`issueToken: after too many failures ${who} has to wait, from that address alone`, async (t) => {
    const address = uuid();
    const client = from(address);
    for (let failure = 0; failure < limit; failure += 1) {
      const refused = await refusal(t, client.issueToken({ username, password: 'wrong' }));
      t.is(refused.reason, 'INVALID_CREDENTIALS');
    }
    const refused = await refusal(t, client.issueToken({ username, password }));
    t.is(refused.kind, 'RESOURCE_EXHAUSTED');
    t.is(refused.reason, 'TOO_MANY_LOGIN_FAILURES');
    t.true(refused.retryAfter! > 0 && refused.retryAfter! <= 900);

    t.is((await client.issueToken({ username: 'user4', password })).username, 'user4');
    if (username === 'user3') t.is((await from().issueToken({ username, password })).username, username);
  });
}

test('issueToken: who has to wait costs no hashing, and his tries make him wait no longer', async (t) => {
  const { compared, login } = recordingHandlers({ failures: 2 });
  const address = uuid();
  await refusal(t, login('user1', 'wrong', address));
  await refusal(t, login('user1', 'wrong', address));
  for (let again = 0; again < 3; again += 1) {
    t.is((await refusal(t, login('user1', password, address))).reason, 'TOO_MANY_LOGIN_FAILURES');
  }
  t.is(compared.length, 2);
  const [row] = await db.sql('select count(*)::int as failures from login_failures where address = $1', [address]);
  t.deepEqual(row, { failures: 2 });
});

test('issueToken: a success forgives the failures before it', async (t) => {
  const client = from();
  for (let round = 0; round < 2; round += 1) {
    for (let failure = 1; failure < limit; failure += 1) {
      await refusal(t, client.issueToken({ username: 'user4', password: 'wrong' }));
    }
    t.is((await client.issueToken({ username: 'user4', password })).username, 'user4');
  }
});

test('issueToken: failures older than the window count no more', async (t) => {
  const { login } = recordingHandlers();
  const address = uuid();
  const pair = { username: 'user1', address };
  const old = Date.now() - 60_000;
  for (let failure = 0; failure < limit; failure += 1) await store.recordFailure(pair, new Date(old - failure));
  t.is((await login('user1', password, address)).username, 'user1');
});

test('issueToken: guesses made at once get hardly past the limit', async (t) => {
  const { compared, login } = recordingHandlers({ atOnce: 2 });
  const address = uuid();
  const refusals = await Promise.all(Array.from({ length: 12 }, async () => refusal(t, login('user5', 'no', address))));
  const guessed = refusals.filter((error) => error.reason === 'INVALID_CREDENTIALS').length;
  t.true(guessed >= limit && guessed <= limit + 1, `${guessed} guesses`);
  t.is(compared.length, guessed);
});

test('issueToken: many right logins at once all succeed', async (t) => {
  const client = from();
  const answers = await Promise.all(
    Array.from({ length: 12 }, async () => client.issueToken({ username: 'user5', password })),
  );
  t.is(new Set(answers.map((answer) => answer.token)).size, 12);
});

test('getCurrentUser: tells whose token it is', async (t) => {
  const { userId, token } = await from().issueToken({ username: 'user1', password });
  const client = hub.client(AuthServiceService, auth.address, { token });
  const { user } = await client.getCurrentUser({});
  t.like(user, { userId, username: 'user1' });
  t.true(user!.createdAt instanceof Date);
});

test('getCurrentUser: the token of a user who is gone is not valid', async (t) => {
  const client = await asUser(uuid(), 'gone');
  const refused = await refusal(t, client.getCurrentUser({}));
  t.is(refused.kind, 'UNAUTHENTICATED');
  t.is(refused.reason, 'TOKEN_INVALID');
});

test('listUsers: pages by username, with the total', async (t) => {
  const client = await asUser(uuid(), 'somebody');
  const all = await client.listUsers({ username: '', limit: undefined, offset: 0 });
  t.is(all.limit, 50);
  const names = all.users.map(({ username }) => username);
  t.deepEqual(names, names.toSorted());
  const seeded = ['user1', 'user2', 'user3', 'user4', 'user5'];
  t.true(seeded.every((name) => names.includes(name)));
  const one = await client.listUsers({ username: 'user3', limit: 1, offset: 0 });
  t.is(one.total, 1n);
  t.deepEqual(
    one.users.map(({ username }) => username),
    ['user3'],
  );
  const beyond = await client.listUsers({ username: 'user3', limit: 7, offset: 5 });
  t.deepEqual(beyond, { users: [], total: 1n, limit: 7, offset: 5 });
});

test('listUsers: limit and offset outside their bounds are named', async (t) => {
  const client = await asUser(uuid(), 'somebody');
  const refused = await refusal(t, client.listUsers({ username: '', limit: 101, offset: -1 }));
  t.deepEqual(
    refused.fields.map(({ field }) => field),
    ['limit', 'offset'],
  );
});

test("lookupUsers: finds by id in any case and by name, each once, and leaves out who doesn't exist", async (t) => {
  const client = await asService();
  const named = await client.lookupUsers({ userIds: [], usernames: ['user1', 'nobody', 'user\0', 'USER1'] });
  t.deepEqual(
    named.users.map(({ username }) => username),
    ['user1'],
  );
  const { userId } = named.users[0]!;
  const both = await client.lookupUsers({ userIds: [userId.toUpperCase(), uuid()], usernames: ['user1', 'user2'] });
  t.deepEqual(both.users.map(({ username }) => username).toSorted(), ['user1', 'user2']);
  t.deepEqual((await client.lookupUsers({ userIds: [], usernames: [] })).users, []);
});

test('seeding: adds whom it misses and leaves the others as they are', async (t) => {
  const client = await asService();
  const userIds = async (usernames: string[]) =>
    new Map(
      (await client.lookupUsers({ userIds: [], usernames })).users.map(({ userId, username }) => [username, userId]),
    );
  const before = await userIds(['user1', 'user5']);
  t.is(before.get('user5'), '00000000-0000-4000-8000-000000000005');
  const second = await hub.startService('auth', { SEED_USERS: '1200' });
  const after = await userIds(['user1', 'user5', 'user1200', 'user1201']);
  t.is(after.get('user1'), before.get('user1'));
  t.is(after.get('user5'), before.get('user5'));
  t.deepEqual([...after.keys()].toSorted(), ['user1', 'user1200', 'user5']);
  const late = hub.client(AuthServiceService, second.address, { metadata: { 'x-forwarded-for': uuid() } });
  t.is((await late.issueToken({ username: 'user1200', password })).username, 'user1200');
});

test('ADMIN_USERS: those that it names are administrators from the start on, and nobody else', async (t) => {
  const isAdmin = async (username: string) => (await store.findCredentials(username))?.isAdmin;
  const named = await hub.startService('auth', { SEED_USERS: '6', ADMIN_USERS: 'user6, nobody,user2' });
  t.deepEqual(await Promise.all(['user1', 'user2', 'user6'].map(isAdmin)), [false, true, true]);
  const client = hub.client(AuthServiceService, named.address, { metadata: { 'x-forwarded-for': uuid() } });
  const { token } = await client.issueToken({ username: 'user6', password });
  t.like(await hub.identities.message!.verify(token), { kind: 'user', username: 'user6', admin: true });
  const warnings = named.lines.filter((line) => line.includes('ADMIN_USERS names users that do not exist'));
  t.deepEqual(
    warnings.map((line) => (JSON.parse(line) as { usernames: string[] }).usernames),
    [['nobody']],
  );

  await hub.startService('auth');
  t.deepEqual(await Promise.all(['user1', 'user2', 'user6'].map(isAdmin)), [false, false, false]);
});

test('sweeping: ends with what has expired, a bounded batch at a time', async (t) => {
  const [user] = await store.lookupUsers([], ['user3']);
  const long = new Date('2001-01-01T00:00:00Z');
  const ids = Array.from({ length: 5 }, () => uuid());
  const pair = { username: 'user3', address: uuid() };
  for (const id of ids) await store.openSession({ id, userId: user!.id, createdAt: long, expiresAt: long }, pair);
  const valid = { id: uuid(), userId: user!.id, createdAt: new Date(), expiresAt: new Date(Date.now() + 60_000) };
  await store.openSession(valid, pair);
  for (let failure = 0; failure < 5; failure += 1) await store.recordFailure(pair, long);

  t.is(await store.sweepSessions(long, 3), 3);
  t.is(await store.sweepSessions(long, 3), 2);
  t.is(await store.sweepFailures(long, 3), 3);
  t.is(await store.sweepFailures(long, 3), 2);
  const left = await db.sql('select id from auth_sessions where id = any($1::uuid[])', [[...ids, valid.id]]);
  t.deepEqual(left, [{ id: valid.id }]);
});

test('the log shows no password and no token', async (t) => {
  const { token } = await from().issueToken({ username: 'user1', password });
  await refusal(t, from().issueToken({ username: 'user1', password: 'a wrong one' }));
  const log = auth.lines.join('');
  t.regex(log, /IssueToken/);
  t.false(log.includes(password) || log.includes('a wrong one') || log.includes(token));
});

test('users that everybody knows are made on a laptop only', async (t) => {
  const refused = () => hub.startService('auth', { SEED_USERS: '1', LAPTOP_MODE: 'false' });
  await t.throwsAsync(refused, { name: 'ConfigError', message: /SEED_USERS .* LAPTOP_MODE=true/ });
  await t.notThrowsAsync(hub.startService('auth', { SEED_USERS: '0', LAPTOP_MODE: 'false' }));
});
