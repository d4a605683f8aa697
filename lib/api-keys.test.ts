import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../test/eventually.ts';
import { invalidKey, rememberApiKeys, type KeyOwner } from './api-keys.ts';
import { HubError } from './errors.ts';

const newKey = () => `c4a_${randomBytes(32).toString('base64url')}`;
const hashOf = (key: string) => createHash('sha256').update(key).digest('hex');
const owner = (expiresAt?: Date): KeyOwner => ({ keyId: 'k1', userId: 'u1', numId: 7n, username: 'ana', expiresAt });
const enter = () => () => {};

/** Keys with their owners, and which were looked up. */
function withKeys(owners: Record<string, KeyOwner>) {
  const byHash = new Map(Object.entries(owners).map(([key, found]) => [hashOf(key), found]));
  const asked: string[] = [];
  const away = { failure: undefined as HubError | undefined };
  const apiKeys = rememberApiKeys(async (keyHash) => {
    asked.push(keyHash.toString('hex'));
    await sleep(5);
    if (away.failure !== undefined) throw away.failure;
    const found = byHash.get(keyHash.toString('hex'));
    if (found === undefined) throw invalidKey();
    return found;
  });
  const identify = (key: string) => apiKeys.identify(key, enter);
  return { apiKeys, asked, away, byHash, identify };
}

const refused = (t: ExecutionContext, work: Promise<unknown>, expected: object = { reason: 'API_KEY_INVALID' }) =>
  t.throwsAsync(work, { instanceOf: HubError }).then((error) => t.like(error, expected));

test('identify: a key is looked up once for all who ask at once, and remembered', async (t) => {
  const key = newKey();
  const { identify, asked } = withKeys({ [key]: owner() });
  const expected = {
    kind: 'user',
    userId: 'u1',
    numId: 7n,
    username: 'ana',
    admin: false,
    credential: 'api key',
  } as const;
  t.deepEqual(await Promise.all([identify(key), identify(key), identify(key)]), [expected, expected, expected]);
  t.deepEqual(await identify(key), expected);
  t.deepEqual(asked, [hashOf(key)], 'by its hash');
});

test('identify: a key counts up to its expiry, though it is remembered', async (t) => {
  const key = newKey();
  const expiresAt = new Date(Date.now() + 150);
  const { identify, byHash } = withKeys({ [key]: owner(expiresAt) });
  await identify(key);
  byHash.clear();
  await sleep(expiresAt.getTime() - Date.now() + 2);
  await refused(t, identify(key));
});

test('identify: what is no key of ours is refused without a look', async (t) => {
  const { identify, asked } = withKeys({});
  for (const key of ['', 'c4a_', 'c4a_short', `c4r_${'a'.repeat(43)}`, `c4a_${'ä'.repeat(43)}`, newKey().repeat(9)]) {
    await refused(t, identify(key));
  }
  t.deepEqual(asked, []);
});

test('identify: a made-up key is looked up about once in a second, however often it comes', async (t) => {
  const { identify, asked } = withKeys({});
  const key = newKey();
  const until = Date.now() + 1_500;
  while (Date.now() < until) {
    await refused(t, identify(key));
    await sleep(1);
  }
  t.true(asked.length <= 3, `${asked.length} look-ups`);
});

test('identify: what refuses the look-up refuses the call, and each that was let in has left', async (t) => {
  const key = newKey();
  const { apiKeys, asked } = withKeys({ [key]: owner() });
  const full = new HubError('UNAVAILABLE', 'OVERLOADED', 'full');
  const closed = () => {
    throw full;
  };
  await refused(t, apiKeys.identify(key, closed), { reason: 'OVERLOADED' });
  t.deepEqual(asked, []);
  let within = 0;
  const counted = () => {
    within += 1;
    return () => (within -= 1);
  };
  await Promise.all([apiKeys.identify(key, counted), apiKeys.identify(key, counted)]);
  await refused(t, apiKeys.identify(newKey(), counted));
  t.is(within, 0);
  await t.notThrowsAsync(apiKeys.identify(key, closed), 'a known key needs no place');
});

test('identify: while keys can not be looked up, those that are known go on', async (t) => {
  const [key, other] = [newKey(), newKey()];
  const { identify, away } = withKeys({ [key]: owner(), [other]: owner() });
  await identify(key);
  away.failure = new HubError('UNAVAILABLE', 'SERVICE_UNAVAILABLE', 'away');
  t.like(await identify(key), { userId: 'u1' });
  await refused(t, identify(other), { kind: 'UNAVAILABLE' });
  away.failure = undefined;
  t.like(await identify(other), { userId: 'u1' }, 'nothing of that is remembered');
});

test('forget: a revoked key is refused at once, also by an answer that was on its way', async (t) => {
  const key = newKey();
  const { apiKeys, identify, byHash } = withKeys({ [key]: owner() });
  await identify(key);
  byHash.clear();
  apiKeys.forget(['k1']);
  await refused(t, identify(key));

  const late = withKeys({ [key]: owner() });
  const answer = late.identify(key);
  late.apiKeys.forget(['k1']);
  await refused(t, answer);
});

test.serial(
  'identify: keys in use are looked up again before they are forgotten, and nobody waits for that',
  async (t) => {
    t.timeout(60_000);
    const key = newKey();
    const { identify, asked, byHash } = withKeys({ [key]: owner() });
    await identify(key);
    const asOf = Date.now();
    const now = Date.now.bind(Date);
    // Half a minute later.
    Date.now = () => now() + 31_000;
    t.teardown(() => (Date.now = now));
    byHash.clear();
    t.like(await identify(key), { userId: 'u1' });
    await eventually(
      'look-ups',
      () => asked.length,
      (count) => count === 2,
    );
    await eventually(
      'the refusal',
      () =>
        identify(key).then(
          () => 'accepted',
          (error: HubError) => error.reason,
        ),
      (found) => found === 'API_KEY_INVALID',
    );
    t.true(Date.now() >= asOf + 30_000);
  },
);
