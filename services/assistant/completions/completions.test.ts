import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, stepCountIs, streamText, tool as aiTool } from 'ai';
import test, { type ExecutionContext } from 'ava';
import OpenAI from 'openai';
import { HubError } from '#lib/errors.ts';
import { calling, chunk, saying, startModelServer, streaming } from '../../../test/model-server.ts';
import { eventually } from '../../../test/eventually.ts';
import { openOpenAi } from '../provider/openai.ts';
import { ProviderError, type PromptMessage, type Provider } from '../provider/provider.ts';
import { openScripted } from '../provider/scripted.ts';
import { toolContent } from '../provider/tool-content.ts';
import type { Tool, ToolCaller, ToolOutcome } from '../toolbox/toolbox.ts';
import { readCompletionRequest } from './completion-request.ts';
import { openCompletions, type Completions, type CompletionsOptions } from './completions.ts';
const caller = {
  userId: 'a0000000-0000-4000-8000-000000000001',
  numId: 1n,
  username: 'user1',
  credentials: { authorization: 'Bearer of tests' },
  requestId: 'request-1',
};

interface Called {
  server: string;
  name: string;
  arguments: unknown;
  callId: string;
  by: ToolCaller;
}

const tool = (server: string, name: string, isReadOnly = false): Tool => ({
  server,
  name,
  description: name,
  inputSchema: { type: 'object', properties: {} },
  needsApproval: false,
  isReadOnly,
});

/** The agent with tools for tasks that are kept in an array. */
function openAgent(options: Partial<CompletionsOptions> = {}) {
  const called: Called[] = [];
  const tasks: string[] = [];
  let openSets = 0;
  const answer = (name: string, given: Record<string, unknown>): ToolOutcome => {
    if (name === 'add_task') {
      const id = tasks.push(given['title'] as string);
      return { result: { task_id: id, status: 'created', title: given['title'] }, isError: false };
    }
    if (name === 'list_tasks') {
      const rows = tasks.map((title, index) => ({ id: index + 1, title, description: null, completed: false }));
      return { result: { tasks: rows }, isError: false };
    }
    return { result: 'Task not found', isError: true };
  };
  const completions = openCompletions({
    provider: openScripted(),
    toolbox: {
      async open(by) {
        openSets += 1;
        return {
          tools: [tool('tasks', 'add_task'), tool('tasks', 'list_tasks', true), tool('tasks', 'delete_task')],
          missing: [],
          async call(call) {
            called.push({ ...call, by });
            return answer(call.name, call.arguments as Record<string, unknown>);
          },
          async close() {
            openSets -= 1;
          },
        };
      },
      others: [],
      problems: () => [],
      close: async () => {},
    },
    billing: { reserve: async () => ({ settle: async () => {} }) },
    maxSteps: 8,
    limit: 60_000,
    observe: () => {},
    ...options,
  });
  return { completions, called, tasks, openSets: () => openSets };
}

/** Answers requests as the API does, without a network between. */
function fetchOf(completions: Completions): typeof fetch {
  return async (_input, init) => {
    const signal = init?.signal ?? new AbortController().signal;
    try {
      const request = readCompletionRequest(Buffer.from(init?.body as string));
      if (!request.stream) return Response.json(await completions.complete(request, caller, signal));
      const events = completions.stream(request, caller, signal)[Symbol.asyncIterator]();
      const first = await events.next();
      const body = new ReadableStream<Uint8Array>({
        start: (control) => control.enqueue(Buffer.from(first.value as string)),
        async pull(control) {
          const next = await events.next();
          if (next.done === true) control.close();
          else control.enqueue(Buffer.from(next.value));
        },
        cancel: async () => void (await events.return?.()),
      });
      return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
    } catch (error) {
      if (!(error instanceof HubError)) throw error;
      const status = { INVALID_ARGUMENT: 400, NOT_FOUND: 404 }[error.kind as string] ?? 503;
      return Response.json({ error: { message: error.message, code: error.reason } }, { status });
    }
  };
}

const openAiFor = (completions: Completions) =>
  new OpenAI({ apiKey: 'key', baseURL: 'http://hub.invalid/v1', fetch: fetchOf(completions), maxRetries: 0 });

const weather = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'The weather in a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

test('openai: the agent answers, having called its own tools as the caller', async (t) => {
  const { completions, called, openSets } = openAgent();
  const completion = await openAiFor(completions).chat.completions.create({
    model: 'scripted',
    messages: [{ role: 'user', content: 'Add a task to buy groceries' }],
  });
  t.is(completion.object, 'chat.completion');
  t.is(completion.model, 'scripted');
  const [choice] = completion.choices;
  t.is(choice?.finish_reason, 'stop');
  t.regex(choice?.message.content ?? '', /task 1: "Buy groceries"/);
  t.is(choice?.message.tool_calls, undefined);
  const { prompt_tokens: input, completion_tokens: output, total_tokens: total } = completion.usage!;
  t.true(input > 0 && output > 0 && total === input + output);
  t.like(called, [{ server: 'tasks', name: 'add_task', arguments: { title: 'Buy groceries' }, by: caller }]);
  t.is(openSets(), 0);
});

test('openai: a stream has the same answer, and its usage where it is wanted', async (t) => {
  const { completions } = openAgent();
  const client = openAiFor(completions);
  for (const includeUsage of [true, false]) {
    const stream = await client.chat.completions.create({
      model: 'scripted',
      messages: [{ role: 'user', content: 'Hello' }],
      stream: true,
      ...(includeUsage ? { stream_options: { include_usage: true } } : {}),
    });
    const chunks = [];
    for await (const each of stream) chunks.push(each);
    t.like(chunks[0]?.choices[0]?.delta, { role: 'assistant', content: '' });
    const text = chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('');
    t.regex(text, /scripted model/);
    t.true(chunks.length > 5);
    t.is(new Set(chunks.map(({ id }) => id)).size, 1);
    const last = includeUsage ? chunks.at(-2) : chunks.at(-1);
    t.is(last?.choices[0]?.finish_reason, 'stop');
    t.is(chunks.filter(({ usage }) => usage != null).length, includeUsage ? 1 : 0);
    if (includeUsage) t.deepEqual(chunks.at(-1)?.choices, []);
  }
});

test("openai: a call of the client's own tool comes back to the client, who answers it", async (t) => {
  const { completions, called } = openAgent();
  const client = openAiFor(completions);
  const messages: OpenAI.ChatCompletionMessageParam[] = [
    { role: 'user', content: 'Call get_weather with {"city": "Lisbon"}' },
  ];
  const first = await client.chat.completions.create({ model: 'scripted', messages, tools: [weather] });
  const { message, finish_reason: reason } = first.choices[0]!;
  t.is(reason, 'tool_calls');
  t.is(message.content, null);
  const [call] = message.tool_calls ?? [];
  if (call?.type !== 'function') return t.fail();
  t.deepEqual(JSON.parse(call.function.arguments), { city: 'Lisbon' });
  messages.push(message, { role: 'tool', tool_call_id: call.id, content: '{"celsius": 21}' });
  const second = await client.chat.completions.create({ model: 'scripted', messages, tools: [weather] });
  t.is(second.choices[0]?.finish_reason, 'stop');
  t.regex(second.choices[0]?.message.content ?? '', /"celsius":21/);
  t.deepEqual(called, []);

  const stream = client.chat.completions.stream({
    model: 'scripted',
    messages: messages.slice(0, 1),
    tools: [weather],
  });
  const streamed = (await stream.finalChatCompletion()).choices[0]!;
  t.is(streamed.finish_reason, 'tool_calls');
  t.like(streamed.message.tool_calls, [{ function: { name: 'get_weather', arguments: '{"city": "Lisbon"}' } }]);
});

test('ai: text, streams and tools of the client work through its OpenAI-compatible provider', async (t) => {
  const { completions, tasks } = openAgent();
  const provider = createOpenAICompatible({
    name: 'hub',
    baseURL: 'http://hub.invalid/v1',
    apiKey: 'key',
    includeUsage: true,
    fetch: fetchOf(completions),
  });
  const model = provider('scripted');
  const added = await generateText({ model, prompt: 'Add a task to buy groceries' });
  t.regex(added.text, /Buy groceries/);
  t.true(added.usage.totalTokens! > 0);
  t.deepEqual(tasks, ['Buy groceries']);

  const asked: unknown[] = [];
  const tools = {
    get_weather: aiTool({
      description: 'The weather in a city',
      inputSchema: jsonSchema<{ city: string }>(weather.function.parameters as never),
      execute: async (input) => {
        asked.push(input);
        return { celsius: 21 };
      },
    }),
  };
  const prompt = 'Call get_weather with {"city": "Lisbon"}';
  const whole = await generateText({ model, prompt, tools, stopWhen: stepCountIs(3) });
  t.regex(whole.text, /"celsius":21/);
  const streamed = streamText({ model, prompt, tools, stopWhen: stepCountIs(3) });
  t.regex(await streamed.text, /"celsius":21/);
  t.is(await streamed.finishReason, 'stop');
  t.deepEqual(asked, [{ city: 'Lisbon' }, { city: 'Lisbon' }]);
});

/** The agent with a model that answers each call as the next of `answerings` says. */
async function openModel(t: ExecutionContext, ...answerings: Parameters<typeof startModelServer>[0][]) {
  const server = await startModelServer((response, call) => answerings[server.calls.length - 1]!(response, call));
  t.teardown(() => server.stop());
  const provider = await openOpenAi({
    baseUrl: server.url,
    apiKey: undefined,
    model: 'm',
    timeout: 20_000,
    maxOutputTokens: undefined,
  });
  t.teardown(() => provider.close());
  return { server, ...openAgent({ provider }) };
}

test('where tools of both are wanted in one step, ours are called, and the model is told so by what the client sends back', async (t) => {
  const { completions, called, server } = await openModel(
    t,
    calling(
      { id: 'c1', name: 'tasks__add_task', arguments: '{"title":"Buy milk"}' },
      { id: 'c2', name: 'get_weather', arguments: '{"city":"Rome"}' },
    ),
    saying('It is sunny.'),
  );
  const client = openAiFor(completions);
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Both, please' }];
  const stream = client.chat.completions.stream({ model: 'm', messages, tools: [weather] });
  const { message, finish_reason: reason } = (await stream.finalChatCompletion()).choices[0]!;
  t.is(reason, 'tool_calls');
  t.like(message.tool_calls, [{ id: 'c2', function: { name: 'get_weather' } }]);
  t.is(message.tool_calls?.length, 1);
  t.is(message.content, '[Done already: tasks__add_task {"title":"Buy milk"}]');
  t.is(called.length, 1);
  messages.push(message, { role: 'tool', tool_call_id: 'c2', content: 'sunny' });
  await client.chat.completions.create({ model: 'm', messages, tools: [weather] });
  t.like(server.calls[1]!.body.messages.slice(1), [
    { role: 'user' },
    { role: 'assistant', content: message.content, tool_calls: [{ id: 'c2' }] },
    { role: 'tool', content: toolContent({ result: 'sunny', isError: false }) },
  ]);
});

test('what the client chooses reaches the model, its choice of a tool only in the first step', async (t) => {
  const { completions, server } = await openModel(
    t,
    calling({ id: 'c1', name: 'tasks__list_tasks', arguments: '{}' }),
    saying('You have none.'),
  );
  await openAiFor(completions).chat.completions.create({
    model: 'm',
    messages: [
      { role: 'developer', content: [{ type: 'text', text: 'Be kind' }] },
      { role: 'user', content: 'What is there?' },
    ],
    tools: [weather],
    tool_choice: 'required',
    temperature: 0.3,
    max_completion_tokens: 99,
    user: 'not handed on',
  });
  const [first, second] = server.calls.map(({ body }) => body);
  t.like(first, { temperature: 0.3, max_tokens: 99, tool_choice: 'required' });
  t.false('user' in first! || 'max_completion_tokens' in first!);
  t.like(second, { temperature: 0.3, max_tokens: 99 });
  t.false('tool_choice' in second!);
  t.like(first!.messages.slice(1), [
    { role: 'system', content: 'Be kind' },
    { role: 'user', content: 'What is there?' },
  ]);
  t.deepEqual(
    first!.tools?.map(({ function: { name } }) => name),
    ['tasks__add_task', 'tasks__list_tasks', 'tasks__delete_task', 'get_weather'],
  );
});

test('a model that fails before it has said anything is an error, in the middle of a stream an event', async (t) => {
  const half = streaming([chunk({ content: 'Half an ' })]);
  const { completions } = await openModel(t, half, half, streaming([]));
  const client = openAiFor(completions);
  const request = { model: 'm', messages: [{ role: 'user' as const, content: 'Hello' }] };
  await t.throwsAsync(client.chat.completions.create(request), {
    instanceOf: OpenAI.APIError,
    code: 'PROVIDER_ERROR',
  } as never);
  let text = '';
  const error = await t.throwsAsync(async () => {
    for await (const each of await client.chat.completions.create({ ...request, stream: true })) {
      text += each.choices[0]?.delta.content ?? '';
    }
  });
  t.is(text, 'Half an ');
  t.is((error as InstanceType<typeof OpenAI.APIError>).code, 'provider_error');
  await t.throwsAsync(client.chat.completions.create({ ...request, stream: true }), {
    code: 'PROVIDER_ERROR',
  } as never);
});

test('a client that goes ends the call of the model', async (t) => {
  t.plan(1);
  const { completions, server, openSets } = await openModel(t, (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(`data: ${JSON.stringify(chunk({ content: 'Hello' }))}\n\n`);
  });
  const request = { model: 'm', messages: [{ role: 'user' as const, content: 'Hello' }], stream: true as const };
  for await (const each of await openAiFor(completions).chat.completions.create(request)) {
    if (each.choices[0]?.delta.content) break;
  }
  await eventually('the call has ended there', () => server.calls[0]!.gone.aborted, Boolean, 2_000);
  t.is(await eventually('the tools are let go', openSets, (count) => count === 0, 2_000), 0);
});

test('an answer that takes too long, or too many steps, ends as `length`', async (t) => {
  const silent: Provider = {
    model: 'm',
    // oxlint-disable-next-line require-yield -- it never comes to that
    async *complete(_prompt, signal) {
      await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
    },
    close: async () => {},
  };
  const hasty = openAgent({ provider: silent, limit: 100 });
  const request = { model: 'm', messages: [{ role: 'user' as const, content: 'Hello' }] };
  const late = await openAiFor(hasty.completions).chat.completions.create(request);
  t.is(late.choices[0]?.finish_reason, 'length');
  const listing = calling({ id: 'c1', name: 'tasks__list_tasks', arguments: '{}' });
  const { completions, called } = await openModel(t, ...Array.from({ length: 20 }, () => listing));
  const endless = await openAiFor(completions).chat.completions.create(request);
  t.is(endless.choices[0]?.finish_reason, 'length');
  t.is(called.length, 8);
});

test('what is used is counted once, by how the answer ended', async (t) => {
  const counted: unknown[] = [];
  const billing: CompletionsOptions['billing'] = {
    reserve: async () => ({ settle: async ({ tokens, status }) => void counted.push([tokens > 0, status]) }),
  };
  const failing: Provider = {
    model: 'scripted',
    // oxlint-disable-next-line require-yield -- it fails
    async *complete() {
      throw new ProviderError('PROVIDER_TIMEOUT', 'silent');
    },
    close: async () => {},
  };
  const request = { model: 'scripted', messages: [{ role: 'user' as const, content: 'Hello' }] };
  await openAiFor(openAgent({ billing }).completions).chat.completions.create(request);
  await t.throwsAsync(
    openAiFor(openAgent({ billing, provider: failing }).completions).chat.completions.create(request),
  );
  t.deepEqual(counted, [
    [true, 'success'],
    [false, 'timeout'],
  ]);
});

test('a model that there is not is not found', async (t) => {
  const request = { model: 'gpt-5', messages: [{ role: 'user' as const, content: 'Hello' }] };
  await t.throwsAsync(openAiFor(openAgent().completions).chat.completions.create(request), {
    instanceOf: OpenAI.NotFoundError,
    message: /gpt-5/,
  });
});

const user = { role: 'user', content: 'Hello' };
const asking = {
  role: 'assistant',
  content: null,
  tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
};
const refusals: [name: string, body: unknown, fields: string[]][] = [
  ['no object', [], ['body']],
  ['neither model nor messages', {}, ['model', 'messages']],
  ['no messages', { model: 'm', messages: [] }, ['messages']],
  ['an unknown role', { model: 'm', messages: [{ role: 'wizard', content: 'x' }] }, ['messages[0].role']],
  [
    'a picture',
    { model: 'm', messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] },
    ['messages[0].content'],
  ],
  [
    'a result without its call',
    { model: 'm', messages: [user, { role: 'tool', tool_call_id: 'c1', content: 'x' }] },
    ['messages[1].tool_call_id'],
  ],
  ['a call without its result', { model: 'm', messages: [user, asking, user] }, ['messages[2]']],
  ['a call without its result at the end', { model: 'm', messages: [user, asking] }, ['messages[2]']],
  ['several answers', { model: 'm', messages: [user], n: 2 }, ['n']],
  ['probabilities', { model: 'm', messages: [user], logprobs: true }, ['logprobs']],
  ['a temperature of 3', { model: 'm', messages: [user], temperature: 3 }, ['temperature']],
  ['tools of one name', { model: 'm', messages: [user], tools: [weather, weather] }, ['tools[1].function.name']],
  [
    'a choice of no tool',
    { model: 'm', messages: [user], tool_choice: { type: 'function', function: { name: 'f' } } },
    ['tool_choice.function.name'],
  ],
  ['functions', { model: 'm', messages: [user], functions: [] }, ['functions']],
];

for (const [name, body, fields] of refusals) {
  test(`a request with ${name} is refused, and the member named`, (t) => {
    const error = t.throws(() => readCompletionRequest(Buffer.from(JSON.stringify(body))), { instanceOf: HubError });
    t.is(error.kind, 'INVALID_ARGUMENT');
    t.deepEqual(
      error.fields.map(({ field }) => field),
      fields,
    );
  });
}

test('a body that is no JSON, no UTF-8 or too deep is refused', (t) => {
  const deep = `${'['.repeat(5_000)}${']'.repeat(5_000)}`;
  for (const body of [Buffer.from('{'), Buffer.from([0x22, 0xff, 0x22]), Buffer.from(deep), Buffer.alloc(0)]) {
    t.throws(() => readCompletionRequest(body), { instanceOf: HubError, message: /The body/ });
  }
});

test('members that there is no use for are passed over, and null is as good as none', (t) => {
  const messages: PromptMessage[] = [{ role: 'user', content: 'Hello' }];
  const read = readCompletionRequest(
    Buffer.from(
      JSON.stringify({
        model: 'm',
        messages: [{ ...user, name: 'ana' }],
        stream: null,
        tools: null,
        tool_choice: null,
        n: 1,
        store: false,
        metadata: { a: 'b' },
        service_tier: 'auto',
        seed: 7,
        stop: ['x'],
      }),
    ),
  );
  t.deepEqual(read, {
    model: 'm',
    messages,
    tools: [],
    options: { seed: 7, stop: ['x'] },
    toolChoice: undefined,
    stream: false,
    includeUsage: false,
  });
});
