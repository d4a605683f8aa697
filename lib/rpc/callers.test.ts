import { Metadata } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../../test/eventually.ts';
import { invalidKey } from '../api-keys.ts';
import type { HubError } from '../errors.ts';
import { invalidToken, type Identities, type Identity } from '../identity.ts';
import { openLog } from '../log.ts';
import type { Changes } from '../standings.ts';
import { openCallers, type AccessRule } from './callers.ts';

const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const key = `c4a_${'k'.repeat(43)}`;
const user = { kind: 'user', userId: 'u1', numId: 7n, username: 'ana', admin: false, credential: 'token' } as const;
const byToken: Record<string, Identity> = {
  user,
  admin: { ...user, admin: true },
  other: { ...user, userId: 'u2' },
  router: { kind: 'service', name: 'router' },
};
const identities: Identities = {
  name: 'message',
  serviceToken: async () => '',
  userToken: async () => '',
  verify: async (token) => {
    if (byToken[token] === undefined) throw invalidToken();
    return byToken[token];
  },
};

/** Callers, whose standings the test changes. */
function open(t: ExecutionContext) {
  let news = Promise.withResolvers<Changes>();
  let cursor = 1n;
  const callers = openCallers({
    identities,
    log,
    authority: {
      exchange: async () => ({ keyId: 'k1', userId: 'u1', numId: 7n, username: 'ana', expiresAt: undefined }),
      changesAfter: async (after, signal) => {
        if (after === 0n) return { cursor, more: false, standings: [], revokedKeyIds: [] };
        const gone = new Promise<never>((_, reject) =>
          signal.addEventListener('abort', () => reject(new Error('gone'))),
        );
        return Promise.race([news.promise, gone]);
      },
      close: () => {},
    },
  });
  t.teardown(() => callers.stop());
  const identify = (metadata: Record<string, string>, rule: Partial<AccessRule> = {}) => {
    const sent = new Metadata();
    for (const [name, value] of Object.entries(metadata)) sent.set(name, value);
    const usual: AccessRule = { access: 'USER', callers: new Set(), bearerOnly: false };
    return callers.identify(sent, { ...usual, ...rule }, () => () => {});
  };
  const outcome = (metadata: Record<string, string>, rule?: Partial<AccessRule>) =>
    identify(metadata, rule).then(
      (caller) => (caller?.kind === 'user' ? caller.credential : (caller?.kind ?? 'nobody')),
      (error: HubError) => error.reason,
    );
  const change = (changes: Partial<Changes>) => {
    cursor += 1n;
    news.resolve({ cursor, more: false, standings: [], revokedKeyIds: [], ...changes });
    news = Promise.withResolvers();
  };
  return { identify, outcome, change };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const withKey = { 'x-api-key': key };

test('identify: a token or an API key, and of both the token', async (t) => {
  const { identify, outcome } = open(t);
  t.is(await outcome({}), 'TOKEN_MISSING');
  t.is(await outcome(bearer('user')), 'token');
  t.is(await outcome(withKey), 'api key');
  t.is(await outcome({ ...withKey, ...bearer('user') }), 'token');
  t.is(await outcome({ ...withKey, ...bearer('nonsense') }), 'TOKEN_INVALID', 'the key makes up for nothing');
  t.is(await outcome({ ...withKey, authorization: 'Basic dXNlcjpwYXNz' }), 'TOKEN_INVALID');
  t.is(await outcome({ 'x-api-key': 'nonsense' }), 'API_KEY_INVALID');
  t.like(await identify(withKey), { userId: 'u1', admin: false });
});

test('identify: an API key is not enough where its rule says so, and for nobody but users', async (t) => {
  const { outcome } = open(t);
  t.is(await outcome(withKey, { access: 'PUBLIC' }), 'nobody');
  t.is(await outcome(withKey, { bearerOnly: true }), 'TOKEN_MISSING');
  t.is(await outcome(bearer('user'), { bearerOnly: true }), 'token');
  t.is(await outcome(withKey, { access: 'ADMIN' }), 'TOKEN_MISSING');
  t.is(await outcome(withKey, { access: 'SERVICE', callers: new Set(['router']) }), 'TOKEN_MISSING');
  t.is(await outcome(bearer('router'), { access: 'SERVICE', callers: new Set(['router']) }), 'service');
  t.is(await outcome(bearer('router'), { access: 'SERVICE', callers: new Set(['file']) }), 'ACCESS_DENIED');
  t.is(await outcome(bearer('router')), 'ACCESS_DENIED');
});

test('identify: what is stored of a user counts, and where nothing has changed what the token says', async (t) => {
  const { identify, outcome, change } = open(t);
  const admin = { access: 'ADMIN' } as const;
  t.is(await outcome(bearer('user'), admin), 'ACCESS_DENIED');
  t.is(await outcome(bearer('admin'), admin), 'token');
  const becomes = (token: string, expected: string, rule?: Partial<AccessRule>) =>
    eventually(
      token,
      () => outcome(bearer(token), rule),
      (found) => found === expected,
    );

  change({ standings: [{ userId: 'u1', admin: true, disabled: false }] });
  await becomes('user', 'token', admin);
  t.like(await identify(bearer('user')), { admin: true });
  t.like(await identify(withKey), { admin: false }, 'with a key nobody is an administrator');
  change({ standings: [{ userId: 'u1', admin: false, disabled: false }] });
  await becomes('admin', 'ACCESS_DENIED', admin);
  change({ standings: [{ userId: 'u1', admin: true, disabled: true }] });
  await becomes('admin', 'TOKEN_INVALID');
  t.is(await outcome(bearer('user'), admin), 'TOKEN_INVALID');
  t.is(await outcome(withKey), 'API_KEY_INVALID');
  t.is(await outcome(bearer('other')), 'token', 'others are who they were');
  t.deepEqual(byToken.user, user, 'what is remembered of a token stays as it is');
  change({ standings: [{ userId: 'u1', admin: false, disabled: false }] });
  await becomes('user', 'token');
  t.is(await outcome(withKey), 'api key');
  change({ revokedKeyIds: ['k1'] });
  await eventually(
    'the key',
    () => outcome(withKey),
    (found) => found === invalidKey().reason,
  );
});
