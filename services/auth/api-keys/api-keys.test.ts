import { createHash } from 'node:crypto';
import ava, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { isActive } from './api-keys.ts';
import { openStandings } from '../standings/standings.ts';
import { database } from '../database.ts';
import { openStore } from '../store.ts';

const test = ava.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() => hub.startService('auth', { SEED_USERS: '3' }));
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('auth'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);
const standings = openStandings(db);

const userId = (number: number) => `00000000-0000-4000-8000-00000000000${number}`;
const as = async (number: number) =>
  hub.client(AccountServiceService, auth.address, {
    token: await hub.userToken({ userId: userId(number), username: `user${number}` }),
  });

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  return (await t.throwsAsync(call, { instanceOf: HubError })) as HubError;
}

const inAnHour = () => new Date(Date.now() + 3_600_000);

test('isActive: until it is revoked or expires', (t) => {
  const now = new Date('2026-11-29T12:00:00Z');
  const key = { revokedAt: undefined, expiresAt: undefined };
  t.true(isActive(key, now));
  t.true(isActive({ ...key, expiresAt: new Date('2026-11-29T12:00:00.001Z') }, now));
  t.false(isActive({ ...key, expiresAt: now }, now));
  t.false(isActive({ ...key, revokedAt: now }, now));
});

test('createApiKey: shows the key once, of which only a hash is kept', async (t) => {
  const api = await as(1);
  const expiresAt = inAnHour();
  const made = await api.createApiKey({ name: '  my laptop ', expiresAt });
  t.regex(made.key, /^c4a_[\w-]{43}$/);
  t.like(made, { name: 'my laptop', keyPrefix: made.key.slice(0, 8), expiresAt });
  const [listed] = (await api.listApiKeys({})).apiKeys;
  const { key, ...shown } = made;
  t.deepEqual(listed, { ...shown, active: true, lastUsedAt: undefined });
  const [row] = await db.sql<{ hash: Buffer; text: string }>(
    'select key_hash as hash, api_keys::text as text from api_keys where id = $1',
    [made.id],
  );
  t.deepEqual(row!.hash, createHash('sha256').update(key).digest());
  t.false(row!.text.includes(key));
});

test('createApiKey: names what is wrong with a name and a date', async (t) => {
  const api = await as(1);
  const fields = async (name: string, expiresAt: Date | undefined) =>
    (await refusal(t, api.createApiKey({ name, expiresAt }))).fields.map(({ field }) => field);
  t.deepEqual(await fields('  ', undefined), ['name']);
  t.deepEqual(await fields('x'.repeat(101), new Date(Date.now() - 1_000)), ['expires_at', 'name']);
});

test('listApiKeys: shows the own ones, newest first, revoked and expired ones too', async (t) => {
  const api = await as(2);
  const made = [];
  for (const name of ['one', 'two', 'three']) made.push(await api.createApiKey({ name, expiresAt: inAnHour() }));
  await api.revokeApiKey({ keyId: made[0]!.id });
  await db.sql(`update api_keys set expires_at = now() where id = $1`, [made[1]!.id]);
  const { apiKeys } = await api.listApiKeys({});
  t.deepEqual(
    apiKeys.map(({ name, active }) => [name, active]),
    [
      ['three', true],
      ['two', false],
      ['one', false],
    ],
  );
});

test('revokeApiKey: may be repeated, and tells all services once', async (t) => {
  const api = await as(3);
  const { id: keyId } = await api.createApiKey({ name: 'short-lived', expiresAt: undefined });
  const noted = async () => (await standings.changesAfter(0n)).filter(({ apiKeyId }) => apiKeyId === keyId);
  t.deepEqual(await noted(), []);
  t.deepEqual(await api.revokeApiKey({ keyId }), {});
  const [first] = await noted();
  t.truthy(first);
  t.deepEqual(await api.revokeApiKey({ keyId: keyId.toUpperCase() }), {});
  t.deepEqual(await noted(), [first!]);
});

test("revokeApiKey: an unknown key and somebody else's are not found, and stay", async (t) => {
  const mine = await as(1);
  const { id: keyId } = await mine.createApiKey({ name: 'mine', expiresAt: undefined });
  const other = await as(2);
  for (const id of [keyId, uuid()]) {
    const { kind, reason } = await refusal(t, other.revokeApiKey({ keyId: id }));
    t.is(`${kind} ${reason}`, 'NOT_FOUND API_KEY_NOT_FOUND');
  }
  t.true((await mine.listApiKeys({})).apiKeys.find(({ id }) => id === keyId)?.active);
  t.deepEqual((await refusal(t, mine.revokeApiKey({ keyId: 'nonsense' }))).fields[0]?.field, 'key_id');
});

test('createApiKey: a user has at most a hundred active ones, however many are made at once', async (t) => {
  const api = await as(3);
  const outcomes = await Promise.allSettled(
    Array.from({ length: 110 }, (_, number) => api.createApiKey({ name: `key ${number}`, expiresAt: undefined })),
  );
  t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 100);
  const reasons = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as HubError).reason] : []));
  t.deepEqual([...new Set(reasons)], ['TOO_MANY_API_KEYS']);
  const { apiKeys } = await api.listApiKeys({});
  await api.revokeApiKey({ keyId: apiKeys.find(({ active }) => active)!.id });
  t.regex((await api.createApiKey({ name: 'room again', expiresAt: undefined })).key, /^c4a_/);
});

test('addApiKey: of those that are not active any more the oldest go when there are too many', async (t) => {
  const key = (name: string, createdAt: Date) => ({
    id: uuid(),
    userId: userId(1),
    keyHash: createHash('sha256').update(uuid()).digest(),
    keyPrefix: 'c4a_test',
    name,
    createdAt,
    expiresAt: undefined,
  });
  await db.sql('delete from api_keys where user_id = $1', [userId(1)]);
  const limits = { active: 3, inactive: 2 };
  const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second));
  t.is(await store.addApiKey(key('active', at(0)), limits), 'added');
  for (let number = 1; number <= 5; number += 1) {
    const made = key(`revoked ${number}`, at(number));
    await store.addApiKey(made, limits);
    await store.revokeApiKey(userId(1), made.id, at(number));
  }
  const names = (await store.listApiKeys(userId(1))).map(({ name }) => name);
  t.deepEqual(names, ['revoked 5', 'revoked 4', 'revoked 3', 'active']);
});

test('sweeping: keys that were revoked or expired long ago are forgotten, a bounded batch at a time', async (t) => {
  await db.sql('delete from api_keys where user_id = $1', [userId(2)]);
  const api = await as(2);
  for (const column of ['revoked_at', 'expires_at', 'neither']) {
    const { id } = await api.createApiKey({ name: column, expiresAt: undefined });
    if (column !== 'neither') await db.sql(`update api_keys set ${column} = '2001-01-01' where id = $1`, [id]);
  }
  const until = new Date('2001-01-02');
  t.is(await store.sweepApiKeys(until, 1), 1);
  t.is(await store.sweepApiKeys(until, 10), 1);
  t.is(await store.sweepApiKeys(until, 10), 0);
  t.deepEqual(
    (await api.listApiKeys({})).apiKeys.map(({ name }) => name),
    ['neither'],
  );
});
