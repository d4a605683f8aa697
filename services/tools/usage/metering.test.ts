import test from 'ava';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import {
  MeteringServiceService,
  PlanName,
  ResponseStatus,
  SubscriptionServiceService,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
} from '#gen/chat4all/tools/v1/tools.ts';
import { HubError } from '#lib/errors.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness, type TestUser } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';

const hub = opened(openHarness, (hub) => hub.stop());
opened(() => hub.startService('auth', { SEED_USERS: '1' }));
const service = opened(() => hub.startService('tools', { TOOL_TIMEOUT: '1s' }));
const database = opened(
  async () => {
    const client = new pg.Client({ connectionString: hub.adminDatabaseUrl, connectionTimeoutMillis: 10_000 });
    await client.connect();
    return client;
  },
  (client) => client.end(),
);
const admin: TestUser = { userId: '00000000-0000-4000-8000-0000000000ad', username: 'admin', admin: true };
const { RESPONSE_STATUS_SUCCESS: success, RESPONSE_STATUS_ERROR: error } = ResponseStatus;

async function metering() {
  return hub.client(MeteringServiceService, service.address, { token: await hub.serviceToken('assistant', 'tools') });
}

/** Somebody new. */
async function newcomer(plan: PlanName | undefined = PlanName.PLAN_NAME_FREE) {
  const userId = uuid();
  const token = await hub.userToken({ userId, username: `u-${userId.slice(0, 8)}` });
  const usage = hub.client(UsageServiceService, service.address, { token });
  const subscriptions = hub.client(SubscriptionServiceService, service.address, { token });
  if (plan !== undefined && plan !== PlanName.PLAN_NAME_UNSPECIFIED) await subscriptions.subscribe({ plan });
  return {
    userId,
    tools: hub.client(ToolServiceService, service.address, { token }),
    usage: async () =>
      (await usage.listUsage({ startDate: '', endDate: '', toolId: '', limit: undefined, offset: 0 })).usage,
    subscription: async () => (await subscriptions.getSubscription({})).subscription!,
  };
}

async function reserve(userId: string, seconds = 60): Promise<string> {
  const answer = await (await metering()).reserveTokens({ userId, requestId: 'request-1', seconds });
  return answer.reservationId;
}

async function settle(userId: string, reservationId: string, tokens: bigint, status: ResponseStatus = success) {
  await (await metering()).settleTokens({ userId, reservationId, tokens, status, durationMs: 1_234 });
}

test('what a service has used is in the usage of its user under its name, and in the counter of the subscription', async (t) => {
  const person = await newcomer();
  const reservationId = await reserve(person.userId);
  t.deepEqual(await person.usage(), []);
  await settle(person.userId, reservationId, 321n);
  t.like(await person.usage(), [
    {
      id: reservationId,
      toolName: 'assistant',
      tokensUsed: 321n,
      responseStatus: success,
      durationMs: 1_234n,
      requestId: 'request-1',
    },
  ]);
  t.is((await person.subscription()).tokensUsed, 321n);
});

test('a settlement may be repeated, and counts once', async (t) => {
  const person = await newcomer();
  const reservationId = await reserve(person.userId);
  for (let times = 0; times < 3; times += 1) await settle(person.userId, reservationId, 10n);
  t.is((await person.usage()).length, 1);
  t.is((await person.subscription()).tokensUsed, 10n);
});

test('work that never began leaves no trace, and what it had reserved is free', async (t) => {
  const person = await newcomer();
  await settle(person.userId, await reserve(person.userId), 0n, ResponseStatus.RESPONSE_STATUS_UNSPECIFIED);
  t.deepEqual(await person.usage(), []);
  await settle(person.userId, await reserve(person.userId), 5n);
  t.is((await person.subscription()).tokensUsed, 5n);
});

test('without a subscription, or with all tokens used, nothing can begin', async (t) => {
  const nobody = await newcomer(PlanName.PLAN_NAME_UNSPECIFIED);
  await t.throwsAsync(reserve(nobody.userId), { instanceOf: HubError, message: /subscription/ });
  const person = await newcomer();
  const { tokenLimit } = await person.subscription();
  await settle(person.userId, await reserve(person.userId), tokenLimit);
  const refused = (await t.throwsAsync(reserve(person.userId), { instanceOf: HubError })) as HubError;
  t.is(refused.kind, 'PERMISSION_DENIED');
  t.is(refused.reason, 'TOKEN_LIMIT_EXCEEDED');
});

test('work that nobody settles has failed once its time is over, and can be settled no more', async (t) => {
  const person = await newcomer();
  const reservationId = await reserve(person.userId, 1);
  const passed = await database.query<{ seconds: number }>(
    `update tools.reservations set expires_at = now() where id = $1
     returning extract(epoch from old.expires_at - old.began_at)::int as seconds`,
    [reservationId],
  );
  t.deepEqual(passed.rows, [{ seconds: 31 }], 'it lasts as long as the work may take, and a while to settle it');
  const [record] = await eventually('it is in the usage', person.usage, (usage) => usage.length === 1);
  t.like(record, { tokensUsed: 0n, responseStatus: error });
  const late = (await t.throwsAsync(settle(person.userId, reservationId, 5n), { instanceOf: HubError })) as HubError;
  t.is(late.reason, 'RESERVATION_EXPIRED');
  t.is((await person.subscription()).tokensUsed, 0n);
});

test('what counts as a tool without being one can be neither seen, invoked nor changed, and takes no name', async (t) => {
  const person = await newcomer();
  await settle(person.userId, await reserve(person.userId), 1n);
  const [record] = await person.usage();
  const { toolId } = record!;
  await t.throwsAsync(person.tools.getTool({ toolId }), { message: 'Tool not found' });
  await t.throwsAsync(person.tools.invokeTool({ toolId, input: {} }), { message: 'Tool not found' });
  t.false(
    (await person.tools.listTools({ limit: undefined, offset: 0 })).tools.some(({ name }) => name === 'assistant'),
  );
  const administration = hub.client(ToolAdminServiceService, service.address, { token: await hub.userToken(admin) });
  await t.throwsAsync(administration.updateTool({ toolId, isActive: true }), { message: 'Tool not found' });
  const { tool } = await administration.createTool({
    name: 'assistant',
    description: 'Of somebody else',
    apiEndpoint: 'http://127.0.0.1:9/x',
  });
  t.not(tool?.id, toolId);
  t.is((await person.usage())[0]?.toolId, toolId);
});
