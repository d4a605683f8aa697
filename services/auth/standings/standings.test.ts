import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService, Role, UserAdminServiceService, UserStatus } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { IdentityServiceService } from '#gen/chat4all/identity/v1/identity.ts';
import { openDatabase, type SqlTransaction } from '#lib/database.ts';
import type { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness, type Harness, type StartedProcess } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { openKeyExchange } from '../api-keys/key-exchange.ts';
import { hashOf, newToken } from '../sessions/opaque-tokens.ts';
import { openStandingFeed } from './standing-feed.ts';
import { recordStandingChange, openStandings } from './standings.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

/** One after another: what is promised within a time is not to wait for the other tests. */
const test = ava.serial;

/** Two processes of auth, and conversation, which asks them. */
async function openReplicas() {
  const hub = await openHarness();
  try {
    const env = { SEED_USERS: '1' };
    const auths = [await hub.startService('auth', env), await hub.startService('auth', env)] as const;
    const address = auths.map((each) => each.address).join(',');
    const conversation = await hub.startService('conversation', { AUTH_ADDRESS: address });
    return { hub, auths, conversation, stop: () => hub.stop() };
  } catch (error) {
    await hub.stop();
    throw error;
  }
}

const replicas = opened(openReplicas, (each) => each.stop());
const db = opened(
  () => openDatabase(database, { url: replicas.hub.databaseUrl('auth'), poolSize: 12, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);
const standings = openStandings(db);
const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const never = new AbortController().signal;

const everything = { limit: undefined, offset: 0 };

/** What has to act everywhere does so within this many milliseconds. */
const limit = 2_000;

async function addUser(): Promise<{ userId: string; numId: bigint; username: string }> {
  const user = { userId: uuid(), username: `u-${uuid()}` };
  const [added] = await db.sql<{ numId: bigint }>(
    `insert into users (id, username, password_hash, created_at) values ($1, $2, 'none', now())
     returning num_id as "numId"`,
    [user.userId, user.username],
  );
  return { ...user, ...added! };
}

async function addKey(userId: string, expiresAt?: Date): Promise<{ id: string; key: string }> {
  const key = newToken('apiKey');
  const id = uuid();
  const made = { id, userId, keyHash: hashOf(key), keyPrefix: key.slice(0, 8), name: 'a key', createdAt: new Date() };
  await store.addApiKey({ ...made, expiresAt }, { active: 100, inactive: 100 });
  return { id, key };
}

const outcomeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'OK',
    (error: HubError) => `${error.kind} ${error.reason}`,
  );

/** What a credential is worth at each process: a call that any user may make. */
function worth(t: ExecutionContext, credential: { token?: string; key?: string }, hub: Harness = replicas.hub) {
  const options = {
    ...(credential.token === undefined ? {} : { token: credential.token }),
    ...(credential.key === undefined ? {} : { metadata: { 'x-api-key': credential.key } }),
  };
  const [first, second] = replicas.auths.map(({ address }) => hub.client(AuthServiceService, address, options));
  const conversations = hub.client(ConversationServiceService, replicas.conversation.address, options);
  const ask = () =>
    Promise.all(
      [
        first!.listUsers({ username: '', limit: undefined, offset: 0 }),
        second!.listUsers({ username: '', limit: undefined, offset: 0 }),
        conversations.listConversations(everything),
      ].map(outcomeOf),
    );
  const becomes = async (expected: string) => {
    const began = Date.now();
    await eventually(
      `the worth of ${JSON.stringify(Object.keys(credential))}`,
      ask,
      (found) => found.every((each) => each === expected),
      limit,
    );
    t.log(`${expected} after ${Date.now() - began} ms`);
  };
  return { ask, becomes };
}

const admin = async () => {
  const token = await replicas.hub.userToken({ ...(await addUser()), admin: true });
  return replicas.hub.client(UserAdminServiceService, replicas.auths[0].address, { token });
};

test('recordStandingChange: the numbers grow in the order of the commits, also where transactions overlap', async (t) => {
  const users = await Promise.all(Array.from({ length: 10 }, addUser));
  const seen: bigint[] = [];
  let cursor = (await standings.changesAfter(0n)).at(-1)?.number ?? 0n;
  let isOver = false;
  const reading = (async () => {
    while (!isOver) {
      const last = isOver;
      for (const { number } of await standings.changesAfter(cursor)) seen.push((cursor = number));
      if (last) return;
    }
  })();
  await Promise.all(
    users.map(({ userId }) =>
      db.transaction(async (transaction) => {
        await sleep(Math.random() * 20);
        await recordStandingChange(transaction, { userId });
        await sleep(Math.random() * 20);
      }),
    ),
  );
  isOver = true;
  await reading;
  for (const { number } of await standings.changesAfter(cursor)) seen.push(number);
  const noted = await db.sql<{ number: bigint }>('select number from standings where subject_id = any($1::uuid[])', [
    users.map(({ userId }) => userId),
  ]);
  t.is(noted.length, users.length);
  for (const { number } of noted) t.true(seen.includes(number), 'whoever reads on from what was seen misses nothing');
});

test('recordStandingChange: needs a transaction, keeps one row for each subject, and nothing of what is rolled back', async (t) => {
  const { userId } = await addUser();
  await t.throwsAsync(recordStandingChange(db as SqlTransaction, { userId }));
  await t.throwsAsync(
    db.transaction(async (transaction) => {
      await recordStandingChange(transaction, { userId });
      throw new Error('rolled back');
    }),
    { message: 'rolled back' },
  );
  const rows = () => db.sql<{ number: bigint }>('select number from standings where subject_id = $1', [userId]);
  t.deepEqual(await rows(), []);
  for (let times = 0; times < 2; times += 1) await db.transaction((each) => recordStandingChange(each, { userId }));
  const [row, ...others] = await rows();
  t.deepEqual(others, []);
  const [change] = await standings.changesAfter(row!.number - 1n);
  t.like(change, { number: row!.number, user: { userId, admin: false, disabled: false } });
});

test('sweep: a change is kept until no token can be older, even where tokens live shorter since', async (t) => {
  const own = await openHarness();
  t.teardown(() => own.stop());
  const db = openDatabase(database, { url: own.databaseUrl('auth'), poolSize: 2, name: 'test' });
  t.teardown(() => db.close());
  const standings = openStandings(db);
  const [hour, minute] = [3_600_000, 60_000];
  const now = Date.now();
  const at = (milliseconds: number) => new Date(now + milliseconds);
  const left = async () => (await db.sql('select from standings')).length;
  const note = async (ago: number, isApiKey = false) => {
    await db.transaction((each) => recordStandingChange(each, isApiKey ? { apiKeyId: uuid() } : { userId: uuid() }));
    await db.sql('update standings set noted_at = $1 where number = (select max(number) from standings)', [at(-ago)]);
  };

  await standings.noteLifetimes([10 * hour, hour], at(-2 * hour));
  await standings.noteLifetimes([hour], at(0));
  await note(9 * hour);
  await note(11 * hour);
  await note(minute, true);
  await note(10 * minute, true);
  // A token of ten hours may have been issued just before what was noted nine hours ago.
  t.is(await standings.sweep(at(0), 100), 2);
  t.is(await left(), 2);
  // Of those that were issued up to two hours ago, the last one has ended by then.
  await note(0);
  t.is(await standings.sweep(at(7 * hour), 100), 2);
  t.is(await standings.sweep(at(8 * hour + 6 * minute), 100), 1);
  t.is(await left(), 0);
});

test('the feed: what this process changes is told at once', async (t) => {
  const changesAfter = standings.changesAfter;
  const feed = openStandingFeed({
    standings: { changesAfter },
    log,
    limits: { waiting: 5, maxWaitMs: 20_000, pause: 19_000 },
  });
  t.teardown(() => feed.stop());
  const { userId } = await addUser();
  const { cursor } = await feed.after(0n, never);
  const heard = (async () => {
    for (let page = await feed.after(cursor, never); ; page = await feed.after(page.cursor, never)) {
      if (page.standings.some((each) => each.userId === userId)) return;
    }
  })();
  await sleep(100);
  const began = Date.now();
  await db.transaction((each) => recordStandingChange(each, { userId }));
  await heard;
  t.true(Date.now() - began < 10_000, 'without waiting for the next look');
});

test('exchangeApiKey: tells the owner of a key that is accepted, and of no other', async (t) => {
  const user = await addUser();
  const token = await replicas.hub.serviceToken('message', 'auth');
  const identity = replicas.hub.client(IdentityServiceService, replicas.auths[0].address, { token });
  const exchange = (key: string) => identity.exchangeApiKey({ keyHash: hashOf(key) });
  const expiresAt = new Date(Date.now() + 600_000);
  const { id, key } = await addKey(user.userId, expiresAt);
  t.deepEqual(await exchange(key), { keyId: id, ...user, expiresAt });

  const [revoked, expired, disabled] = [
    await addKey(user.userId),
    await addKey(user.userId, new Date(Date.now() - 1)),
    await addKey((await addUser()).userId),
  ];
  await store.revokeApiKey(user.userId, revoked.id, new Date());
  await db.sql(`update users set status = 'disabled' where id = (select user_id from api_keys where id = $1)`, [
    disabled.id,
  ]);
  for (const { key } of [revoked, expired, disabled, { key: newToken('apiKey') }]) {
    t.is(await outcomeOf(exchange(key)), 'UNAUTHENTICATED API_KEY_INVALID');
  }
  const asUser = replicas.hub.client(IdentityServiceService, replicas.auths[0].address, {
    token: await replicas.hub.userToken(user),
  });
  t.is(await outcomeOf(asUser.exchangeApiKey({ keyHash: hashOf(key) })), 'PERMISSION_DENIED ACCESS_DENIED');
});

test('exchangeApiKey: those that come at once are one look at the database, and a use is written down', async (t) => {
  const user = await addUser();
  const { id, key } = await addKey(user.userId);
  const looks: number[] = [];
  const exchange = openKeyExchange({
    useApiKeys: (hashes, now) => {
      looks.push(hashes.length);
      return store.useApiKeys(hashes, now);
    },
  });
  const lastUse = async () =>
    (await db.sql<{ at: Date | null }>('select last_used_at as at from api_keys where id = $1', [id]))[0]?.at;
  t.is(await lastUse(), null);
  const before = Date.now();
  const outcomes = await Promise.all(
    Array.from({ length: 100 }, (_, index) => outcomeOf(exchange(index === 50 ? hashOf(key) : randomBytes(32)))),
  );
  t.deepEqual(
    outcomes.flatMap((outcome, index) => (outcome === 'OK' ? [index] : [])),
    [50],
  );
  t.true(looks.length <= 2, `${looks.length} looks`);
  const used = await lastUse();
  t.true(used !== null && used !== undefined && used.getTime() >= before - 1);
  await exchange(hashOf(key));
  t.deepEqual(await lastUse(), used, 'not written again at once');
  await store.useApiKeys([hashOf(key)], new Date(Date.now() + 60_000));
  t.true((await lastUse())!.getTime() > used!.getTime());
});

test('an API key is as good as a token, at each process; a bearer token wins where both are sent', async (t) => {
  const user = await addUser();
  const { key } = await addKey(user.userId);
  t.deepEqual(await worth(t, { key }).ask(), ['OK', 'OK', 'OK']);
  const token = await replicas.hub.userToken(user);
  t.deepEqual(await worth(t, { key: newToken('apiKey'), token }).ask(), ['OK', 'OK', 'OK']);
  const expired = await replicas.hub.userToken(user, new Date(Date.now() - 5_000));
  const refused = 'UNAUTHENTICATED TOKEN_EXPIRED';
  t.deepEqual(await worth(t, { key, token: expired }).ask(), [refused, refused, refused]);

  const { address } = replicas.auths[0];
  const withKey = { metadata: { 'x-api-key': key } };
  const accounts = replicas.hub.client(AccountServiceService, address, withKey);
  t.like(await accounts.getAccount({}), { account: { id: user.userId } });
  const missing = 'UNAUTHENTICATED TOKEN_MISSING';
  t.is(await outcomeOf(accounts.listApiKeys({})), missing);
  t.is(await outcomeOf(accounts.createApiKey({ name: 'another', expiresAt: undefined })), missing);
  const admins = replicas.hub.client(UserAdminServiceService, address, withKey);
  t.is(await outcomeOf(admins.listAccounts({ ...everything, role: Role.ROLE_UNSPECIFIED })), missing);
});

test('a revoked API key is refused at each process within two seconds', async (t) => {
  const user = await addUser();
  const { id, key } = await addKey(user.userId);
  const { ask, becomes } = worth(t, { key });
  t.deepEqual(await ask(), ['OK', 'OK', 'OK']);
  const token = await replicas.hub.userToken(user);
  const owner = replicas.hub.client(AccountServiceService, replicas.auths[1].address, { token });
  await owner.revokeApiKey({ keyId: id });
  await becomes('UNAUTHENTICATED API_KEY_INVALID');
  t.deepEqual(await worth(t, { token }).ask(), ['OK', 'OK', 'OK'], 'its user goes on with a token');
});

test('an API key is refused at each process once it has expired', async (t) => {
  const { userId } = await addUser();
  const expiresAt = new Date(Date.now() + 3_000);
  const { key } = await addKey(userId, expiresAt);
  const { ask } = worth(t, { key });
  t.deepEqual(await ask(), ['OK', 'OK', 'OK']);
  await sleep(expiresAt.getTime() - Date.now() + 5);
  const refused = 'UNAUTHENTICATED API_KEY_INVALID';
  t.deepEqual(await ask(), [refused, refused, refused]);
});

test("a disabled user's tokens and keys are refused at each process within two seconds, and accepted again", async (t) => {
  const user = await addUser();
  const token = await replicas.hub.userToken(user);
  const { key } = await addKey(user.userId);
  const [byToken, byKey] = [worth(t, { token }), worth(t, { key })];
  t.deepEqual(await byToken.ask(), ['OK', 'OK', 'OK']);
  t.deepEqual(await byKey.ask(), ['OK', 'OK', 'OK']);
  const users = await admin();
  await users.updateUser({ userId: user.userId, role: Role.ROLE_UNSPECIFIED, status: UserStatus.USER_STATUS_DISABLED });
  await Promise.all([
    byToken.becomes('UNAUTHENTICATED TOKEN_INVALID'),
    byKey.becomes('UNAUTHENTICATED API_KEY_INVALID'),
  ]);
  await users.updateUser({ userId: user.userId, role: Role.ROLE_UNSPECIFIED, status: UserStatus.USER_STATUS_ACTIVE });
  await Promise.all([byToken.becomes('OK'), byKey.becomes('OK')]);
});

test('what an administrator may do follows the stored role within two seconds, whatever the token says', async (t) => {
  const user = await addUser();
  const token = await replicas.hub.userToken(user);
  const lists = replicas.auths.map(({ address }) => {
    const users = replicas.hub.client(UserAdminServiceService, address, { token });
    return () => outcomeOf(users.listAccounts({ ...everything, role: Role.ROLE_UNSPECIFIED }));
  });
  const become = (expected: string) =>
    eventually(
      'what may be done',
      () => Promise.all(lists.map((list) => list())),
      (found) => found.every((each) => each === expected),
      limit,
    );
  await become('PERMISSION_DENIED ACCESS_DENIED');
  const users = await admin();
  await users.updateUser({ userId: user.userId, role: Role.ROLE_ADMIN, status: UserStatus.USER_STATUS_UNSPECIFIED });
  await become('OK');
  t.like(await replicas.hub.identities.auth!.verify(token), { admin: false }, 'the token is the same');
  await users.updateUser({ userId: user.userId, role: Role.ROLE_USER, status: UserStatus.USER_STATUS_UNSPECIFIED });
  await become('PERMISSION_DENIED ACCESS_DENIED');
});

test('a process that has just started knows what was changed before', async (t) => {
  const user = await addUser();
  const token = await replicas.hub.userToken(user);
  await (
    await admin()
  ).updateUser({ userId: user.userId, role: Role.ROLE_UNSPECIFIED, status: UserStatus.USER_STATUS_DISABLED });
  const late: StartedProcess = await replicas.hub.startService('conversation', {
    AUTH_ADDRESS: replicas.auths[1].address,
  });
  const conversations = replicas.hub.client(ConversationServiceService, late.address, { token });
  t.is(await outcomeOf(conversations.listConversations(everything)), 'UNAUTHENTICATED TOKEN_INVALID');
});

test('while auth is away, tokens and known keys go on, what was known of users counts, and unknown keys wait', async (t) => {
  t.timeout(60_000);
  const hub = await openHarness();
  t.teardown(() => hub.stop());
  const own = openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 2, name: 'test' });
  t.teardown(() => own.close());
  const store = openStore(own);
  const env = { SEED_USERS: '2', GRPC_DRAIN: '10s' };
  const auth = await hub.startService('auth', env);
  const conversation = await hub.startService('conversation');
  const [known, unknown] = [newToken('apiKey'), newToken('apiKey')];
  const userId = '00000000-0000-4000-8000-000000000001';
  for (const key of [known, unknown]) {
    await store.addApiKey(
      {
        id: uuid(),
        userId,
        keyHash: hashOf(key),
        keyPrefix: 'c4a_',
        name: 'k',
        createdAt: new Date(),
        expiresAt: undefined,
      },
      { active: 10, inactive: 10 },
    );
  }
  const disabled = { userId: '00000000-0000-4000-8000-000000000002', username: 'user2' };
  const asks = (options: object) => {
    const client = hub.client(ConversationServiceService, conversation.address, options);
    return () => outcomeOf(client.listConversations(everything));
  };
  const byToken = asks({ token: await hub.userToken({ userId, username: 'user1' }) });
  const byKnown = asks({ metadata: { 'x-api-key': known } });
  const byUnknown = asks({ metadata: { 'x-api-key': unknown } });
  const byDisabled = asks({ token: await hub.userToken(disabled) });
  const boss = { userId: uuid(), username: 'boss', admin: true };
  const users = hub.client(UserAdminServiceService, auth.address, { token: await hub.userToken(boss) });
  await users.updateUser({
    userId: disabled.userId,
    role: Role.ROLE_UNSPECIFIED,
    status: UserStatus.USER_STATUS_DISABLED,
  });
  t.deepEqual([await byToken(), await byKnown()], ['OK', 'OK']);
  await eventually('the standing', byDisabled, (found) => found === 'UNAUTHENTICATED TOKEN_INVALID', limit);

  const began = Date.now();
  await auth.stop();
  t.true(Date.now() - began < 8_000, 'who waits for standings keeps it from nothing');
  t.deepEqual([await byToken(), await byKnown()], ['OK', 'OK']);
  t.is(await byDisabled(), 'UNAUTHENTICATED TOKEN_INVALID');
  t.is(await byUnknown(), 'UNAVAILABLE SERVICE_UNAVAILABLE');
  t.deepEqual([await byToken(), await byKnown(), await byUnknown()], ['OK', 'OK', 'UNAVAILABLE SERVICE_UNAVAILABLE']);
  const told = () => conversation.lines.filter((line) => line.includes('The watch over standings'));
  await eventually('the line', told, (lines) => lines.length > 0);
  await sleep(3_000);
  t.is(told().length, 1, 'once');

  const port = String(auth.port);
  await hub.startService('auth', { ...env, GRPC_PORT: port });
  await eventually('the key', byUnknown, (found) => found === 'OK', 5_000);
  await eventually('the line', told, (lines) => lines.some((line) => line.includes('works again')));
});
