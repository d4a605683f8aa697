import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openEnveloped } from '../enveloped.ts';
import { eventually } from '../eventually.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';
import { openRest } from '../rest.ts';

const mesh = opened(
  () =>
    startMesh({
      bus: 'embedded',
      services: ['auth', 'conversation', 'events'],
      env: { SEED_USERS: '3', LOGIN_FAILURES: '3', TRUST_PROXY: '1', WEBHOOK_ALLOWED_HOSTS: '127.0.0.1' },
    }),
  (mesh) => mesh.stop(),
);

interface Account {
  id: string;
  username: string;
  name: string;
  email: string;
  role: string;
  created_at: string;
}

interface Tokens {
  access_token: string;
  refresh_token: string;
  token_type: string;
  expires_in: number;
}

interface ApiKey {
  id: string;
  name: string;
  key: string;
  key_prefix: string;
  active: boolean;
  created_at: string;
  expires_at?: string;
  last_used_at?: string;
}

const password = 'Engine-1843';
const byName = (one: string, other: string) => (one < other ? -1 : 1);
const anonymous = () => openEnveloped(mesh.url);
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

async function newcomer() {
  const wanted = { name: 'Ada Lovelace', email: `${uuid()}@example.com`, password };
  const account = await anonymous().ok<Account>(201, 'POST', '/auth/register', wanted);
  const tokens = await anonymous().ok<Tokens>(200, 'POST', '/auth/login', { email: wanted.email, password });
  return { account, tokens, api: openEnveloped(mesh.url, { token: tokens.access_token }) };
}

const admin = async () => {
  const login = { email: 'admin@example.com', password: 'Admin-12345' };
  const { access_token: token } = await anonymous().ok<Tokens>(200, 'POST', '/auth/login', login);
  return openEnveloped(mesh.url, { token });
};

test('who registers has an account, and uses the hub with the same token', async (t) => {
  const { account, tokens, api } = await newcomer();
  t.deepEqual(Object.keys(account), ['id', 'username', 'name', 'email', 'role', 'created_at']);
  t.like(account, { name: 'Ada Lovelace', role: 'user' });
  t.regex(account.created_at, rfc3339);
  t.like(tokens, { token_type: 'bearer', expires_in: 1_800 });
  t.deepEqual(await api.ok<Account>(200, 'GET', '/users/me'), account);

  const hub = openRest(mesh.url, tokens.access_token);
  t.like(await hub.get('/v1/users/me'), { user_id: account.id, username: account.username });
  const members = [account.id, 'USER2'];
  t.like(await hub.post('/v1/conversations', { type: 'private', members }), { type: 'private' });

  const { token } = await openRest(mesh.url).post<{ token: string }>('/auth/token', {
    username: account.email.toUpperCase(),
    password,
  });
  t.deepEqual(await openEnveloped(mesh.url, { token }).ok(200, 'GET', '/users/me'), account);
});

test('register: all wrong fields at once, each with its rule', async (t) => {
  const error = await anonymous().refused(400, 'POST', '/auth/register', {
    name: ' ',
    email: 'nobody',
    password: 'weakling',
    username: '!',
  });
  t.is(error.code, 'VALIDATION_ERROR');
  t.deepEqual(error.details.map(({ field, rule }) => `${field} ${rule}`).toSorted(byName), [
    'email email',
    'name required',
    'password digit',
    'password special',
    'password uppercase',
    'username pattern',
  ]);
  t.is((await anonymous().refused(400, 'POST', '/auth/register', {})).details.length, 3);
});

test('register: what is taken is 409', async (t) => {
  const { account } = await newcomer();
  const wanted = { name: 'Other', email: account.email.toUpperCase(), password };
  t.is((await anonymous().refused(409, 'POST', '/auth/register', wanted)).code, 'EMAIL_TAKEN');
  const renamed = { ...wanted, email: `${uuid()}@example.com`, username: account.username.toUpperCase() };
  t.is((await anonymous().refused(409, 'POST', '/auth/register', renamed)).code, 'USERNAME_TAKEN');
});

test('login: what is wrong is 401, and too often 429 with the time to wait', async (t) => {
  const { account } = await newcomer();
  const headers = { 'x-forwarded-for': '192.0.2.7' };
  const attempt = () =>
    anonymous().call('POST', '/auth/login', { json: { email: account.email, password: 'wrong' }, headers });
  for (let failure = 0; failure < 3; failure += 1) {
    const { status, error } = await attempt();
    t.is(`${status} ${error?.code}`, '401 INVALID_CREDENTIALS');
  }
  const { status, error } = await attempt();
  t.is(`${status} ${error?.code}`, '429 RATE_LIMITED');
});

test('refresh and logout: a token is good once, and its session ends with it', async (t) => {
  const { tokens } = await newcomer();
  const refresh = (refresh_token: string) =>
    anonymous().call<Tokens>('POST', '/auth/refresh', { json: { refresh_token } });
  const second = await refresh(tokens.refresh_token);
  t.is(second.status, 200);
  t.deepEqual(Object.keys(second.data), ['access_token', 'refresh_token', 'token_type', 'expires_in']);
  t.is((await refresh(tokens.refresh_token)).error?.code, 'REFRESH_TOKEN_REUSED');
  t.is((await refresh(second.data.refresh_token)).error?.code, 'REFRESH_TOKEN_REUSED');
  t.is((await refresh(second.data.access_token)).error?.code, 'UNAUTHORIZED');
  t.is((await refresh('nonsense')).error?.code, 'UNAUTHORIZED');
  t.is((await anonymous().refused(400, 'POST', '/auth/refresh', {})).details[0]?.field, 'refresh_token');

  const other = await newcomer();
  const out = { refresh_token: other.tokens.refresh_token };
  t.is((await anonymous().refused(401, 'POST', '/auth/logout', out)).code, 'UNAUTHORIZED');
  const stranger = await newcomer();
  t.is((await stranger.api.refused(401, 'POST', '/auth/logout', out)).code, 'UNAUTHORIZED');
  t.deepEqual(await other.api.ok(200, 'POST', '/auth/logout', out), {});
  t.deepEqual(await other.api.ok(200, 'POST', '/auth/logout', out), {});
  t.is((await refresh(out.refresh_token)).error?.code, 'REFRESH_TOKEN_REUSED');
  const inHeader = openEnveloped(mesh.url, { token: stranger.tokens.refresh_token });
  t.is((await inHeader.refused(401, 'GET', '/users/me')).code, 'UNAUTHORIZED');
});

test('password reset: the link in the mail works once', async (t) => {
  const { account, tokens } = await newcomer();
  t.deepEqual(await anonymous().ok(200, 'POST', '/auth/password-reset', { email: account.email }), {});
  t.deepEqual(await anonymous().ok(200, 'POST', '/auth/password-reset', { email: `${uuid()}@example.com` }), {});
  const token = await eventually(
    'the mail is there',
    async () => {
      const files = (await readdir(mesh.mailDir)).filter((name) => name.endsWith('.eml'));
      const texts = await Promise.all(files.map((name) => readFile(path.join(mesh.mailDir, name), 'utf8')));
      const mail = texts.find((text) => text.includes(account.email));
      return mail === undefined ? undefined : /c4p_[\w-]{28}/.exec(mail)?.[0];
    },
    (found) => found !== undefined,
  );
  const reset = `/auth/password-reset/${token}`;
  const weak = await anonymous().refused(400, 'POST', reset, { new_password: 'weak' });
  t.is(weak.code, 'VALIDATION_ERROR');
  t.deepEqual([...new Set(weak.details.map(({ field }) => field))], ['new_password']);
  t.deepEqual(await anonymous().ok(200, 'POST', reset, { new_password: 'Engine-1844' }), {});
  const again = await anonymous().refused(400, 'POST', reset, { new_password: 'Engine-1845' });
  t.is(again.code, 'INVALID_RESET_TOKEN');
  const refresh = { refresh_token: tokens.refresh_token };
  t.is((await anonymous().refused(401, 'POST', '/auth/refresh', refresh)).code, 'REFRESH_TOKEN_REUSED');
  await anonymous().refused(401, 'POST', '/auth/login', { email: account.email, password });
  await anonymous().ok(200, 'POST', '/auth/login', { email: account.email, password: 'Engine-1844' });
});

test('the own account: the name is changed, and nothing else', async (t) => {
  const { account, api } = await newcomer();
  t.deepEqual(await api.ok(200, 'PATCH', '/users/me', { name: '  Countess ' }), { ...account, name: 'Countess' });
  for (const field of ['email', 'role', 'nonsense']) {
    const error = await api.refused(400, 'PATCH', '/users/me', { name: 'Other', [field]: 'x' });
    t.deepEqual(
      error.details.map((each) => each.field),
      [field],
    );
  }
  t.is((await api.ok<Account>(200, 'GET', '/users/me')).name, 'Countess');
  t.is((await api.refused(400, 'PATCH', '/users/me', { name: '' })).details[0]?.field, 'name');
  t.is((await anonymous().refused(401, 'GET', '/users/me')).code, 'UNAUTHORIZED');
});

test('API keys: made, listed, revoked', async (t) => {
  const { api } = await newcomer();
  t.deepEqual(await api.ok(200, 'GET', '/users/me/api-keys'), []);
  const first = await api.ok<ApiKey>(201, 'POST', '/users/me/api-keys', { name: ' my laptop ' });
  t.deepEqual(Object.keys(first), ['id', 'name', 'key', 'key_prefix', 'created_at']);
  t.like(first, { name: 'my laptop', key_prefix: first.key.slice(0, 8) });
  const expires_at = '2099-01-01T00:00:00Z';
  const second = await api.ok<ApiKey>(201, 'POST', '/users/me/api-keys', { name: 'other', expires_at });
  t.is(second.expires_at, expires_at);
  const keys = await api.ok<ApiKey[]>(200, 'GET', '/users/me/api-keys');
  t.deepEqual(keys, [
    {
      id: second.id,
      name: 'other',
      key_prefix: second.key_prefix,
      active: true,
      created_at: second.created_at,
      expires_at,
    },
    { id: first.id, name: 'my laptop', key_prefix: first.key_prefix, active: true, created_at: first.created_at },
  ] as never);
  for (const bad of [
    { name: ' ' },
    { name: 'x', expires_at: '2001-01-01T00:00:00Z' },
    { name: 'x', expires_at: 'x' },
  ]) {
    t.is((await api.refused(400, 'POST', '/users/me/api-keys', bad)).details.length, 1);
  }
  t.deepEqual(await api.ok(200, 'DELETE', `/users/me/api-keys/${first.id}`), {});
  t.deepEqual(await api.ok(200, 'DELETE', `/users/me/api-keys/${first.id}`), {});
  const stranger = await newcomer();
  for (const id of [second.id, uuid()]) {
    t.is((await stranger.api.refused(404, 'DELETE', `/users/me/api-keys/${id}`)).code, 'NOT_FOUND');
  }
  t.is((await api.refused(400, 'DELETE', '/users/me/api-keys/nonsense')).details[0]?.field, 'key_id');
  const left = await api.ok<ApiKey[]>(200, 'GET', '/users/me/api-keys');
  t.deepEqual(
    left.map(({ active }) => active),
    [true, false],
  );
});

test('API keys: work for the account and the hub, and not for what needs a bearer token', async (t) => {
  const { account, tokens, api } = await newcomer();
  const { id, key } = await api.ok<ApiKey>(201, 'POST', '/users/me/api-keys', { name: 'a program' });
  const program = openEnveloped(mesh.url, { apiKey: key });
  t.deepEqual(await program.ok(200, 'GET', '/users/me'), account);
  const hub = await fetch(`${mesh.url}/v1/users/me`, { headers: { 'x-api-key': key } });
  t.like(await hub.json(), { user_id: account.id });
  for (const [method, target, json] of [
    ['GET', '/users/me/api-keys'],
    ['POST', '/users/me/api-keys', { name: 'another' }],
    ['DELETE', `/users/me/api-keys/${id}`],
    ['POST', '/auth/logout', { refresh_token: tokens.refresh_token }],
    ['GET', '/admin/users'],
  ] as const) {
    t.is((await program.refused(401, method, target, json)).code, 'UNAUTHORIZED', target);
  }
  const other = await newcomer();
  const both = openEnveloped(mesh.url, { token: other.tokens.access_token, apiKey: key });
  t.is((await both.ok<Account>(200, 'GET', '/users/me')).id, other.account.id, 'a bearer token wins');
  const wrong = openEnveloped(mesh.url, { token: 'nonsense', apiKey: key });
  await wrong.refused(401, 'GET', '/users/me');
  await openEnveloped(mesh.url, { apiKey: `c4a_${'x'.repeat(43)}` }).refused(401, 'GET', '/users/me');
  const [listed] = await api.ok<ApiKey[]>(200, 'GET', '/users/me/api-keys');
  t.regex(listed!.last_used_at!, rfc3339);

  await api.ok(200, 'DELETE', `/users/me/api-keys/${id}`);
  await within2s('the key is refused', () => program.call('GET', '/users/me'), 401);
});

/** What administrators and owners change acts within 2 s. */
function within2s(what: string, ask: () => Promise<{ status: number }>, status: number) {
  return eventually(what, ask, (found) => found.status === status, 2_000);
}

test.serial('who is disabled or demoted is so at once, whatever was issued before', async (t) => {
  const boss = await admin();
  const { account, tokens, api } = await newcomer();
  const target = `/admin/users/${account.id}`;
  const { key } = await api.ok<ApiKey>(201, 'POST', '/users/me/api-keys', { name: 'a program' });
  const program = openEnveloped(mesh.url, { apiKey: key });
  await program.ok(200, 'GET', '/users/me');

  await boss.ok(200, 'PATCH', target, { role: 'admin' });
  await within2s('the old token may administrate', () => api.call('GET', '/admin/users'), 200);
  await boss.ok(200, 'PATCH', target, { role: 'user' });
  await within2s('the token may not any more', () => api.call('GET', '/admin/users'), 403);

  await boss.ok(200, 'PATCH', target, { status: 'disabled' });
  await within2s('the token is refused', () => api.call('GET', '/users/me'), 401);
  await within2s('the key is refused', () => program.call('GET', '/users/me'), 401);
  const refresh = { refresh_token: tokens.refresh_token };
  t.is((await anonymous().refused(401, 'POST', '/auth/refresh', refresh)).code, 'UNAUTHORIZED');
  await boss.ok(200, 'PATCH', target, { status: 'active' });
  await within2s('the key works again', () => program.call('GET', '/users/me'), 200);
});

test.serial('of who is disabled the streams end, and the webhooks are paused', async (t) => {
  const boss = await admin();
  const { account, tokens } = await newcomer();
  const { client } = openRest(mesh.url, tokens.access_token);
  const url = 'http://127.0.0.1:9/hook';
  const { webhook_id } = (await client.webhooks.createWebhook({ url })).webhook!;
  const statusOf = async (token: string) =>
    (await openRest(mesh.url, token).client.webhooks.getWebhook({ webhook_id }))!.status;
  t.is(await statusOf(tokens.access_token), 'active');
  const { ticket } = await client.events.createTicket();
  const told: string[] = [];
  const streams = [client.events.streamEvents({}), client.events.streamEventsByTicket({ ticket })].map(
    async (stream) => {
      for await (const { hello } of stream) if (hello !== undefined) told.push('hello');
    },
  );
  const ended = Promise.allSettled(streams);
  await eventually(
    'both have begun',
    () => told.length,
    (count) => count === 2,
  );

  await boss.ok(200, 'PATCH', `/admin/users/${account.id}`, { status: 'disabled' });
  // Nothing else ends them: neither is due to end, and the token is good for much longer.
  for (const outcome of await ended) t.like(outcome, { status: 'rejected', reason: { code: 'TOKEN_INVALID' } });
  await boss.ok(200, 'PATCH', `/admin/users/${account.id}`, { status: 'active' });
  const login = { email: account.email, password };
  const again = await anonymous().ok<Tokens>(200, 'POST', '/auth/login', login);
  await eventually(
    'the webhook is paused',
    () => statusOf(again.access_token),
    (status) => status === 'paused',
  );
});

test.serial('administration: users are listed, changed, and what was changed is taken down', async (t) => {
  const { account, api } = await newcomer();
  const boss = await admin();
  for (const [method, target] of [
    ['GET', '/admin/users'],
    ['PATCH', `/admin/users/${account.id}`],
    ['GET', '/admin/audit'],
  ] as const) {
    const json = method === 'PATCH' ? { role: 'admin' } : undefined;
    t.is((await api.refused(403, method, target, json)).code, 'FORBIDDEN');
    t.is((await anonymous().refused(401, method, target, json)).code, 'UNAUTHORIZED');
  }

  const { data, meta } = await boss.call<Account[]>('GET', '/admin/users?limit=2&offset=1&role=user');
  t.deepEqual(
    data.map(({ username }) => username),
    ['user2', 'user3'],
  );
  t.like(meta.pagination, { offset: 1, limit: 2 });
  t.true(meta.pagination!.total >= 4);
  t.deepEqual(Object.keys(data[0]!), ['id', 'username', 'name', 'email', 'role', 'status', 'created_at']);
  for (const query of ['limit=0', 'limit=101', 'offset=-1', 'limit=x', 'role=king']) {
    t.is((await boss.refused(400, 'GET', `/admin/users?${query}`)).code, 'VALIDATION_ERROR', query);
  }

  const target = `/admin/users/${account.id}`;
  const { email, name, username, created_at } = account;
  const changed = { id: account.id, username, name, email, role: 'admin', status: 'active', created_at };
  t.deepEqual(await boss.ok(200, 'PATCH', target, { role: 'admin' }), changed);
  t.deepEqual(await boss.ok(200, 'PATCH', target, { role: 'user', status: 'disabled' }), {
    ...changed,
    role: 'user',
    status: 'disabled',
  });
  t.is((await boss.refused(400, 'PATCH', target, {})).code, 'VALIDATION_ERROR');
  t.is((await boss.refused(400, 'PATCH', target, { name: 'Other' })).details[0]?.field, 'name');
  t.is((await boss.refused(400, 'PATCH', target, { role: 'king' })).details[0]?.field, 'role');
  t.is((await boss.refused(404, 'PATCH', `/admin/users/${uuid()}`, { role: 'user' })).code, 'NOT_FOUND');
  t.is((await boss.refused(400, 'PATCH', '/admin/users/nonsense', { role: 'user' })).details[0]?.field, 'user_id');
  await anonymous().refused(401, 'POST', '/auth/login', { email, password });

  const me = await boss.ok<Account>(200, 'GET', '/users/me');
  t.is((await boss.refused(409, 'PATCH', `/admin/users/${me.id}`, { role: 'user' })).code, 'LAST_ADMIN');

  const audit = await boss.call<{ action: string; target: string }[]>(
    'GET',
    `/admin/audit?actor=${me.id}&action=user.update`,
  );
  const mine = audit.data.filter((event) => event.target === account.id);
  t.deepEqual(
    mine.map((event) => event.action),
    ['user.update', 'user.update'],
  );
  t.deepEqual(Object.keys(mine[0]!).toSorted(byName), ['action', 'actor_id', 'at', 'id', 'request_id', 'target']);
  t.like(audit.meta.pagination, { offset: 0, limit: 20 });
  t.true(audit.meta.pagination!.total >= 2);
  t.is((await boss.refused(400, 'GET', '/admin/audit?action=nonsense')).code, 'VALIDATION_ERROR');
});

test('whatever is wrong with a request is told in the same way', async (t) => {
  const { api } = await newcomer();
  t.is((await api.refused(404, 'GET', '/nowhere')).code, 'NOT_FOUND');
  const wrong = await api.refused(405, 'DELETE', '/users/me');
  t.is(wrong.code, 'METHOD_NOT_ALLOWED');
  t.truthy(wrong.headers.get('allow'));
  const broken = await anonymous().call('POST', '/auth/login', { body: '{"email":' });
  t.is(`${broken.status} ${broken.error?.code}`, '400 VALIDATION_ERROR');
  const form = await anonymous().call('POST', '/auth/login', {
    body: 'email=x',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
  });
  t.is(`${form.status} ${form.error?.code}`, '415 UNSUPPORTED_MEDIA_TYPE');
});
