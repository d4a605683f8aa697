import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openEnveloped } from '../enveloped.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';
import { openRest, type Token } from '../rest.ts';
import { answering, startToolServer } from '../tool-servers.ts';

const tools = opened(startToolServer, (server) => server.stop());
const mesh = opened(
  () =>
    startMesh({
      bus: 'embedded',
      services: ['auth', 'tools'],
      env: { SEED_USERS: '2', DEMO_TOOLS_URL: tools.url, TOOL_TIMEOUT: '6s', REQUEST_TIMEOUT: '5s' },
    }),
  (mesh) => mesh.stop(),
);

const password = 'Engine-1843';
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const echo = '00000000-0000-4000-8000-0000000e0001';

interface Id {
  id: string;
}

interface Subscription {
  id: string;
  plan: string;
  status: string;
  token_limit: number;
  tokens_used: number;
  tokens_remaining: number;
  period_start: string;
  period_end: string;
  expires_at?: string;
}

async function newcomer(plan?: string) {
  const email = `${uuid()}@example.com`;
  const anonymous = openEnveloped(mesh.url);
  const { id } = await anonymous.ok<Id>(201, 'POST', '/auth/register', { name: 'Ada', email, password });
  const { access_token: token } = await anonymous.ok<{ access_token: string }>(200, 'POST', '/auth/login', {
    email,
    password,
  });
  const api = openEnveloped(mesh.url, { token });
  if (plan !== undefined) await api.ok(200, 'POST', '/subscriptions/subscribe', { plan });
  return { id, token, api };
}

async function administrator() {
  const { access_token: token } = await openEnveloped(mesh.url).ok<{ access_token: string }>(
    200,
    'POST',
    '/auth/login',
    { email: 'admin@example.com', password: 'Admin-12345' },
  );
  return openEnveloped(mesh.url, { token });
}

async function newTool(path: string) {
  const admin = await administrator();
  const wish = { name: `tool ${uuid()}`, description: 'For tests', api_endpoint: `${tools.url}${path}` };
  return { admin, wish, tool: await admin.ok<Id & { name: string }>(201, 'POST', '/admin/tools', wish) };
}

test('somebody subscribes, invokes a tool with a token and with an API key, and sees what was used', async (t) => {
  tools.on('/echo', (response, { body }) => answering({ echo: JSON.parse(body) as unknown })(response, undefined!));
  const { api } = await newcomer();
  t.is((await api.refused(404, 'GET', '/subscriptions/current')).code, 'NOT_FOUND');
  t.is((await api.refused(404, 'POST', '/subscriptions/cancel')).code, 'NOT_FOUND');
  t.is((await api.refused(403, 'POST', `/tools/${echo}/invoke`, { input: {} })).code, 'SUBSCRIPTION_REQUIRED');
  const subscription = await api.ok<Subscription>(200, 'POST', '/subscriptions/subscribe', { plan: 'free' });
  t.like(subscription, { plan: 'free', status: 'active', token_limit: 1_000, tokens_used: 0, tokens_remaining: 1_000 });
  t.regex(subscription.period_start, rfc3339);
  t.false('expires_at' in subscription);

  const input = { text: 'Hello', nothing: null, list: [1, null] };
  const body = { json: { input: { text: 'Hello' } } };
  const first = await api.call<{ request_id: string; output: object; tokens_used: number; duration_ms: number }>(
    'POST',
    `/tools/${echo}/invoke`,
    body,
  );
  t.is(first.status, 200);
  t.deepEqual(Object.keys(first.data).toSorted(), ['duration_ms', 'output', 'request_id', 'tokens_used']);
  t.deepEqual(first.data.output, { echo: { text: 'Hello' } });
  t.is(first.data.request_id, first.meta.request_id);
  t.is(first.data.tokens_used, Math.ceil(('{"text":"Hello"}'.length + '{"echo":{"text":"Hello"}}'.length) / 4));
  const { key } = await api.ok<{ key: string }>(201, 'POST', '/users/me/api-keys', { name: 'program' });
  const raw = await fetch(`${mesh.url}/api/v1/tools/${echo}/invoke`, {
    method: 'POST',
    headers: { 'x-api-key': key, 'content-type': 'application/json', 'x-request-id': 'mine-1' },
    body: JSON.stringify({ input }),
  });
  const second = (await raw.json()) as { data: { output: object; tokens_used: number; request_id: string } };
  // Null is a value of what a tool is sent, and of what it answers.
  t.deepEqual(second.data.output, { echo: input });
  t.is(second.data.request_id, 'mine-1');
  const asked = tools.asked.find((one) => one.headers['x-request-id'] === 'mine-1')!;
  t.is(asked.body, JSON.stringify(input));
  for (const header of ['authorization', 'x-api-key', 'cookie', 'x-forwarded-for', 'traceparent']) {
    t.is(asked.headers[header], undefined, header);
  }

  const used = first.data.tokens_used + second.data.tokens_used;
  const usage = await api.call<Record<string, unknown>[]>('GET', '/usage');
  t.deepEqual(usage.meta.pagination, { offset: 0, limit: 20, total: 2 });
  t.deepEqual(Object.keys(usage.data[0]!).toSorted(), [
    'duration_ms',
    'id',
    'request_id',
    'response_status',
    'timestamp',
    'tokens_used',
    'tool_id',
    'tool_name',
  ]);
  t.like(usage.data[0], { tool_id: echo, tool_name: 'echo', response_status: 'success', request_id: 'mine-1' });
  const today = new Date().toISOString().slice(0, 10);
  const sums = { tokens_used: used, invocation_count: 2 };
  t.deepEqual(await api.ok(200, 'GET', `/usage/summary?start_date=${today}&end_date=${today}`), {
    total_tokens: used,
    total_invocations: 2,
    by_tool: [{ tool_id: echo, tool_name: 'echo', ...sums }],
    by_day: [{ date: today, ...sums }],
  });
  t.like(await api.ok(200, 'GET', '/subscriptions/current'), { tokens_used: used, tokens_remaining: 1_000 - used });
});

test('plans: free, pro and enterprise, with what they cost', async (t) => {
  const { api } = await newcomer();
  const plans = await api.ok<Record<string, unknown>[]>(200, 'GET', '/subscriptions/plans');
  t.deepEqual(
    plans.map(({ name, token_limit: limit, price_monthly: price }) => [name, limit, price]),
    [
      ['free', 1_000, 0],
      ['pro', 50_000, 29.99],
      ['enterprise', 500_000, 299.99],
    ],
  );
  t.is((await openEnveloped(mesh.url).refused(401, 'GET', '/subscriptions/plans')).code, 'UNAUTHORIZED');
  const bad = await api.refused(400, 'POST', '/subscriptions/subscribe', { plan: 'gold' });
  t.deepEqual([bad.code, bad.details.map(({ field }) => field)], ['VALIDATION_ERROR', ['plan']]);
  t.deepEqual(
    (await api.refused(400, 'POST', '/subscriptions/subscribe', {})).details.map(({ field }) => field),
    ['plan'],
  );
});

test('a cancelled subscription says when it ends; subscribing again takes it back', async (t) => {
  const { api } = await newcomer('pro');
  const over = await api.ok<Subscription>(200, 'POST', '/subscriptions/cancel');
  t.like(over, { plan: 'pro', status: 'cancelled', expires_at: over.period_end });
  t.deepEqual(await api.ok(200, 'POST', '/subscriptions/cancel', {}), over);
  const again = await api.ok<Subscription>(200, 'POST', '/subscriptions/subscribe', { plan: 'free' });
  t.like(again, { id: over.id, plan: 'free', status: 'active', period_end: over.period_end });
  t.false('expires_at' in again);
});

test('tools: lists, one, and what is not there', async (t) => {
  const { api } = await newcomer();
  const { tool, admin } = await newTool('/one');
  const list = await api.call<Record<string, unknown>[]>('GET', '/tools?limit=100');
  t.is(list.meta.pagination!.total, list.data.length);
  t.deepEqual(Object.keys(list.data[0]!).toSorted(), ['description', 'id', 'name']);
  t.deepEqual(Object.keys(await api.ok<object>(200, 'GET', `/tools/${tool.id}`)).toSorted(), [
    'created_at',
    'description',
    'id',
    'is_active',
    'name',
  ]);
  t.is((await api.refused(404, 'GET', `/tools/${uuid()}`)).code, 'NOT_FOUND');
  t.deepEqual(
    (await api.refused(400, 'GET', '/tools/7')).details.map(({ field }) => field),
    ['tool_id'],
  );
  for (const query of ['limit=0', 'limit=101', 'limit=x', 'offset=-1', 'limit=']) {
    t.is((await api.refused(400, 'GET', `/tools?${query}`)).code, 'VALIDATION_ERROR', query);
    t.is((await api.refused(400, 'GET', `/usage?${query}`)).code, 'VALIDATION_ERROR', query);
  }
  await admin.ok(200, 'PATCH', `/admin/tools/${tool.id}`, { is_active: false });
  t.is((await api.refused(404, 'GET', `/tools/${tool.id}`)).code, 'NOT_FOUND');
  const { data } = await admin.call<Id[]>('GET', '/admin/tools?is_active=false&limit=100');
  t.true(data.some(({ id }) => id === tool.id));
  const active = await admin.call<Id[]>('GET', '/admin/tools?is_active=true&limit=100');
  t.false(active.data.some(({ id }) => id === tool.id));
});

test('administration: 201, 409, 204 and 404, and a row of the audit for each change', async (t) => {
  const { admin, wish, tool } = await newTool('/two');
  t.deepEqual(Object.keys(tool).toSorted(), ['api_endpoint', 'created_at', 'description', 'id', 'is_active', 'name']);
  t.is(
    (await admin.refused(409, 'POST', '/admin/tools', { ...wish, name: wish.name.toUpperCase() })).code,
    'TOOL_NAME_TAKEN',
  );
  const bad = await admin.refused(400, 'POST', '/admin/tools', { name: ' ', api_endpoint: 'http://169.254.169.254/' });
  t.deepEqual(bad.details.map(({ field, rule }) => `${field} ${rule}`).toSorted(), [
    'api_endpoint public_address',
    'description required',
    'name required',
  ]);
  t.is((await admin.refused(400, 'PATCH', `/admin/tools/${tool.id}`, { owner: 'me' })).code, 'VALIDATION_ERROR');
  t.like(await admin.ok(200, 'PATCH', `/admin/tools/${tool.id}`, { description: 'New' }), { description: 'New' });
  t.is((await admin.refused(404, 'PATCH', `/admin/tools/${uuid()}`, { description: 'New' })).code, 'NOT_FOUND');
  t.is((await admin.call('DELETE', `/admin/tools/${tool.id}`)).status, 204);
  t.is((await admin.refused(404, 'DELETE', `/admin/tools/${tool.id}`)).code, 'NOT_FOUND');
  const audit = await admin.ok<{ action: string; target: string }[]>(200, 'GET', '/admin/audit?limit=100');
  t.deepEqual(
    audit.flatMap(({ action, target }) => (target === tool.id ? [action] : [])),
    ['tool.delete', 'tool.update', 'tool.create'],
  );
  const { api } = await newcomer();
  for (const [method, path] of [
    ['GET', '/admin/tools'],
    ['GET', '/admin/usage/stats'],
    ['DELETE', `/admin/tools/${tool.id}`],
  ] as const) {
    t.is((await api.refused(403, method, path)).code, 'FORBIDDEN');
  }
  t.is((await api.refused(403, 'POST', '/admin/tools', wish)).code, 'FORBIDDEN');
});

test('a tool that fails, hangs or refuses is 503, with the time to wait', async (t) => {
  tools.on('/fails', answering({}, 400));
  tools.on('/hangs', () => {});
  tools.on('/breaks', (response) => void response.writeHead(200).end('no JSON'));
  const { api } = await newcomer('enterprise');
  const invoke = async (path: string) => {
    const { tool } = await newTool(path);
    return (await api.refused(503, 'POST', `/tools/${tool.id}/invoke`, { input: {} })).code;
  };
  t.is(await invoke('/fails'), 'TOOL_UNAVAILABLE');
  // Longer than other calls may take.
  t.is(await invoke('/hangs'), 'TOOL_TIMEOUT');
  const { tool } = await newTool('/breaks');
  const codes: string[] = [];
  for (let time = 0; time < 6; time += 1) {
    codes.push((await api.refused(503, 'POST', `/tools/${tool.id}/invoke`, { input: {} })).code);
  }
  t.deepEqual(codes, [...Array.from({ length: 5 }, () => 'TOOL_UNAVAILABLE'), 'CIRCUIT_OPEN']);
  const usage = await api.ok<{ response_status: string; tokens_used: number }[]>(200, 'GET', '/usage');
  t.deepEqual(
    usage.map(({ response_status: status }) => status),
    [...Array.from({ length: 5 }, () => 'error'), 'timeout', 'error'],
  );
  t.true(usage.every(({ tokens_used: tokens }) => tokens === 0));
});

test('invoke: what is no input is 400, and what reaches the limit 403', async (t) => {
  tools.on('/dear', answering({ usage: { total_tokens: 1_000 } }));
  const { api } = await newcomer('free');
  const { tool } = await newTool('/dear');
  for (const json of [{}, { input: null }, { input: [1] }, { input: 'text' }]) {
    const { code, details } = await api.refused(400, 'POST', `/tools/${tool.id}/invoke`, json);
    t.deepEqual([code, details.map(({ field }) => field)], ['VALIDATION_ERROR', ['input']], JSON.stringify(json));
  }
  await api.ok(200, 'POST', `/tools/${tool.id}/invoke`, { input: {} });
  t.is((await api.refused(403, 'POST', `/tools/${tool.id}/invoke`, { input: {} })).code, 'TOKEN_LIMIT_EXCEEDED');
  t.like(await api.ok(200, 'GET', '/subscriptions/current'), { tokens_used: 1_000, tokens_remaining: 0 });
});

test('usage: days that are none are 400, each with its field', async (t) => {
  const { api } = await newcomer();
  const admin = await administrator();
  for (const [query, fields] of [
    ['start_date=2026-11-30&end_date=2026-11-29', ['start_date']],
    ['start_date=2026-02-30', ['start_date']],
    ['start_date=yesterday&end_date=29.11.2026', ['end_date', 'start_date']],
  ] as const) {
    for (const [caller, path] of [
      [api, '/usage'],
      [api, '/usage/summary'],
      [admin, '/admin/usage/stats'],
    ] as const) {
      const { details } = await caller.refused(400, 'GET', `${path}?${query}`);
      t.deepEqual(details.map(({ field }) => field).toSorted(), [...fields], `${path}?${query}`);
    }
  }
  t.deepEqual(
    (await api.refused(400, 'GET', '/usage?tool_id=7')).details.map(({ field }) => field),
    ['tool_id'],
  );
});

test('stats: all users, and what they used by plan and by tool', async (t) => {
  tools.on('/counted', answering({ tokens_used: 4 }));
  const { admin, tool } = await newTool('/counted');
  const { api } = await newcomer('pro');
  await api.ok(200, 'POST', `/tools/${tool.id}/invoke`, { input: {} });
  const stats = await admin.ok<{ total_users: number; by_plan: object[]; by_tool: { tool_id: string }[] }>(
    200,
    'GET',
    '/admin/usage/stats',
  );
  t.deepEqual(Object.keys(stats).toSorted(), [
    'by_plan',
    'by_tool',
    'total_invocations',
    'total_tokens',
    'total_users',
  ]);
  t.true(stats.total_users >= 4);
  t.deepEqual(Object.keys(stats.by_plan[0]!).toSorted(), ['plan', 'tokens_used', 'user_count']);
  t.like(
    stats.by_tool.find(({ tool_id: id }) => id === tool.id),
    { tool_name: tool.name, tokens_used: 4, invocation_count: 1 },
  );
});

test('users of the hub have subscriptions, too, and administrators see them', async (t) => {
  const credentials = { username: 'user1', password: 'password123' };
  const { token, user_id: userId } = await openRest(mesh.url).post<Token>('/auth/token', credentials);
  const api = openEnveloped(mesh.url, { token });
  await api.ok(200, 'POST', '/subscriptions/subscribe', { plan: 'pro' });
  const admin = await administrator();
  const find = async () => {
    const users = await admin.ok<{ id: string; subscription?: object }[]>(200, 'GET', '/admin/users?limit=100');
    return users.find(({ id }) => id === userId)!.subscription;
  };
  t.deepEqual(await find(), { plan: 'pro', status: 'active' });
  await api.ok(200, 'POST', '/subscriptions/cancel');
  t.deepEqual(await find(), { plan: 'pro', status: 'cancelled' });
  // The seeded administrator can invoke at once.
  t.like(await admin.ok(200, 'GET', '/subscriptions/current'), { plan: 'free', status: 'active' });
});
