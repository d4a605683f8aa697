import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  AccountRecordServiceService,
  type AuditEvent,
  type SubscriptionRecord,
} from '#gen/chat4all/account/v1/account.ts';
import {
  PlanName,
  SubscriptionServiceService,
  SubscriptionStatus,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
} from '#gen/chat4all/tools/v1/tools.ts';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { serve, serverSettings, service as served } from '#lib/rpc/server.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness, type TestUser } from '../../test/harness.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { answering, startToolServer } from '../../test/tool-servers.ts';
import { noAuthority } from '../../test/no-authority.ts';

/** Stands in for the auth service, and remembers what it was told; while it is away, it refuses. */
const told = {
  subscriptions: [] as SubscriptionRecord[],
  events: [] as AuditEvent[],
  isAway: false,
  refuses: undefined as string | undefined,
};

const folder = openedFolder('chat4all-plans-');
const hub = opened(openHarness, (hub) => hub.stop());
const accounts = opened(
  () =>
    serve({
      authority: noAuthority,
      config: loadConfig(serverSettings, { GRPC_PORT: '0' }),
      identities: hub.identities['auth']!,
      log: openLog({ name: 'auth', format: 'json', level: 'silent' }),
      services: [
        served(AccountRecordServiceService, {
          async countUsers() {
            return { total: 1_234n };
          },
          async recordChanges({ subscriptions, auditEvents }) {
            if (told.isAway) throw new HubError('UNAVAILABLE', 'DATABASE_UNAVAILABLE', 'Away', { retryAfter: 1 });
            if (auditEvents.some(({ target }) => target === told.refuses)) {
              throw new HubError('INVALID_ARGUMENT', 'INVALID_ARGUMENT', 'Never');
            }
            told.subscriptions.push(...subscriptions);
            told.events.push(...auditEvents);
            return {};
          },
        }),
      ],
      dependencies: {},
    }),
  (server) => server.stop(),
);
const service = opened(() => hub.startService('tools', { AUTH_ADDRESS: `127.0.0.1:${accounts.port}` }));
const tools = opened(startToolServer, (server) => server.stop());

const admin: TestUser = { userId: uuid(), username: 'boss', admin: true };
const administration = async () =>
  hub.client(ToolAdminServiceService, service.address, { token: await hub.userToken(admin) });

async function clients(user: TestUser = { userId: uuid(), username: `u-${uuid()}` }, address = service.address) {
  const token = await hub.userToken(user);
  return {
    userId: user.userId,
    tools: hub.client(ToolServiceService, address, { token }),
    usage: hub.client(UsageServiceService, address, { token }),
    subscriptions: hub.client(SubscriptionServiceService, address, { token }),
  };
}

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  return (await t.throwsAsync(call, { instanceOf: HubError }))!;
}

const fieldsOf = async (t: ExecutionContext, call: Promise<unknown>) =>
  (await refusal(t, call)).fields.map(({ field }) => field).toSorted();

/** What the stand-in was told of a tool, each once: another process may have told the same. */
const changesOf = (toolId: string) => {
  const events = told.events.filter(({ target }) => target === toolId);
  return [...new Map(events.map((event) => [event.id, event])).values()];
};

const wish = (name = `tool ${uuid()}`) => ({
  name,
  description: 'For tests',
  apiEndpoint: 'https://tools.example.com/x',
});
const noWish = { name: undefined, description: undefined, apiEndpoint: undefined, isActive: undefined };
const { PLAN_NAME_FREE: free, PLAN_NAME_PRO: pro, PLAN_NAME_ENTERPRISE: enterprise } = PlanName;

test('createTool: trims the name, and everybody sees the tool, but not where it is', async (t) => {
  const { createTool } = await administration();
  const name = `Ünïque ${uuid()}`;
  const { tool } = await createTool(wish(`  ${name} `));
  t.like(tool, { name, description: 'For tests', isActive: true, apiEndpoint: 'https://tools.example.com/x' });
  const somebody = await clients();
  const seen = (await somebody.tools.getTool({ toolId: tool!.id.toUpperCase() })).tool!;
  t.deepEqual(Object.keys(seen).toSorted(), ['createdAt', 'description', 'id', 'isActive', 'name']);
  t.is((await refusal(t, createTool(wish(name.toUpperCase())))).reason, 'TOOL_NAME_TAKEN');
});

test('createTool: names all wrong fields at once', async (t) => {
  const { createTool } = await administration();
  t.deepEqual(await fieldsOf(t, createTool({ name: ' ', description: '\t', apiEndpoint: 'ftp://x' })), [
    'api_endpoint',
    'description',
    'name',
  ]);
  t.deepEqual(await fieldsOf(t, createTool({ name: '', description: '', apiEndpoint: '' })), [
    'api_endpoint',
    'description',
    'name',
  ]);
  const long = { name: 'x'.repeat(101), description: 'x', apiEndpoint: `https://example.com/${'x'.repeat(500)}` };
  t.deepEqual(await fieldsOf(t, createTool(long)), ['api_endpoint', 'name']);
  for (const apiEndpoint of [
    'http://10.0.0.1/',
    'http://0xa9fea9fe/latest',
    'http://[fd00::1]/',
    'http://u:p@example.com/',
  ]) {
    t.deepEqual(await fieldsOf(t, createTool({ ...wish(), apiEndpoint })), ['api_endpoint'], apiEndpoint);
  }
});

test('updateTool: changes what is named, keeps the rest, and says so once in the audit', async (t) => {
  const { createTool, updateTool, listAllTools } = await administration();
  const { tool } = await createTool(wish());
  const toolId = tool!.id;
  const changed = await updateTool({ ...noWish, toolId, description: 'Better', isActive: false });
  t.deepEqual(changed.tool, { ...tool!, description: 'Better', isActive: false });
  await updateTool({ ...noWish, toolId, description: 'Better' });
  await updateTool({ ...noWish, toolId });
  const events = changesOf(toolId);
  t.deepEqual(
    events.map(({ action }) => action),
    ['tool.create', 'tool.update'],
  );
  t.true(
    events.every(({ actorId, requestId, at }) => actorId === admin.userId && requestId !== '' && at !== undefined),
  );
  const { tools: inactive } = await listAllTools({ limit: 100, offset: 0, isActive: false });
  t.true(inactive.some(({ id }) => id === toolId));
  const somebody = await clients();
  await somebody.subscriptions.subscribe({ plan: free });
  t.is((await refusal(t, somebody.tools.getTool({ toolId }))).reason, 'TOOL_NOT_FOUND');
  t.is((await refusal(t, somebody.tools.invokeTool({ toolId, input: {} }))).reason, 'TOOL_NOT_FOUND');
  t.is((await updateTool({ ...noWish, toolId, isActive: true })).tool!.isActive, true);
  t.is((await somebody.tools.getTool({ toolId })).tool!.id, toolId);
});

test('updateTool: a name that another tool has, what is wrong, and a tool that is not there', async (t) => {
  const { createTool, updateTool } = await administration();
  const [one, other] = await Promise.all([createTool(wish()), createTool(wish())]);
  const toolId = one.tool!.id;
  const name = other.tool!.name.toUpperCase();
  t.is((await refusal(t, updateTool({ ...noWish, toolId, name }))).reason, 'TOOL_NAME_TAKEN');
  t.deepEqual(
    await fieldsOf(
      t,
      updateTool({ ...noWish, toolId, name: '', description: ' ', apiEndpoint: 'http://127.0.0.1.:x/' }),
    ),
    ['api_endpoint', 'description', 'name'],
  );
  t.is((await refusal(t, updateTool({ ...noWish, toolId: uuid(), name: 'x' }))).reason, 'TOOL_NOT_FOUND');
  t.is((await updateTool({ ...noWish, toolId, name: one.tool!.name.toUpperCase() })).tool!.id, toolId);
});

test('deleteTool: its usage keeps its name, which is free again; a second time there is no such tool', async (t) => {
  const { createTool, deleteTool, updateTool } = await administration();
  tools.on('/kept', answering({ tokens_used: 5 }));
  const name = `kept ${uuid()}`;
  const { tool } = await createTool({ ...wish(name), apiEndpoint: `${tools.url}/kept` });
  const toolId = tool!.id;
  const somebody = await clients();
  await somebody.subscriptions.subscribe({ plan: free });
  await somebody.tools.invokeTool({ toolId, input: {} });
  await deleteTool({ toolId });
  t.is((await refusal(t, deleteTool({ toolId }))).reason, 'TOOL_NOT_FOUND');
  t.is((await refusal(t, updateTool({ ...noWish, toolId, isActive: true }))).reason, 'TOOL_NOT_FOUND');
  t.is((await refusal(t, somebody.tools.invokeTool({ toolId, input: {} }))).reason, 'TOOL_NOT_FOUND');
  t.not((await createTool(wish(name))).tool!.id, toolId);
  const { usage } = await somebody.usage.listUsage({ startDate: '', endDate: '', toolId: '', limit: 1, offset: 0 });
  t.like(usage[0], { toolId, toolName: name, tokensUsed: 5n });
  const { byTool } = await somebody.usage.getUsageSummary({ startDate: '', endDate: '' });
  t.deepEqual(byTool, [{ toolId, toolName: name, tokensUsed: 5n, invocationCount: 1n }]);
  t.deepEqual(
    changesOf(toolId).map(({ action }) => action),
    ['tool.create', 'tool.delete'],
  );
});

test('lists come in pages, by name, with how many there are in all', async (t) => {
  const { createTool, listAllTools } = await administration();
  const mark = uuid();
  for (const letter of ['b', 'A', 'c']) await createTool(wish(`${letter} page ${mark}`));
  const { tools: all, pagination } = await listAllTools({ limit: 100, offset: 0, isActive: undefined });
  const mine = all.filter(({ name }) => name.endsWith(mark)).map(({ name }) => name[0]);
  t.deepEqual(mine, ['A', 'b', 'c']);
  t.is(Number(pagination!.total), all.length);
  const somebody = await clients();
  const page = await somebody.tools.listTools({ limit: 2, offset: 1 });
  t.is(page.tools.length, 2);
  t.deepEqual([page.pagination!.limit, page.pagination!.offset], [2, 1]);
  const standard = await somebody.tools.listTools({ limit: undefined, offset: 0 });
  t.is(standard.pagination!.limit, 20);
  for (const wrong of [
    { limit: 0, offset: 0 },
    { limit: 101, offset: 0 },
    { limit: 1, offset: -1 },
  ]) {
    t.is((await fieldsOf(t, somebody.tools.listTools(wrong))).length, 1);
  }
});

test('twenty that create a tool of one name at once: one does', async (t) => {
  const { createTool } = await administration();
  const name = `once ${uuid()}`;
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => createTool(wish(name))));
  t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  const refused = outcomes.flatMap((each) => (each.status === 'rejected' ? [(each.reason as HubError).reason] : []));
  t.deepEqual([...new Set(refused)], ['TOOL_NAME_TAKEN']);
});

test('listPlans: free, pro, enterprise, as they are built in', async (t) => {
  const { plans } = await (await clients()).subscriptions.listPlans({});
  t.deepEqual(
    plans.map(({ name, tokenLimit, priceMonthly }) => [name, Number(tokenLimit), priceMonthly]),
    [
      [free, 1_000, 0],
      [pro, 50_000, 29.99],
      [enterprise, 500_000, 299.99],
    ],
  );
  t.true(plans.every(({ features }) => features.length > 0));
});

test('PLANS_FILE: has the plans, all three of them and nothing else', async (t) => {
  const file = path.join(folder, 'plans.json');
  const plan = (name: string) => ({ name, token_limit: 7, price_monthly: 1.5, features: ['x'] });
  const start = () => hub.startService('tools', { PLANS_FILE: file });
  await writeFile(file, JSON.stringify(['enterprise', 'free', 'pro'].map(plan)));
  const other = await start();
  t.teardown(() => other.stop());
  const { plans } = await (await clients(undefined, other.address)).subscriptions.listPlans({});
  t.deepEqual(plans[0], { name: free, tokenLimit: 7n, priceMonthly: 1.5, features: ['x'] });
  t.is(plans.length, 3);
  for (const wrong of [
    '{',
    '{}',
    [plan('free')],
    ['free', 'pro', 'enterprise', 'pro'].map(plan),
    ['free', 'pro', 'x'].map(plan),
  ]) {
    await writeFile(file, typeof wrong === 'string' ? wrong : JSON.stringify(wrong));
    await t.throwsAsync(start(), { instanceOf: ConfigError, message: /PLANS_FILE/ });
  }
  await t.throwsAsync(hub.startService('tools', { PLANS_FILE: path.join(folder, 'none.json') }), {
    instanceOf: ConfigError,
  });
});

test('a subscription: created, changed, cancelled and taken back at once; its id stays', async (t) => {
  const { userId, subscriptions } = await clients();
  t.is((await refusal(t, subscriptions.getSubscription({}))).reason, 'SUBSCRIPTION_NOT_FOUND');
  t.is((await refusal(t, subscriptions.cancelSubscription({}))).reason, 'SUBSCRIPTION_NOT_FOUND');
  t.deepEqual((await subscriptions.listSubscriptions({})).subscriptions, []);
  const first = (await subscriptions.subscribe({ plan: free })).subscription!;
  t.like(first, {
    plan: free,
    status: SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE,
    tokenLimit: 1_000n,
    tokensUsed: 0n,
    tokensRemaining: 1_000n,
    expiresAt: undefined,
  });
  t.is(first.periodEnd!.getTime() - first.periodStart!.getTime(), 30 * 86_400_000);
  t.deepEqual((await subscriptions.subscribe({ plan: free })).subscription, first);
  const second = (await subscriptions.subscribe({ plan: pro })).subscription!;
  t.deepEqual(second, { ...first, plan: pro, tokenLimit: 50_000n, tokensRemaining: 50_000n });
  const over = (await subscriptions.cancelSubscription({})).subscription!;
  t.deepEqual(over, {
    ...second,
    status: SubscriptionStatus.SUBSCRIPTION_STATUS_CANCELLED,
    expiresAt: second.periodEnd,
  });
  t.deepEqual((await subscriptions.cancelSubscription({})).subscription, over);
  t.deepEqual((await subscriptions.getSubscription({})).subscription, over);
  t.deepEqual((await subscriptions.listSubscriptions({})).subscriptions, [over]);
  t.deepEqual((await subscriptions.subscribe({ plan: pro })).subscription, second);
  // Another process may have told the same.
  const versions = new Map(
    told.subscriptions.filter((each) => each.userId === userId).map((each) => [Number(each.version), each]),
  );
  t.deepEqual(
    [...versions.values()].map(({ plan, version, expiresAt }) => [plan, Number(version), expiresAt]),
    [
      ['free', 1, undefined],
      ['pro', 2, undefined],
      ['pro', 3, over.expiresAt],
      ['pro', 4, undefined],
    ],
  );
  t.deepEqual(await fieldsOf(t, subscriptions.subscribe({ plan: 7 as PlanName })), ['plan']);
  t.deepEqual(await fieldsOf(t, subscriptions.subscribe({ plan: 0 })), ['plan']);
});

test('twenty that subscribe at once leave one subscription', async (t) => {
  const { userId, subscriptions } = await clients();
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) => subscriptions.subscribe({ plan: [free, pro][index % 2]! })),
  );
  t.is(new Set(answers.map(({ subscription }) => subscription!.id)).size, 1);
  const last = (await subscriptions.getSubscription({})).subscription!;
  const versions = told.subscriptions
    .filter((each) => each.userId === userId)
    .toSorted((a, b) => Number(a.version - b.version));
  t.is(last.plan, versions.at(-1)!.plan === 'free' ? free : pro);
});

test('a downgrade below what is used leaves nothing, and never less', async (t) => {
  const { createTool } = await administration();
  tools.on('/dear', answering({ tokens_used: 2_000 }));
  const { tool } = await createTool({ ...wish(), apiEndpoint: `${tools.url}/dear` });
  const somebody = await clients();
  await somebody.subscriptions.subscribe({ plan: pro });
  await somebody.tools.invokeTool({ toolId: tool!.id, input: {} });
  const { subscription } = await somebody.subscriptions.subscribe({ plan: free });
  t.like(subscription, { plan: free, tokensUsed: 2_000n, tokensRemaining: 0n });
  t.is((await refusal(t, somebody.tools.invokeTool({ toolId: tool!.id, input: {} }))).reason, 'TOKEN_LIMIT_EXCEEDED');
  await somebody.subscriptions.subscribe({ plan: pro });
  await somebody.tools.invokeTool({ toolId: tool!.id, input: {} });
});

test('a new period begins with a new counter; a cancelled subscription ends with its period, and can begin anew', async (t) => {
  const brief = await hub.startService('tools', { PLAN_PERIOD: '2s', AUTH_ADDRESS: `127.0.0.1:${accounts.port}` });
  t.teardown(() => brief.stop());
  const { createTool } = await administration();
  tools.on('/seven', answering({ tokens_used: 7 }));
  const { tool } = await createTool({ ...wish(), apiEndpoint: `${tools.url}/seven` });
  const somebody = await clients(undefined, brief.address);
  const first = (await somebody.subscriptions.subscribe({ plan: free })).subscription!;
  await somebody.tools.invokeTool({ toolId: tool!.id, input: {} });
  t.is((await somebody.subscriptions.getSubscription({})).subscription!.tokensUsed, 7n);
  const next = await eventually(
    'the next period begins',
    async () => (await somebody.subscriptions.getSubscription({})).subscription!,
    ({ periodStart }) => periodStart! > first.periodStart!,
  );
  t.like(next, { id: first.id, tokensUsed: 0n, status: SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE });
  t.is((next.periodStart!.getTime() - first.periodStart!.getTime()) % 2_000, 0);
  await somebody.subscriptions.cancelSubscription({});
  const over = await eventually(
    'the subscription has expired',
    async () => (await somebody.subscriptions.getSubscription({})).subscription!,
    ({ status }) => status === SubscriptionStatus.SUBSCRIPTION_STATUS_EXPIRED,
  );
  t.deepEqual(over.expiresAt, over.periodEnd);
  t.is((await refusal(t, somebody.tools.invokeTool({ toolId: tool!.id, input: {} }))).reason, 'SUBSCRIPTION_REQUIRED');
  t.is((await somebody.subscriptions.cancelSubscription({})).subscription!.status, over.status);
  const anew = (await somebody.subscriptions.subscribe({ plan: free })).subscription!;
  t.like(anew, {
    id: first.id,
    tokensUsed: 0n,
    expiresAt: undefined,
    status: SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE,
  });
  t.true(anew.periodStart! >= over.expiresAt!);
  await somebody.tools.invokeTool({ toolId: tool!.id, input: {} });
});

test('usage: in pages, newest first, by tool and by day', async (t) => {
  const { createTool } = await administration();
  tools.on('/page', answering({ tokens_used: 2 }));
  const [one, other] = await Promise.all(
    [1, 2].map(async () => (await createTool({ ...wish(), apiEndpoint: `${tools.url}/page` })).tool!),
  );
  const { tools: mine, usage, subscriptions } = await clients();
  await subscriptions.subscribe({ plan: free });
  for (const tool of [one, other, one]) await mine.invokeTool({ toolId: tool!.id, input: {} });
  const all = { startDate: '', endDate: '', toolId: '', limit: undefined, offset: 0 };
  const everything = await usage.listUsage(all);
  t.deepEqual(
    everything.usage.map(({ toolId }) => toolId),
    [one!.id, other!.id, one!.id],
  );
  t.deepEqual(everything.pagination, { offset: 0, limit: 20, total: 3n });
  const times = everything.usage.map(({ timestamp }) => timestamp!.getTime());
  t.deepEqual(
    times,
    times.toSorted((a, b) => b - a),
  );
  const second = await usage.listUsage({ ...all, limit: 1, offset: 1 });
  t.deepEqual(second.usage, [everything.usage[1]!]);
  t.is((await usage.listUsage({ ...all, toolId: one!.id })).pagination!.total, 2n);
  t.is((await usage.listUsage({ ...all, toolId: uuid() })).pagination!.total, 0n);
  const today = new Date().toISOString().slice(0, 10);
  const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10);
  t.is((await usage.listUsage({ ...all, startDate: today, endDate: today })).usage.length, 3);
  t.is((await usage.listUsage({ ...all, startDate: tomorrow })).usage.length, 0);
  t.is((await usage.listUsage({ ...all, endDate: '2020-01-01' })).usage.length, 0);
  const summary = await usage.getUsageSummary({ startDate: today, endDate: '' });
  t.deepEqual([summary.totalTokens, summary.totalInvocations], [6n, 3n]);
  t.deepEqual(
    summary.byTool.map(({ toolId, tokensUsed, invocationCount }) => [toolId, tokensUsed, invocationCount]),
    [
      [one!.id, 4n, 2n],
      [other!.id, 2n, 1n],
    ],
  );
  t.deepEqual(summary.byDay, [{ date: today, tokensUsed: 6n, invocationCount: 3n }]);
  t.deepEqual(await usage.getUsageSummary({ startDate: tomorrow, endDate: '' }), {
    totalTokens: 0n,
    totalInvocations: 0n,
    byTool: [],
    byDay: [],
  });
});

test('usage: days that are none, and a beginning after the end, are named', async (t) => {
  const { usage } = await clients();
  const { getUsageStats } = await administration();
  const page = { toolId: '', limit: 1, offset: 0 };
  for (const [startDate, endDate, fields] of [
    ['2026-11-30', '2026-11-29', ['start_date']],
    ['2026-02-30', '', ['start_date']],
    ['29.11.2026', 'tomorrow', ['end_date', 'start_date']],
  ] as const) {
    t.deepEqual(await fieldsOf(t, usage.listUsage({ startDate, endDate, ...page })), [...fields]);
    t.deepEqual(await fieldsOf(t, usage.getUsageSummary({ startDate, endDate })), [...fields]);
    t.deepEqual(await fieldsOf(t, getUsageStats({ startDate, endDate })), [...fields]);
  }
});

test('getUsageStats: all users together, by the plan that they had and by tool', async (t) => {
  const { createTool, getUsageStats } = await administration();
  tools.on('/stats', answering({ tokens_used: 3 }));
  const { tool } = await createTool({ ...wish(), apiEndpoint: `${tools.url}/stats` });
  const before = await getUsageStats({ startDate: '', endDate: '' });
  for (const plan of [enterprise, enterprise, pro]) {
    const somebody = await clients();
    await somebody.subscriptions.subscribe({ plan });
    await somebody.tools.invokeTool({ toolId: tool!.id, input: {} });
    // What was used stays with the plan of its time.
    if (plan === pro) await somebody.subscriptions.subscribe({ plan: enterprise });
  }
  const after = await getUsageStats({ startDate: '', endDate: '' });
  t.is(after.totalUsers, 1_234n);
  t.deepEqual(
    after.byPlan.map(({ plan }) => plan),
    [free, pro, enterprise],
  );
  const grown = (plan: PlanName, key: 'tokensUsed' | 'userCount') =>
    Number(
      after.byPlan.find((each) => each.plan === plan)![key] - before.byPlan.find((each) => each.plan === plan)![key],
    );
  t.true(grown(pro, 'tokensUsed') >= 3);
  t.true(grown(enterprise, 'tokensUsed') >= 6);
  t.true(grown(enterprise, 'userCount') >= 3);
  t.like(
    after.byTool.find(({ toolId }) => toolId === tool!.id),
    { tokensUsed: 9n, invocationCount: 3n, toolName: tool!.name },
  );
  const none = await getUsageStats({ startDate: '2020-01-01', endDate: '2020-12-31' });
  t.deepEqual([none.totalUsers, none.totalInvocations, none.totalTokens, none.byTool], [1_234n, 0n, 0n, []]);
});

test.serial('while the auth service is away, changes are made, and told once it is back', async (t) => {
  told.isAway = true;
  const { createTool } = await administration();
  const began = Date.now();
  const { tool } = await createTool(wish());
  t.true(Date.now() - began < 5_000);
  const { userId, subscriptions } = await clients();
  await subscriptions.subscribe({ plan: pro });
  await sleep(300);
  t.false(told.events.some(({ target }) => target === tool!.id));
  told.isAway = false;
  await eventually(
    'the auth service knows',
    () => [
      told.events.some(({ target }) => target === tool!.id),
      told.subscriptions.some((each) => each.userId === userId),
    ],
    (known) => known.every(Boolean),
  );
});

test.serial('a change that the auth service refuses keeps back no other', async (t) => {
  const { createTool, deleteTool } = await administration();
  told.isAway = true;
  const [bad, good] = await Promise.all([createTool(wish()), createTool(wish())]);
  told.refuses = bad.tool!.id;
  told.isAway = false;
  await eventually('the other is told', () => told.events.some(({ target }) => target === good.tool!.id), Boolean);
  await deleteTool({ toolId: good.tool!.id });
  t.false(told.events.some(({ target }) => target === bad.tool!.id));
  told.refuses = undefined;
});

test('DEMO_TOOLS_URL: makes two tools and a subscription; what administrators make of them stays', async (t) => {
  const ids = ['00000000-0000-4000-8000-0000000e0001', '00000000-0000-4000-8000-0000000e0002'];
  const env = { DEMO_TOOLS_URL: tools.url, AUTH_ADDRESS: `127.0.0.1:${accounts.port}` };
  await (await hub.startService('tools', env)).stop();
  const known = await clients({ userId: '00000000-0000-4000-8000-0000000000ad', username: 'admin', admin: true });
  const names = async () => Promise.all(ids.map(async (toolId) => (await known.tools.getTool({ toolId })).tool!.name));
  t.deepEqual(await names(), ['echo', 'text-stats']);
  t.like((await known.subscriptions.getSubscription({})).subscription, { plan: free });
  const { updateTool, deleteTool, listAllTools } = await administration();
  await updateTool({ ...noWish, toolId: ids[0]!, name: 'Echo of old', isActive: false });
  await deleteTool({ toolId: ids[1]! });
  await known.subscriptions.subscribe({ plan: pro });
  await (await hub.startService('tools', { ...env, DEMO_TOOLS_URL: `${tools.url}/moved/` })).stop();
  const { tools: all } = await listAllTools({ limit: 100, offset: 0, isActive: false });
  const echo = all.find(({ id }) => id === ids[0]);
  t.like(echo, { name: 'Echo of old', isActive: false, apiEndpoint: `${tools.url}/moved/echo` });
  t.is((await refusal(t, known.tools.getTool({ toolId: ids[1]! }))).reason, 'TOOL_NOT_FOUND');
  t.like((await known.subscriptions.getSubscription({})).subscription, { plan: pro });
  await t.throwsAsync(hub.startService('tools', { ...env, LAPTOP_MODE: 'false' }), { message: /LAPTOP_MODE/ });
});
