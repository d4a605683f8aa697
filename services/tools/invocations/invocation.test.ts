import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import {
  PlanName,
  ResponseStatus,
  SubscriptionServiceService,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
  type InvokeToolResponse,
} from '#gen/chat4all/tools/v1/tools.ts';
import { HubError } from '#lib/errors.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness, type StartedProcess, type TestUser } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { answering, startToolServer, type Behaviour } from '../../../test/tool-servers.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() => hub.startService('auth', { SEED_USERS: '1' }));
const service = opened(() => hub.startService('tools'));
/** With limits that are reached soon. */
const hasty = opened(() =>
  hub.startService('tools', { TOOL_TIMEOUT: '4s', TOOL_RESPONSE_LIMIT: '1000', TOOL_CIRCUIT_RESET: '1s' }),
);
const servers = opened(startToolServer, (server) => server.stop());

const admin: TestUser = { userId: '00000000-0000-4000-8000-0000000000ad', username: 'admin', admin: true };

interface Person extends TestUser {
  tools: ReturnType<typeof hub.client<typeof ToolServiceService>>;
  usage: ReturnType<typeof hub.client<typeof UsageServiceService>>;
  subscriptions: ReturnType<typeof hub.client<typeof SubscriptionServiceService>>;
}

/** Somebody new, as whom each test calls. */
async function newcomer(plan?: PlanName, at: StartedProcess = service): Promise<Person> {
  const userId = uuid();
  const user = { userId, username: `u-${userId.slice(0, 8)}` };
  const token = await hub.userToken(user);
  const person = {
    ...user,
    tools: hub.client(ToolServiceService, at.address, { token }),
    usage: hub.client(UsageServiceService, at.address, { token }),
    subscriptions: hub.client(SubscriptionServiceService, at.address, { token }),
  };
  if (plan !== undefined) await person.subscriptions.subscribe({ plan });
  return person;
}

/** A tool that behaves so. @returns its id, and the path by which its server counts */
async function newTool(behaviour: Behaviour, path = `/${uuid()}`): Promise<{ toolId: string; path: string }> {
  servers.on(path, behaviour);
  const administration = hub.client(ToolAdminServiceService, service.address, { token: await hub.userToken(admin) });
  const { tool } = await administration.createTool({
    name: `tool ${uuid()}`,
    description: 'For tests',
    apiEndpoint: `${servers.url}${path}`,
  });
  return { toolId: tool!.id, path };
}

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  return (await t.throwsAsync(call, { instanceOf: HubError }))!;
}

/** That a user's history, sums and counter say the same. @returns what they say */
async function consistent(t: ExecutionContext, { usage, subscriptions }: Person) {
  const [{ usage: records, pagination }, summary, { subscription }] = await Promise.all([
    usage.listUsage({ startDate: '', endDate: '', toolId: '', limit: 100, offset: 0 }),
    usage.getUsageSummary({ startDate: '', endDate: '' }),
    subscriptions.getSubscription({}),
  ]);
  const tokens = records.reduce((sum, record) => sum + Number(record.tokensUsed), 0);
  t.is(Number(summary.totalTokens), tokens);
  t.is(Number(subscription!.tokensUsed), tokens);
  t.is(Number(summary.totalInvocations), Number(pagination!.total));
  t.is(
    summary.byDay.reduce((sum, day) => sum + Number(day.tokensUsed), 0),
    tokens,
  );
  return { records, tokens };
}

const { PLAN_NAME_FREE: free, PLAN_NAME_PRO: pro } = PlanName;

test('invokeTool: sends the bare input, and answers with what came back, and what it cost', async (t) => {
  const person = await newcomer(free);
  const { toolId, path } = await newTool((response, { body }) =>
    answering({ got: JSON.parse(body) })(response, undefined!),
  );
  const input = { text: 'Grüße', list: [1, 2.5, null, { deep: true }] };
  const answer = await person.tools.invokeTool({ toolId, input });
  t.deepEqual(answer.output, { got: input });
  const bytes = Buffer.byteLength(JSON.stringify(input)) + Buffer.byteLength(JSON.stringify({ got: input }));
  t.is(Number(answer.tokensUsed), Math.ceil(bytes / 4));
  const asked = servers.asked.find((one) => one.path === path)!;
  t.is(asked.body, JSON.stringify(input));
  t.is(asked.headers['content-type'], 'application/json');
  t.is(asked.headers['x-request-id'], answer.requestId);
  t.regex(String(asked.headers['user-agent']), /chat4all/);
  for (const header of ['authorization', 'x-api-key', 'cookie', 'x-forwarded-for']) {
    t.is(asked.headers[header], undefined, header);
  }
  const { records } = await consistent(t, person);
  t.is(records.length, 1);
  t.like(records[0], {
    toolId,
    tokensUsed: answer.tokensUsed,
    responseStatus: ResponseStatus.RESPONSE_STATUS_SUCCESS,
    requestId: answer.requestId,
    durationMs: answer.durationMs,
  });
});

test('invokeTool: what is no object comes as a result, and the tool may say what it cost', async (t) => {
  const person = await newcomer(free);
  const cases: [unknown, object, number?][] = [
    [[1, 2], { result: [1, 2] }],
    ['text', { result: 'text' }],
    [null, { result: null }],
    [{ usage: { total_tokens: 12 }, tokens_used: 5 }, { usage: { total_tokens: 12 }, tokens_used: 5 }, 12],
    [{ usage: { total_tokens: -1 }, tokens_used: 5 }, { usage: { total_tokens: -1 }, tokens_used: 5 }, 5],
  ];
  for (const [value, output, tokens] of cases) {
    const { toolId } = await newTool(answering(value));
    const answer = await person.tools.invokeTool({ toolId, input: {} });
    t.deepEqual(answer.output, output);
    t.is(Number(answer.tokensUsed), tokens ?? Math.ceil((2 + JSON.stringify(output).length) / 4));
  }
  await consistent(t, person);
});

test('invokeTool: refuses in the order of the contract, and leaves no trace of it', async (t) => {
  const unknown = uuid();
  const stranger = await newcomer();
  t.is((await refusal(t, stranger.tools.invokeTool({ toolId: unknown, input: {} }))).reason, 'SUBSCRIPTION_REQUIRED');
  const person = await newcomer(free);
  t.is((await refusal(t, person.tools.invokeTool({ toolId: unknown, input: {} }))).reason, 'TOOL_NOT_FOUND');
  const { toolId, path } = await newTool(answering({ tokens_used: 1_000 }));
  await person.tools.invokeTool({ toolId, input: {} });
  const full = await refusal(t, person.tools.invokeTool({ toolId: unknown, input: {} }));
  t.deepEqual([full.kind, full.reason], ['PERMISSION_DENIED', 'TOKEN_LIMIT_EXCEEDED']);
  t.is(servers.count(path), 1);
  t.is((await consistent(t, person)).records.length, 1);
  const { fields } = await refusal(t, person.tools.invokeTool({ toolId: 'x', input: undefined }));
  t.deepEqual(fields.map(({ field }) => field).toSorted(), ['input', 'tool_id']);
});

test('twenty invocations at once at the limit: one is let through, however long the tool takes', async (t) => {
  for (const [used, cost, begin] of [
    [999, 50, 1],
    [900, 50, 2],
    [0, 1_000, 1],
  ] as const) {
    const person = await newcomer(free);
    if (used > 0) {
      const { toolId } = await newTool(answering({ tokens_used: used }));
      await person.tools.invokeTool({ toolId, input: {} });
    }
    const { toolId, path } = await newTool((response) => {
      setTimeout(() => answering({ tokens_used: cost })(response, undefined!), 300);
    });
    const calls = Array.from({ length: 20 }, () => person.tools.invokeTool({ toolId, input: {} }));
    const outcomes = await Promise.allSettled(calls);
    const reasons = outcomes.map((each) => (each.status === 'fulfilled' ? 'OK' : (each.reason as HubError).reason));
    t.is(reasons.filter((reason) => reason === 'OK').length, begin, `${used} + ${cost}`);
    t.is(reasons.filter((reason) => reason === 'TOKEN_LIMIT_EXCEEDED').length, 20 - begin);
    t.is(servers.count(path), begin);
    t.is((await consistent(t, person)).tokens, used + begin * cost);
  }
});

test('the limit holds across processes', async (t) => {
  const other = await hub.startService('tools');
  t.teardown(() => other.stop());
  const person = await newcomer(free);
  const there = hub.client(ToolServiceService, other.address, { token: await hub.userToken(person) });
  const { toolId, path } = await newTool((response, one) => {
    setTimeout(() => answering({ tokens_used: 400 })(response, one), 300);
  });
  const outcomes = await Promise.allSettled(
    Array.from({ length: 20 }, (_, index) =>
      (index % 2 === 0 ? person.tools : there).invokeTool({ toolId, input: {} }),
    ),
  );
  t.is(outcomes.filter(({ status }) => status === 'fulfilled').length, 3);
  t.is(servers.count(path), 3);
  t.is((await consistent(t, person)).tokens, 1_200);
});

test('far from the limit, invocations of one user run at once', async (t) => {
  const person = await newcomer(pro);
  const waiting: (() => void)[] = [];
  const { toolId } = await newTool((response, one) => {
    waiting.push(() => answering({ tokens_used: 3 })(response, one));
  });
  const answerOnce = async (count: number) => {
    await eventually(
      `${count} are under way`,
      () => waiting.length,
      (length) => length === count,
    );
    for (const answer of waiting.splice(0)) answer();
  };
  // What a tool costs that nobody has used is unknown: one is asked alone first, then all others.
  await Promise.all([
    ...Array.from({ length: 21 }, () => person.tools.invokeTool({ toolId, input: {} })),
    answerOnce(1).then(() => answerOnce(20)),
  ]);
  t.is((await consistent(t, person)).tokens, 63);
});

test('a tool that answers with 4xx or a redirect is asked once; its circuit stays closed', async (t) => {
  const person = await newcomer(free, hasty);
  for (const status of [400, 401, 404, 409, 422, 301, 302, 307, 308]) {
    const { toolId, path } = await newTool((response) => {
      response.writeHead(status, { Location: `${servers.url}/elsewhere` }).end('{}');
    });
    for (let time = 0; time < 6; time += 1) {
      const error = await refusal(t, person.tools.invokeTool({ toolId, input: {} }));
      t.deepEqual([error.kind, error.reason], ['UNAVAILABLE', 'TOOL_UNAVAILABLE'], String(status));
      t.true(error.retryAfter! >= 1);
    }
    t.is(servers.count(path), 6);
  }
  t.is(servers.count('/elsewhere'), 0);
  const { records, tokens } = await consistent(t, person);
  t.is(tokens, 0);
  t.true(records.every((record) => record.responseStatus === ResponseStatus.RESPONSE_STATUS_ERROR));
  t.is(records.length, 54);
});

const failures: [string, Behaviour, number][] = [
  ['5xx', answering({}, 500), 3],
  ['503', answering({}, 503), 3],
  ['closed at once', (response) => void response.socket!.destroy(), 3],
  [
    'closed in the middle',
    (response) => {
      response.writeHead(200, { 'Content-Length': '100' });
      response.write('{"half": ', () => response.socket!.destroy());
    },
    3,
  ],
  ['no JSON', (response) => void response.writeHead(200).end('<html></html>'), 1],
  ['nothing', (response) => void response.writeHead(204).end(), 1],
  ['no UTF-8', (response) => void response.writeHead(200).end(Buffer.from([0x22, 0xff, 0x22])), 1],
  ['too large', answering({ text: 'x'.repeat(1_000) }), 1],
  [
    'too large without saying so',
    (response) => {
      response.writeHead(200);
      for (let piece = 0; piece < 20; piece += 1) response.write('x'.repeat(100));
      response.end();
    },
    1,
  ],
  ['too deep', (response) => void response.writeHead(200).end('['.repeat(200) + ']'.repeat(200)), 1],
];

for (const [what, behaviour, tries] of failures) {
  test(`a tool that fails (${what}): is tried ${tries} times, counts nothing, and is left alone after five in a row`, async (t) => {
    const person = await newcomer(free, hasty);
    let isWell = false;
    const { toolId, path } = await newTool((response, asked) =>
      isWell ? answering({ tokens_used: 7 })(response, asked) : behaviour(response, asked),
    );
    for (let time = 1; time <= 5; time += 1) {
      const error = await refusal(t, person.tools.invokeTool({ toolId, input: {} }));
      t.deepEqual([error.kind, error.reason], ['UNAVAILABLE', 'TOOL_UNAVAILABLE']);
      t.true(error.retryAfter! >= 1);
      t.is(servers.count(path), time * tries);
    }
    const open = await refusal(t, person.tools.invokeTool({ toolId, input: {} }));
    t.is(open.reason, 'CIRCUIT_OPEN');
    t.true(open.retryAfter! >= 1);
    t.is(servers.count(path), 5 * tries);
    const { records, tokens } = await consistent(t, person);
    t.is(tokens, 0);
    t.is(records.length, 5);
    t.true(records.every((record) => record.responseStatus === ResponseStatus.RESPONSE_STATUS_ERROR));
    isWell = true;
    await sleep(1_100);
    t.is(Number((await person.tools.invokeTool({ toolId, input: {} })).tokensUsed), 7);
    t.is(servers.count(path), 5 * tries + 1);
  });
}

test('an open circuit lets one probe through, and opens again if that fails', async (t) => {
  const person = await newcomer(pro, hasty);
  const { toolId, path } = await newTool((response) => {
    setTimeout(() => response.writeHead(200).end('no JSON'), 300);
  });
  const invoke = async () => (await refusal(t, person.tools.invokeTool({ toolId, input: {} }))).reason;
  for (let time = 0; time < 5; time += 1) t.is(await invoke(), 'TOOL_UNAVAILABLE');
  await sleep(1_100);
  const reasons = await Promise.all(Array.from({ length: 10 }, invoke));
  t.is(reasons.filter((reason) => reason === 'TOOL_UNAVAILABLE').length, 1);
  t.is(reasons.filter((reason) => reason === 'CIRCUIT_OPEN').length, 9);
  t.is(await invoke(), 'CIRCUIT_OPEN');
  t.is(servers.count(path), 6);
  t.is((await consistent(t, person)).records.length, 6);
});

test('successes in between keep a circuit closed', async (t) => {
  const person = await newcomer(pro, hasty);
  let asked = 0;
  const { toolId } = await newTool((response, one) => {
    asked += 1;
    if (asked % 5 === 0) answering({ tokens_used: 0 })(response, one);
    else response.writeHead(200).end('no JSON');
  });
  for (let time = 1; time <= 15; time += 1) {
    const call = person.tools.invokeTool({ toolId, input: {} });
    if (time % 5 === 0) await call;
    else t.is((await refusal(t, call)).reason, 'TOOL_UNAVAILABLE');
  }
});

const slow: [string, Behaviour][] = [
  ['never answers', () => {}],
  ['sends headers and no more', (response) => void response.writeHead(200).write('{')],
  [
    'sends a byte now and then',
    (response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write(' '), 100);
      response.on('close', () => clearInterval(timer));
    },
  ],
];

for (const [what, behaviour] of slow) {
  test(`a tool that ${what}: is given up after TOOL_TIMEOUT, and not tried again`, async (t) => {
    const person = await newcomer(free, hasty);
    const { toolId, path } = await newTool(behaviour);
    const began = Date.now();
    const error = await refusal(t, person.tools.invokeTool({ toolId, input: {} }));
    t.deepEqual([error.kind, error.reason], ['UNAVAILABLE', 'TOOL_TIMEOUT']);
    t.true(error.retryAfter! >= 1);
    t.true(Date.now() - began >= 3_950);
    t.is(servers.count(path), 1);
    const { records } = await consistent(t, person);
    t.is(records[0]!.responseStatus, ResponseStatus.RESPONSE_STATUS_TIMEOUT);
    t.true(Number(records[0]!.durationMs) >= 3_950);
  });
}

test('tries are one invocation: what goes well the second time is a success', async (t) => {
  const person = await newcomer(free);
  let asked = 0;
  const { toolId, path } = await newTool((response, one) => {
    asked += 1;
    answering(asked === 3 ? { tokens_used: 9 } : {}, asked === 3 ? 200 : 502)(response, one);
  });
  t.is(Number((await person.tools.invokeTool({ toolId, input: {} })).tokensUsed), 9);
  t.is(servers.count(path), 3);
  const ids = servers.asked.filter((one) => one.path === path).map((one) => one.headers['x-request-id']);
  t.is(new Set(ids).size, 1);
  t.is((await consistent(t, person)).records.length, 1);
});

test('429: Retry-After is obeyed within the time that is left; beyond it the call fails at once', async (t) => {
  const person = await newcomer(free);
  let asked = 0;
  const soon = await newTool((response, one) => {
    asked += 1;
    if (asked > 1) return answering({ tokens_used: 1 })(response, one);
    response.writeHead(429, { 'Retry-After': '1' }).end();
  });
  const began = Date.now();
  await person.tools.invokeTool({ toolId: soon.toolId, input: {} });
  t.true(Date.now() - began >= 1_000);
  for (const header of ['3600', new Date(Date.now() + 3_600_000).toUTCString()]) {
    const late = await newTool((response) => void response.writeHead(429, { 'Retry-After': header }).end());
    for (let time = 1; time <= 6; time += 1) {
      const error = await refusal(t, person.tools.invokeTool({ toolId: late.toolId, input: {} }));
      t.is(error.reason, 'TOOL_UNAVAILABLE');
      t.true(error.retryAfter! > 3_500 && error.retryAfter! <= 3_600, String(error.retryAfter));
      t.is(servers.count(late.path), time);
    }
  }
  await consistent(t, person);
});

test('a tool at an address that may not be asked: 503, and no trace', async (t) => {
  const strict = await hub.startService('tools', { TOOL_ALLOWED_HOSTS: 'tools.example' });
  t.teardown(() => strict.stop());
  const person = await newcomer(free, strict);
  const { toolId, path } = await newTool(answering({}));
  for (let time = 0; time < 7; time += 1) {
    const error = await refusal(t, person.tools.invokeTool({ toolId, input: {} }));
    t.deepEqual([error.kind, error.reason], ['UNAVAILABLE', 'TOOL_UNAVAILABLE']);
    t.true(error.retryAfter! >= 1);
  }
  t.is(servers.count(path), 0);
  t.is((await consistent(t, person)).records.length, 0);
});

test('a caller that goes away: the call ends and is counted all the same', async (t) => {
  const person = await newcomer(free);
  const { toolId, path } = await newTool((response) => {
    setTimeout(() => answering({ tokens_used: 11 })(response, undefined!), 800);
  });
  const token = await hub.userToken(person);
  const impatient = hub.client(ToolServiceService, service.address, { token, timeout: 300 });
  const error = await refusal(t, impatient.invokeTool({ toolId, input: {} }));
  t.is(error.kind, 'DEADLINE_EXCEEDED');
  await eventually(
    'the call is counted',
    async () => (await person.subscriptions.getSubscription({})).subscription!.tokensUsed,
    (used) => used === 11n,
  );
  t.is(servers.count(path), 1);
  await consistent(t, person);
});

test('a call that runs while its subscription ends completes, and counts in the period that it began in', async (t) => {
  const brief = await hub.startService('tools', { PLAN_PERIOD: '1s' });
  t.teardown(() => brief.stop());
  const person = await newcomer(free, brief);
  const { toolId } = await newTool((response) => {
    setTimeout(() => answering({ tokens_used: 11 })(response, undefined!), 1_500);
  });
  const running = person.tools.invokeTool({ toolId, input: {} });
  await sleep(100);
  await person.subscriptions.cancelSubscription({});
  t.is(Number((await running).tokensUsed), 11);
  t.is((await consistent(t, person)).tokens, 11);
  t.is((await refusal(t, person.tools.invokeTool({ toolId, input: {} }))).reason, 'SUBSCRIPTION_REQUIRED');
  const renewed = await person.subscriptions.subscribe({ plan: free });
  t.is(renewed.subscription!.tokensUsed, 0n);
});

test('a service that stops ends what is under way, and counts it as failed', async (t) => {
  const other = await hub.startService('tools');
  const person = await newcomer(free, other);
  const { toolId, path } = await newTool(() => {});
  const running = person.tools.invokeTool({ toolId, input: {} }).catch(() => {});
  await eventually(
    'the tool is asked',
    () => servers.count(path),
    (asked) => asked > 0,
  );
  await other.stop();
  await running;
  const there = { ...person, ...(await at(person)) };
  const { records } = await consistent(t, there);
  t.deepEqual(
    records.map((record) => record.responseStatus),
    [ResponseStatus.RESPONSE_STATUS_ERROR],
  );
});

/** Somebody's clients of the service that all tests share. */
async function at(user: TestUser) {
  const token = await hub.userToken(user);
  return {
    tools: hub.client(ToolServiceService, service.address, { token }),
    usage: hub.client(UsageServiceService, service.address, { token }),
    subscriptions: hub.client(SubscriptionServiceService, service.address, { token }),
  };
}

test('a user who has half of all places gets no more, and others still do', async (t) => {
  const small = await hub.startService('tools', { GRPC_CONCURRENCY: '8' });
  t.teardown(() => small.stop());
  const greedy = await newcomer(pro, small);
  const other = await newcomer(pro, small);
  const waiting: (() => void)[] = [];
  const { toolId } = await newTool((response, one) => {
    waiting.push(() => answering({ tokens_used: 1 })(response, one));
  });
  const quick = await newTool(answering({ tokens_used: 1 }));
  await Promise.all([
    greedy.tools.invokeTool({ toolId: quick.toolId, input: {} }),
    other.tools.invokeTool({ toolId: quick.toolId, input: {} }),
  ]);
  // What a tool costs that nobody has used is unknown: one is asked alone first.
  const first = greedy.tools.invokeTool({ toolId, input: {} });
  await eventually(
    'the tool is asked',
    () => waiting.length,
    (length) => length === 1,
  );
  waiting.pop()!();
  await first;
  const calls: Promise<InvokeToolResponse | HubError>[] = Array.from({ length: 8 }, () =>
    greedy.tools.invokeTool({ toolId, input: {} }).catch((error: HubError) => error),
  );
  await eventually(
    'the tool is asked',
    () => waiting.length,
    (length) => length === 4,
  );
  t.is(Number((await other.tools.invokeTool({ toolId: quick.toolId, input: {} })).tokensUsed), 1);
  await sleep(300);
  for (const answer of waiting) answer();
  const outcomes = await Promise.all(calls);
  const refused = outcomes.filter((outcome): outcome is HubError => outcome instanceof HubError);
  t.is(refused.length, 4);
  t.true(refused.every(({ reason }) => reason === 'TOO_MANY_CALLS'));
  await consistent(t, greedy);
});

test('the auth service knows its users: who invokes is who it says', async (t) => {
  const client = hub.client(AuthServiceService, auth.address);
  const { token } = await client.issueToken({ username: 'user1', password: 'password123' });
  const subscriptions = hub.client(SubscriptionServiceService, service.address, { token });
  const { subscription } = await subscriptions.subscribe({ plan: free });
  t.is(subscription!.plan, free);
});
