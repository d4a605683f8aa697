import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, stepCountIs, streamText, tool as aiTool } from 'ai';
import test from 'ava';
import OpenAI from 'openai';
import { PlanName, SubscriptionServiceService, UsageServiceService } from '#gen/chat4all/tools/v1/tools.ts';
import { eventually } from '../eventually.ts';
import { startMesh } from '../harness.ts';
import { beginEvents, calling, chunk, saying, sendEvent, startModelServer } from '../model-server.ts';
import { opened } from '../opened.ts';

const services = ['auth', 'conversation', 'connectors', 'file', 'message', 'tools', 'assistant'];
/** Without a model: the scripted one answers. */
const mesh = opened(
  () => startMesh({ bus: 'embedded', services }),
  (mesh) => mesh.stop(),
);
/** A model that tests tell what to answer, and answers that are billed. */
const model = opened(
  () => startModelServer(),
  (server) => server.stop(),
);
const billed = opened(async () => {
  const assistant = await mesh.startService('assistant', {
    ASSISTANT_BASE_URL: model.url,
    ASSISTANT_MODEL: 'm-1',
    ASSISTANT_TIMEOUT: '5s',
    ASSISTANT_BILLING: 'true',
  });
  const gateway = await mesh.startGateway();
  return { assistant, url: `http://127.0.0.1:${gateway.port}` };
});

async function keyOf(number: number, url: string = mesh.url): Promise<string> {
  const response = await fetch(`${url}/auth/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username: `user${number}`, password: 'password123' }),
  });
  return ((await response.json()) as { token: string }).token;
}

const openAi = async (number: number, url: string = mesh.url) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: await keyOf(number, url), maxRetries: 0 });

const user = (content: string): OpenAI.ChatCompletionMessageParam => ({ role: 'user', content });
const weather = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'The weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

test('openai: lists the models, and gets one; another one is not there', async (t) => {
  const client = await openAi(1);
  const { data } = await client.models.list();
  t.deepEqual(
    data.map(({ id }) => id),
    ['scripted'],
  );
  t.is((await client.models.retrieve('scripted')).id, 'scripted');
  await t.throwsAsync(client.models.retrieve('gpt-5'), { instanceOf: OpenAI.NotFoundError });
});

test('openai: the agent does what it is asked for, as a whole and as a stream, for the owner of the key', async (t) => {
  const client = await openAi(1);
  const whole = await client.chat.completions.create({
    model: 'scripted',
    messages: [user('Add a task to buy groceries')],
  });
  t.regex(whole.choices[0]?.message.content ?? '', /"Buy groceries"/);
  const stream = client.chat.completions.stream({
    model: 'scripted',
    messages: [user('Show me all my tasks')],
    stream_options: { include_usage: true },
  });
  const streamed = await stream.finalChatCompletion();
  t.regex(streamed.choices[0]?.message.content ?? '', /\[ \] Buy groceries/);
  t.true(streamed.usage!.total_tokens > 0);
  const other = await openAi(2);
  const theirs = await other.chat.completions.create({ model: 'scripted', messages: [user('Show me all my tasks')] });
  t.regex(theirs.choices[0]?.message.content ?? '', /You have no tasks/);
});

test("openai: calls of the client's own tools come back to it", async (t) => {
  const client = await openAi(1);
  const messages = [user('Call get_weather with {"city": "Lisbon"}')];
  const { choices } = await client.chat.completions.create({ model: 'scripted', messages, tools: [weather] });
  const { message, finish_reason: reason } = choices[0]!;
  t.is(reason, 'tool_calls');
  const [call] = message.tool_calls!;
  const answered = await client.chat.completions.create({
    model: 'scripted',
    messages: [...messages, message, { role: 'tool', tool_call_id: call!.id, content: '{"celsius": 21}' }],
    tools: [weather],
  });
  t.regex(answered.choices[0]?.message.content ?? '', /21/);
});

test('ai: text, streams and tools work through its OpenAI-compatible provider', async (t) => {
  const provider = createOpenAICompatible({ name: 'hub', baseURL: `${mesh.url}/v1`, apiKey: await keyOf(3) });
  const chosen = provider('scripted');
  t.regex((await generateText({ model: chosen, prompt: 'Add a task to call mom' })).text, /"Call mom"/);
  const tools = {
    get_weather: aiTool({
      description: 'The weather in a city',
      inputSchema: jsonSchema<{ city: string }>(weather.function.parameters as never),
      execute: async () => ({ celsius: 21 }),
    }),
  };
  const prompt = 'Call get_weather with {"city": "Lisbon"}';
  const { text } = streamText({ model: chosen, prompt, tools, stopWhen: stepCountIs(3) });
  t.regex(await text, /21/);
});

test("errors have OpenAI's object beside the members of the problem", async (t) => {
  const client = await openAi(1);
  const wrong = await t.throwsAsync(
    client.chat.completions.create({ model: 'scripted', messages: [], temperature: 7 }),
    { instanceOf: OpenAI.BadRequestError },
  );
  t.regex(wrong.message, /messages.*temperature/);
  const nobody = new OpenAI({ baseURL: `${mesh.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
  await t.throwsAsync(nobody.models.list(), { instanceOf: OpenAI.AuthenticationError });
  const response = await fetch(`${mesh.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${await keyOf(1)}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'gpt-5', messages: [user('Hello')] }),
  });
  t.is(response.status, 404);
  const body = (await response.json()) as Record<string, unknown> & { error: Record<string, unknown> };
  t.like(body, { status: 404, error_code: 'MODEL_NOT_FOUND' });
  t.is(typeof body.error['message'], 'string');
  t.is(typeof body.error['type'], 'string');
});

test.serial('an answer needs a subscription where it is billed, and is in the usage', async (t) => {
  const client = await openAi(4, billed.url);
  const request = { model: 'm-1', messages: [user('Hello')] };
  model.on(saying('Hello to you'));
  const before = model.calls.length;
  await t.throwsAsync(client.chat.completions.create(request), { instanceOf: OpenAI.PermissionDeniedError });
  t.is(model.calls.length, before, 'the model is not asked');

  const token = await keyOf(4);
  const tools = mesh.services['tools']!.address;
  const subscriptions = mesh.client(SubscriptionServiceService, tools, { token });
  await subscriptions.subscribe({ plan: PlanName.PLAN_NAME_FREE });
  const answer = await client.chat.completions.create(request);
  t.is(answer.choices[0]?.message.content, 'Hello to you');
  const usage = mesh.client(UsageServiceService, tools, { token });
  const { usage: records } = await usage.listUsage({
    startDate: '',
    endDate: '',
    toolId: '',
    limit: undefined,
    offset: 0,
  });
  t.like(records, [{ toolName: 'assistant', tokensUsed: BigInt(answer.usage!.total_tokens) }]);
});

test.serial('a provider that fails is told of by status, in the middle of a stream by an event', async (t) => {
  const token = await keyOf(5);
  const subscriptions = mesh.client(SubscriptionServiceService, mesh.services['tools']!.address, { token });
  await subscriptions.subscribe({ plan: PlanName.PLAN_NAME_FREE });
  const client = await openAi(5, billed.url);
  const request = { model: 'm-1', messages: [user('Hello')] };
  const statusOf = async () => {
    const error = await t.throwsAsync(client.chat.completions.create(request), { instanceOf: OpenAI.APIError });
    return error.status === 503 ? [503, error.headers?.get('retry-after')] : [error.status];
  };
  model.on((response) => void response.writeHead(500).end());
  t.deepEqual(await statusOf(), [502]);
  model.on((response) => void response.writeHead(429, { 'retry-after': '7' }).end());
  t.deepEqual(await statusOf(), [503, '7']);
  model.on((response) => {
    beginEvents(response);
    sendEvent(response, chunk({ content: 'Half an ' }));
    response.end();
  });
  let text = '';
  const error = await t.throwsAsync(async () => {
    for await (const each of await client.chat.completions.create({ ...request, stream: true })) {
      text += each.choices[0]?.delta.content ?? '';
    }
  });
  t.is(text, 'Half an ');
  t.is((error as InstanceType<typeof OpenAI.APIError>).code, 'provider_error');
});

for (const stream of [false, true]) {
  const how = stream ? 'streamed' : 'as a whole';
  test.serial(
    `a tool with an effect is not called again by a client that asks again after errors: ${how}`,
    async (t) => {
      const number = stream ? 4 : 5;
      const token = await keyOf(number);
      const subscriptions = mesh.client(SubscriptionServiceService, mesh.services['tools']!.address, { token });
      await subscriptions.subscribe({ plan: PlanName.PLAN_NAME_FREE });
      const before = model.calls.length;
      model.on((response, call) =>
        call.body.messages.some(({ role }) => role === 'tool')
          ? void response.writeHead(500).end()
          : calling({ id: 'c', name: 'tasks__add_task', arguments: '{"title": "Once"}' })(response, call),
      );
      const client = new OpenAI({ baseURL: `${billed.url}/v1`, apiKey: token, maxRetries: 2 });
      const error = await t.throwsAsync(
        async () => {
          const request = { model: 'm-1', messages: [user('Hello')] };
          if (!stream) return client.chat.completions.create(request);
          for await (const _ of await client.chat.completions.create({ ...request, stream })) continue;
        },
        { instanceOf: OpenAI.APIError },
      );
      t.is(error.code, 'provider_error');
      t.is(model.calls.length, before + 2, 'the model is asked once, and told of the tool once');
      const tasks = await fetch(`${mesh.url}/api/${number}/tasks`, { headers: { authorization: `Bearer ${token}` } });
      t.deepEqual(
        ((await tasks.json()) as { title: string }[]).map(({ title }) => title),
        ['Once'],
      );
    },
  );
}

test.serial('a client that goes in the middle of a stream ends the call of the model within a second', async (t) => {
  const token = await keyOf(4);
  const subscriptions = mesh.client(SubscriptionServiceService, mesh.services['tools']!.address, { token });
  await subscriptions.subscribe({ plan: PlanName.PLAN_NAME_FREE });
  model.on((response) => {
    beginEvents(response);
    sendEvent(response, chunk({ content: 'Hello' }));
  });
  const client = await openAi(4, billed.url);
  const stream = await client.chat.completions.create({ model: 'm-1', messages: [user('Hello')], stream: true });
  for await (const each of stream) if (each.choices[0]?.delta.content) break;
  const { gone } = model.calls.at(-1)!;
  t.true(await eventually('the call has ended there', () => gone.aborted, Boolean, 1_000));
});
