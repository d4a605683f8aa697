import { availableParallelism } from 'node:os';
import { setImmediate as tick } from 'node:timers/promises';
import ava, { type ExecutionContext } from 'ava';
import bcrypt from 'bcrypt';
import { decodeJwt } from 'jose';
import { v4 as uuid } from 'uuid';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { failuresCountFrom, tokenValidity, tooManyFailures } from './auth.ts';
import { openHandlers } from './handlers.ts';
import { settings } from './index.ts';
import { openLogins } from './logins/logins.ts';
import { openPasswords } from './logins/passwords.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';
import { openTokens } from './sessions/tokens.ts';
import { openTurns } from './logins/turns.ts';

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
function recordingHandlers({
  failures = limit,
  perAddress = 1_000,
  atOnce = 2,
  cost: own = cost,
  highest = cost,
} = {}) {
  const compared: string[] = [];
  const hashing = {
    hash: bcrypt.hash,
    compare(password: string, hash: string) {
      compared.push(hash);
      return bcrypt.compare(password, hash);
    },
  };
  const logins = openLogins({
    store,
    passwords: openPasswords({ cost: own, highest, hashing }),
    turns: openTurns({ atOnce, waiting: 100 }),
    failureLimit: { failures, perAddress, window: 60_000 },
  });
  const lifetimes = { access: 60_000, refresh: 60_000 };
  const tokens = openTokens({ store, identities: hub.identities.auth!, lifetimes });
  const handlers = openHandlers({ store, logins, tokens, tokenLifetime: 3_600_000 });
  const login = (username: string, given: string, address: string) =>
    handlers.issueToken(
      { username, password: given },
      {
        caller: undefined,
        requestId: 'test',
        address,
        origin: undefined,
        signal: new AbortController().signal,
        credentials: {},
      },
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

test('tooManyFailures: says the whole seconds until the failures that filled the limits count no more', (t) => {
  const rule = { failures: 20, perAddress: 500, window: 900_000 };
  const filledAt = new Date('2026-11-21T10:00:00Z');
  const later = new Date('2026-11-21T10:00:10Z');
  const told = (ofPair: Date | undefined, ofAddress: Date | undefined, now: Date) => {
    const error = tooManyFailures({ ofPair, ofAddress }, now, rule);
    return error && [error.retryAfter, error.message.replace(/:.*/, '')];
  };
  const [name, address] = ['for this user', 'from this address'].map((whose) => `Too many failed logins ${whose}`);
  t.is(told(undefined, undefined, later), undefined);
  t.deepEqual(told(filledAt, undefined, filledAt), [900, name]);
  t.deepEqual(told(filledAt, undefined, new Date('2026-11-21T10:14:59.500Z')), [1, name]);
  t.deepEqual(told(undefined, filledAt, filledAt), [900, address]);
  t.deepEqual(told(filledAt, later, later), [900, address]);
  t.deepEqual(told(later, filledAt, later), [900, address]);
  t.deepEqual(failuresCountFrom(new Date('2026-11-21T10:15:00Z'), rule), filledAt);
});

/** Turns, and what each client does with them. */
function recordingTurns(limits: { atOnce: number; waiting: number }) {
  const turns = openTurns(limits);
  const begun: string[] = [];
  const ends: (() => void)[] = [];
  const { signal } = new AbortController();
  const take = (client: string, name = client) =>
    turns.take(client, client, signal, async () => {
      begun.push(name);
      await new Promise<void>((resolve) => ends.push(resolve));
      return name;
    });
  /** Ends what has run longest, until nothing runs. */
  const endAll = async () => {
    for (let end = ends.shift(); end !== undefined; end = ends.shift()) {
      end();
      await tick();
    }
  };
  return { turns, begun, take, endAll };
}

test('openTurns: so many work at once, the others of a client follow in their order', async (t) => {
  const { begun, take, endAll } = recordingTurns({ atOnce: 2, waiting: 10 });
  const all = ['0', '1', '2', '3'].map((name) => take('a', name));
  await tick();
  t.deepEqual(begun, ['0', '1']);
  await endAll();
  t.deepEqual(begun, ['0', '1', '2', '3']);
  await Promise.all(all);
});

test('openTurns: who comes waits for one of each other client, however many those have queued', async (t) => {
  const { begun, take, endAll } = recordingTurns({ atOnce: 1, waiting: 100 });
  const all = [
    ...Array.from({ length: 20 }, (_, index) => take('greedy', `greedy ${index}`)),
    ...Array.from({ length: 10 }, (_, index) => take('another', `another ${index}`)),
    take('honest'),
  ];
  await tick();
  await endAll();
  await Promise.all(all);
  t.deepEqual(begun.slice(0, 6), ['greedy 0', 'greedy 1', 'another 0', 'honest', 'greedy 2', 'another 1']);
  t.is(begun.length, all.length);
});

test('openTurns: who has succeeded before waits for every other stranger at most, until it fails', async (t) => {
  const { turns, begun, take, endAll } = recordingTurns({ atOnce: 1, waiting: 100 });
  const { signal } = new AbortController();
  await turns.take('friend', 'friend', signal, async () => {});
  const guessing = Array.from({ length: 20 }, (_, index) => `guesser ${index}`);
  const all = ['busy', ...guessing, 'friend'].map((client) => take(client));
  await tick();
  await endAll();
  await Promise.all(all);
  t.deepEqual(begun.slice(0, 4), ['busy', 'friend', 'guesser 0', 'guesser 1']);
  t.is(begun.length, all.length);

  begun.length = 0;
  const failing = turns.take('friend', 'friend', signal, () => Promise.reject(new Error('wrong')));
  await t.throwsAsync(failing, { message: 'wrong' });
  const again = [take('busy'), take('stranger'), take('another'), take('friend'), take('guesser 0'), take('guesser 1')];
  await tick();
  await endAll();
  await Promise.all(again);
  t.deepEqual(begun, ['busy', 'guesser 0', 'stranger', 'guesser 1', 'another', 'friend']);
});

test('openTurns: strangers fill only places of their own', async (t) => {
  const { turns, take, endAll } = recordingTurns({ atOnce: 1, waiting: 3 });
  const { signal } = new AbortController();
  await turns.take('friend', 'friend', signal, async () => {});
  const guesses = Array.from({ length: 8 }, (_, index) => take(`guesser ${index}`));
  const refused = (await Promise.allSettled(guesses.slice(4))).map(({ status }) => status);
  t.deepEqual(new Set(refused), new Set(['rejected']));
  const friend = take('friend');
  await tick();
  await endAll();
  t.is(await friend, 'friend');
  await Promise.all(guesses.slice(0, 4));
});

test('openTurns: of the places a client has no more than a fair share, and the next one finds one', async (t) => {
  const { begun, take, endAll } = recordingTurns({ atOnce: 1, waiting: 19 });
  const greedy = await Promise.allSettled(
    Array.from({ length: 30 }, async () => {
      const turn = take('greedy');
      // Those that are refused are so at once.
      return await Promise.race([turn, tick('waits')]);
    }),
  );
  t.is(greedy.filter(({ status }) => status === 'fulfilled').length, 10);
  const refused = greedy.find((each) => each.status === 'rejected');
  t.like(refused?.reason, { kind: 'UNAVAILABLE', reason: 'TOO_BUSY' });
  t.truthy((refused?.reason as HubError | undefined)?.retryAfter);
  const honest = take('honest');
  await endAll();
  t.is(await honest, 'honest');
  t.is(begun[2], 'honest');
});

test('openTurns: one whose caller has gone leaves the queue and its place', async (t) => {
  const turns = openTurns({ atOnce: 1, waiting: 1 });
  const { signal } = new AbortController();
  const gone = new AbortController();
  const first = Promise.withResolvers<void>();
  const working = turns.take('a', 'a', signal, () => first.promise);
  const waiting = turns.take('b', 'b', gone.signal, async () => t.fail('nobody waits for this any more'));
  const refused = turns.take('c', 'c', signal, async () => {});
  t.is((await refusal(t, refused)).reason, 'TOO_BUSY');
  gone.abort();
  t.is((await refusal(t, waiting)).kind, 'CANCELLED');
  const next = turns.take('c', 'c', signal, async () => 'my turn');
  first.resolve();
  await working;
  t.is(await next, 'my turn');
  const late = turns.take('b', 'b', gone.signal, async () => {});
  t.is((await refusal(t, late)).kind, 'CANCELLED');
});

test('openTurns: work that fails gives its turn back', async (t) => {
  const turns = openTurns({ atOnce: 1, waiting: 1 });
  const { signal } = new AbortController();
  const failing = turns.take('a', 'a', signal, async () => {
    throw new Error('no luck');
  });
  await t.throwsAsync(failing, { message: 'no luck' });
  t.is(await turns.take('a', 'a', signal, async () => 'free'), 'free');
});

test('settings: a token lives at least an hour, and a bad value is named', (t) => {
  const error = t.throws(() => loadConfig(settings, { TOKEN_TTL: '3599s', BCRYPT_COST: '9' }), {
    instanceOf: ConfigError,
  });
  t.regex(error?.message ?? '', /TOKEN_TTL must be at least 1h/);
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
  // Whole seconds: the one that has begun counts in favour of whoever logs in.
  t.true(expiresAt >= before + 3_600_000 && expiresAt <= Date.now() + 3_601_000, `${expiresAt - before} ms`);
  t.is(decodeJwt(answer.token).exp! * 1_000, expiresAt);
  t.deepEqual(await hub.identities.conversation!.verify(answer.token), {
    kind: 'user',
    userId: answer.userId,
    numId: 1n,
    username: 'user1',
    admin: false,
    credential: 'token',
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
    `insert into users (id, username, password_hash, role, created_at) values ($1, 'boss', $2, 'admin', now())`,
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

/** Rounds of bcrypt that comparing with hashes takes, as a multiple of those of cost 4. */
const workOf = (hashes: readonly string[]) => hashes.reduce((sum, hash) => sum + 2 ** (bcrypt.getRounds(hash) - 4), 0);

/** Makes a user whose hash has that cost. */
async function userWithCost(own: number): Promise<{ id: string; username: string; passwordHash: string }> {
  const user = { id: uuid(), username: uuid(), passwordHash: await bcrypt.hash(password, own) };
  await db.sql('insert into users (id, username, password_hash, created_at) values ($1, $2, $3, now())', [
    user.id,
    user.username,
    user.passwordHash,
  ]);
  return user;
}

test('issueToken: a wrong password costs the same work for everybody: also nobody, and users with older hashes', async (t) => {
  const users = [...(await Promise.all([4, 6, 8].map(userWithCost))).map(({ username }) => username), 'nobody'];
  for (const { cost: own, highest } of [
    { cost: 8, highest: 8 },
    { cost: 6, highest: 8 },
    { cost: 9, highest: 8 },
  ]) {
    const { compared, login } = recordingHandlers({ cost: own, highest });
    for (const username of users) {
      compared.length = 0;
      t.is((await refusal(t, login(username, 'wrong', uuid()))).reason, 'INVALID_CREDENTIALS');
      t.is(workOf(compared), 2 ** (Math.max(own, highest) - 4), `${username}, cost ${own}`);
    }
  }
  t.true(((await store.highestCost()) ?? 0) >= cost);
});

test('openPasswords: a higher cost than was known is learned from the first hash that has it', async (t) => {
  const { compared, login } = recordingHandlers({ cost: 4, highest: 4 });
  const { username } = await userWithCost(6);
  await refusal(t, login(username, 'wrong', uuid()));
  compared.length = 0;
  await refusal(t, login('nobody', 'wrong', uuid()));
  t.is(workOf(compared), 4);
});

test('issueToken: a hash of a lower or a higher cost is made anew at the next login, and no other', async (t) => {
  const { login } = recordingHandlers({ cost: 6 });
  for (const own of [4, 6, 8]) {
    const { username, passwordHash } = await userWithCost(own);
    await refusal(t, login(username, 'wrong', uuid()));
    t.is((await store.findCredentials(username))?.passwordHash, passwordHash);
    await login(username, password, uuid());
    const renewed = (await store.findCredentials(username))!.passwordHash;
    t.is(bcrypt.getRounds(renewed), 6);
    t.is(renewed === passwordHash, own === 6);
    await login(username, password, uuid());
    t.is((await store.findCredentials(username))?.passwordHash, renewed);
  }
});

test('replaceHash: a password that was changed meanwhile stays as it is', async (t) => {
  const { id, username, passwordHash } = await userWithCost(4);
  await db.sql('update users set password_hash = $2 where id = $1', [id, 'changed']);
  await store.replaceHash(id, passwordHash, 'renewed');
  t.is((await store.findCredentials(username))?.passwordHash, 'changed');
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
  const cut = await refusal(t, from().issueToken({ username: 'user1\0', password: `${password}\0` }));
  t.deepEqual(
    cut.fields.map(({ field }) => field),
    ['username', 'password'],
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

test('issueToken: after too many failures for any names an address has to wait, and no other', async (t) => {
  const { compared, login } = recordingHandlers({ perAddress: 6 });
  const address = '2001:db8:0:100::1';
  for (let failure = 0; failure < 6; failure += 1) {
    t.is((await refusal(t, login(`invented ${failure}`, 'wrong', address))).reason, 'INVALID_CREDENTIALS');
    // Right ones forgive no more than what failed for their own name.
    if (failure < 5) await login('user2', password, address);
  }
  compared.length = 0;
  for (const same of [address, '2001:db8:0:1ff:1:2:3:4']) {
    const refused = await refusal(t, login('user2', password, same));
    t.is(refused.reason, 'TOO_MANY_LOGIN_FAILURES');
    t.regex(refused.message, /from this address/);
  }
  t.deepEqual(compared, [], 'who is refused costs no hashing');
  t.is((await login('user2', password, '2001:db8:0:200::1')).username, 'user2');
});

test('issueToken: without a limit for addresses there is only that for names', async (t) => {
  const unlimited = await hub.startService('auth', { BCRYPT_COST: '10', LOGIN_FAILURES_PER_ADDRESS: '0' });
  const metadata = { 'x-forwarded-for': '192.0.2.10' };
  for (let failure = 0; failure < 600; failure += 1) {
    await store.recordFailure({ username: `invented ${failure}`, address: '192.0.2.10' }, new Date());
  }
  const client = hub.client(AuthServiceService, unlimited.address, { metadata });
  t.is((await client.issueToken({ username: 'user2', password })).username, 'user2');
  t.is((await refusal(t, from('192.0.2.10').issueToken({ username: 'user2', password }))).kind, 'RESOURCE_EXHAUSTED');
});

test('issueToken: the limits of an IPv6 address are those of its network', async (t) => {
  for (let failure = 0; failure < limit; failure += 1) {
    await refusal(t, from(`2001:db8:1:2${failure}::1`).issueToken({ username: 'user3', password: 'wrong' }));
  }
  const login = (address: string) => from(address).issueToken({ username: 'user3', password });
  t.is((await refusal(t, login('2001:db8:1:ff::1'))).reason, 'TOO_MANY_LOGIN_FAILURES');
  t.is((await login('2001:db8:1:100::1')).username, 'user3');
  const rows = await db.sql(`select distinct address from login_failures where address like '2001:db8:1:%'`);
  t.deepEqual(rows, [{ address: '2001:db8:1::/56' }]);
});

test('issueToken: one address with many invented names refuses nobody else, and holds nobody else up', async (t) => {
  const attacker = from('198.51.100.66');
  const failures = async () => {
    const [row] = await db.sql<{ count: number }>(
      `select count(*)::int as count from login_failures where address = '198.51.100.66'`,
    );
    return row!.count;
  };
  const tries = Array.from({ length: 60 }, async (_, index) =>
    refusal(t, attacker.issueToken({ username: `invented ${index}`, password: 'wrong' })),
  );
  await eventually('its logins are hashed', failures, (count) => count > 0);
  const before = await failures();
  t.is((await from('203.0.113.9').issueToken({ username: 'user1', password })).username, 'user1');
  const between = (await failures()) - before;
  const reasons = (await Promise.all(tries)).map(({ reason }) => reason);
  const hashed = reasons.filter((reason) => reason === 'INVALID_CREDENTIALS').length;
  t.is(reasons.length - hashed, reasons.filter((reason) => reason === 'TOO_BUSY').length);
  // In the order in which they came all of these would have been first.
  t.true(hashed - before > 20, `${hashed} of its logins were taken`);
  // One of the next round, and as many as have a turn at once before, beside and after that.
  const atOnce = Math.min(availableParallelism(), 16) + 2;
  t.true(between <= 1 + 3 * atOnce, `${between} of them came first`);
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

test('ADMIN_USERS: those that it names are administrators from the start on, and nobody is one no more', async (t) => {
  const isAdmin = async (username: string) => (await store.findCredentials(username))?.isAdmin;
  const named = await hub.startService('auth', { SEED_USERS: '6', ADMIN_USERS: 'User6, nobody,user2' });
  t.deepEqual(await Promise.all(['user1', 'user2', 'user6'].map(isAdmin)), [false, true, true]);
  const client = hub.client(AuthServiceService, named.address, { metadata: { 'x-forwarded-for': uuid() } });
  const { token } = await client.issueToken({ username: 'user6', password });
  t.like(await hub.identities.message!.verify(token), { kind: 'user', username: 'user6', admin: true });
  const warnings = named.lines.filter((line) => line.includes('ADMIN_USERS names users that do not exist'));
  t.deepEqual(
    warnings.map((line) => (JSON.parse(line) as { usernames: string[] }).usernames),
    [['nobody']],
  );

  // What runs on would sweep away what the next test looks for.
  await named.stop();
  await (await hub.startService('auth')).stop();
  t.deepEqual(await Promise.all(['user1', 'user2', 'user6'].map(isAdmin)), [false, true, true]);
});

test('sweeping: ends with what has expired, a bounded batch at a time', async (t) => {
  // In a database where no service sweeps by itself.
  const apart = await openHarness();
  t.teardown(() => apart.stop());
  const db = openDatabase(database, { url: apart.databaseUrl('auth'), poolSize: 1, name: 'test' });
  t.teardown(() => db.close());
  const store = openStore(db);
  const long = new Date('2001-01-01T00:00:00Z');
  await store.seedUsers(1, '', long);
  const [user] = await store.lookupUsers([], ['user1']);
  const ids = Array.from({ length: 5 }, () => uuid());
  const pair = { username: 'user1', address: uuid() };
  const { passwordHash } = (await store.findCredentials('user1'))!;
  for (const id of ids) {
    await store.openSession({ id, userId: user!.id, createdAt: long, expiresAt: long }, passwordHash, pair);
  }
  const valid = { id: uuid(), userId: user!.id, createdAt: new Date(), expiresAt: new Date(Date.now() + 60_000) };
  await store.openSession(valid, passwordHash, pair);
  for (let failure = 0; failure < 5; failure += 1) await store.recordFailure(pair, long);

  t.is(await store.sweepSessions(long, 3), 3);
  t.is(await store.sweepSessions(long, 3), 2);
  t.is(await store.sweepFailures(long, 3), 3);
  t.is(await store.sweepFailures(long, 3), 2);
  t.deepEqual(await db.sql('select id from auth_sessions'), [{ id: valid.id }]);
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
  await t.notThrowsAsync(hub.startService('auth', { SEED_USERS: '0', LAPTOP_MODE: 'false', MAIL_DIR: '/nowhere' }));
});
