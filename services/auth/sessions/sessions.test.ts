import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { hashOf } from './opaque-tokens.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

/** One after another: hashing keeps every core busy, and what is done at once would wait for it. */
const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() => hub.startService('auth', { SEED_USERS: '3' }));
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);

const credentials = { email: 'user1@example.com', password: 'password123' };
const anybody = () => hub.client(AccountServiceService, auth.address, { metadata: { 'x-forwarded-for': uuid() } });
const withToken = (token: string) => hub.client(AccountServiceService, auth.address, { token });
const login = (given = credentials) => anybody().login(given);
const refresh = (refreshToken: string) => anybody().refreshTokens({ refreshToken });

async function reasonOf(t: ExecutionContext, call: Promise<unknown>): Promise<string> {
  const { kind, reason } = (await t.throwsAsync(call, { instanceOf: HubError })) as HubError;
  return `${kind} ${reason}`;
}

const reused = 'UNAUTHENTICATED REFRESH_TOKEN_REUSED';
const unknown = 'UNAUTHENTICATED UNAUTHORIZED';

test('refreshTokens: gives a new pair, of the same user', async (t) => {
  const first = await login();
  const second = await refresh(first.refreshToken);
  t.like(second, { tokenType: 'bearer', expiresIn: 1_800 });
  t.not(second.refreshToken, first.refreshToken);
  t.regex(second.refreshToken, /^c4r_[\w-]{43}$/);
  t.is((await withToken(second.accessToken).getAccount({})).account?.username, 'user1');
  const third = await refresh(second.refreshToken);
  t.is((await withToken(third.accessToken).getAccount({})).account?.username, 'user1');
});

test('refreshTokens: a token that is shown again ends its session, and no other', async (t) => {
  const [first, other] = [await login(), await login()];
  const second = await refresh(first.refreshToken);
  t.is(await reasonOf(t, refresh(first.refreshToken)), reused);
  t.is(await reasonOf(t, refresh(second.refreshToken)), reused, 'the one in its place is dead, too');
  t.is(await reasonOf(t, refresh(first.refreshToken)), reused, 'and it stays so');
  t.is((await refresh(other.refreshToken)).tokenType, 'bearer');
});

test('refreshTokens: of many at once with one token exactly one wins', async (t) => {
  for (let round = 0; round < 5; round += 1) {
    const { refreshToken } = await login();
    const outcomes = await Promise.allSettled(Array.from({ length: 6 }, () => refresh(refreshToken)));
    t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
    const reasons = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as HubError).reason] : []));
    t.deepEqual(new Set(reasons), new Set(['REFRESH_TOKEN_REUSED']));
  }
});

test('refreshTokens: one that is too old says so, and one that was never there is unknown', async (t) => {
  const { refreshToken } = await login();
  await db.sql(`update refresh_tokens set expires_at = now() - interval '1 second' where token_hash = $1`, [
    hashOf(refreshToken),
  ]);
  t.is(await reasonOf(t, refresh(refreshToken)), 'UNAUTHENTICATED TOKEN_EXPIRED');
  t.is(await reasonOf(t, refresh(refreshToken)), 'UNAUTHENTICATED TOKEN_EXPIRED');
  t.is(await reasonOf(t, refresh(`c4r_${'x'.repeat(43)}`)), unknown);
  t.is(await reasonOf(t, refresh('nonsense\0')), unknown);
});

test('one kind of token never passes for the other', async (t) => {
  const { accessToken, refreshToken } = await login();
  const { token } = await hub
    .client(AuthServiceService, auth.address)
    .issueToken({ username: 'user1', password: credentials.password });
  for (const access of [accessToken, token]) t.is(await reasonOf(t, refresh(access)), unknown);
  t.is(await reasonOf(t, withToken(refreshToken).getAccount({})), 'UNAUTHENTICATED TOKEN_INVALID');
  const { key } = await withToken(accessToken).createApiKey({ name: 'a key', expiresAt: undefined });
  t.is(await reasonOf(t, refresh(key)), unknown);
  t.is((await refresh(refreshToken)).tokenType, 'bearer', 'what was tried in the wrong place is still good');
});

test('refreshTokens: what is stored of a token is no token', async (t) => {
  const { refreshToken } = await login();
  const [row] = await db.sql<{ hash: Buffer }>('select token_hash as hash from refresh_tokens where token_hash = $1', [
    hashOf(refreshToken),
  ]);
  t.is(row!.hash.length, 32);
  t.is(await reasonOf(t, refresh(row!.hash.toString('hex'))), unknown);
});

test('refreshTokens: a new access token says what the user is now', async (t) => {
  const { refreshToken } = await login({ ...credentials, email: 'user3@example.com' });
  await db.sql(`update users set role = 'admin' where username = 'user3'`);
  const { accessToken } = await refresh(refreshToken);
  t.like(await hub.identities.message!.verify(accessToken), { username: 'user3', admin: true });
});

test('logout: ends the session, as often as it is said', async (t) => {
  const [first, other] = [await login(), await login()];
  const second = await refresh(first.refreshToken);
  const api = withToken(second.accessToken);
  t.deepEqual(await api.logout({ refreshToken: second.refreshToken }), {});
  t.deepEqual(await api.logout({ refreshToken: second.refreshToken }), {});
  t.deepEqual(await api.logout({ refreshToken: first.refreshToken }), {}, 'any token of the session');
  t.is(await reasonOf(t, refresh(second.refreshToken)), reused);
  t.is((await refresh(other.refreshToken)).tokenType, 'bearer', 'another session of the same user goes on');
});

test("logout: somebody else's session stays alive, and an unknown token is refused", async (t) => {
  const mine = await login();
  const theirs = await login({ ...credentials, email: 'user2@example.com' });
  const api = withToken(mine.accessToken);
  t.is(await reasonOf(t, api.logout({ refreshToken: theirs.refreshToken })), unknown);
  t.is(await reasonOf(t, api.logout({ refreshToken: `c4r_${'x'.repeat(43)}` })), unknown);
  t.is((await refresh(theirs.refreshToken)).tokenType, 'bearer');
});

test('sweeping: a session with refresh tokens is known for longer than it lives, and one without is not', async (t) => {
  const { refreshToken } = await login();
  const week = 7 * 86_400_000;
  const later = (milliseconds: number) => new Date(Date.now() + milliseconds);
  const known = async () =>
    (await db.sql('select from refresh_tokens where token_hash = $1', [hashOf(refreshToken)])).length;
  await store.sweepSessions(later(week + 60_000), 1_000);
  t.is(await known(), 1);
  await store.sweepSessions(later(2 * week + 60_000), 1_000);
  t.is(await known(), 0);
});

test('sweeping: of a session that goes on old refresh tokens are forgotten', async (t) => {
  const first = await login();
  const second = await refresh(first.refreshToken);
  await db.sql(`update refresh_tokens set expires_at = '2001-01-01' where token_hash = $1`, [
    hashOf(first.refreshToken),
  ]);
  t.is(await store.sweepRefreshTokens(new Date('2001-01-02'), 10), 1);
  t.is(await reasonOf(t, refresh(first.refreshToken)), unknown);
  t.is((await refresh(second.refreshToken)).tokenType, 'bearer');
});
