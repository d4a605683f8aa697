import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import {
  answeringAs,
  beginEvents,
  chunk,
  saying,
  sendEvent,
  startModelServer,
  streaming,
  usageChunk,
  type Answering,
  type ModelServer,
} from '../../../test/model-server.ts';
import { eventually } from '../../../test/eventually.ts';
import { opened } from '../../../test/opened.ts';
import { eventsOf, providerContract, requestsOf, textOf } from './contract.ts';
import { openOpenAi, type OpenAiOptions } from './openai.ts';
import { ProviderError, type PromptMessage, type Provider, type TokenUsage } from './provider.ts';
import { openScripted } from './scripted.ts';
import { toolContent } from './tool-content.ts';

const scripted = opened(
  () => startModelServer(answeringAs(openScripted())),
  (server) => server.stop(),
);
const usual = { apiKey: 'sk-of-tests', model: 'test-model', timeout: 20_000, maxOutputTokens: undefined };

providerContract(test, () => openOpenAi({ ...usual, baseUrl: scripted.url }));

/** A server of a test's own, and a provider that asks it. */
async function openBoth(
  t: ExecutionContext,
  answering: Answering,
  options: Partial<OpenAiOptions> = {},
): Promise<{ server: ModelServer; provider: Provider }> {
  const server = await startModelServer(answering);
  t.teardown(() => server.stop());
  const provider = await openOpenAi({ ...usual, baseUrl: server.url, ...options });
  t.teardown(() => provider.close());
  return { server, provider };
}

const hello = { messages: [{ role: 'user', content: 'Hello' }] as PromptMessage[], tools: [] };

async function failureOf(t: ExecutionContext, provider: Provider): Promise<ProviderError> {
  const error = await t.throwsAsync(eventsOf(provider, hello));
  t.true(error instanceof ProviderError, String(error));
  return error as ProviderError;
}

const buyMilk = ['tasks__add_task', { title: 'Buy milk' }] as const;
const callMom = ['tasks__add_task', { title: 'Call mom' }] as const;

interface Expected {
  text?: string;
  calls?: readonly (readonly [name: string, given: unknown])[];
  reason: 'stop' | 'length' | 'toolRequests';
  /** Undefined where the server tells none. */
  usage?: TokenUsage;
}

/** By the names of their files: each begins with a comment that says from whose documentation it is. */
const wireFormats: Record<string, Expected> = {
  'openai-text': { text: 'Olá, mundo 🌍!', reason: 'stop', usage: { inputTokens: 19, outputTokens: 4 } },
  'openai-tool-calls': {
    calls: [buyMilk, ['tasks__list_tasks', {}]],
    reason: 'toolRequests',
    usage: { inputTokens: 82, outputTokens: 31 },
  },
  'openai-refusal': {
    text: "I'm sorry, I can't help with that.",
    reason: 'stop',
    usage: { inputTokens: 20, outputTokens: 8 },
  },
  'openai-length': { text: 'Let me see', reason: 'length', usage: { inputTokens: 20, outputTokens: 16 } },
  'vllm-tool-calls': {
    text: 'On it.',
    calls: [buyMilk],
    reason: 'toolRequests',
    usage: { inputTokens: 40, outputTokens: 21 },
  },
  'vllm-named-tool': { calls: [buyMilk], reason: 'toolRequests', usage: { inputTokens: 40, outputTokens: 12 } },
  'ollama-tool-calls': {
    calls: [buyMilk, callMom],
    reason: 'toolRequests',
    usage: { inputTokens: 150, outputTokens: 44 },
  },
  'ollama-no-index': { calls: [buyMilk, callMom], reason: 'toolRequests' },
  'llama-cpp-tool-calls': { calls: [buyMilk], reason: 'toolRequests', usage: { inputTokens: 310, outputTokens: 18 } },
  'llama-cpp-text': { text: 'Hello there', reason: 'stop', usage: { inputTokens: 12, outputTokens: 3 } },
  'lm-studio-tool-calls': { calls: [buyMilk], reason: 'toolRequests', usage: { inputTokens: 263, outputTokens: 19 } },
  'lm-studio-empty-call': { text: 'It is done.', reason: 'stop' },
};
const wireErrors = ['openai-content-filter', 'vllm-error', 'llama-cpp-error', 'lm-studio-error'];

const bytesOf = (name: string) => readFileSync(new URL(`fixtures/${name}.sse`, import.meta.url));

/** Sends bytes in pieces of so many. */
function sending(bytes: Buffer, size: number): Answering {
  return async (response) => {
    beginEvents(response);
    for (let start = 0; start < bytes.length; start += size) {
      response.write(bytes.subarray(start, start + size));
      if (size > 1 || start % 64 === 0) await sleep(0);
    }
    response.end();
  };
}

for (const [name, { text = '', calls = [], reason, usage }] of Object.entries(wireFormats)) {
  test(`what ${name} has recorded is understood, however it is cut into pieces`, async (t) => {
    const recorded = bytesOf(name);
    const windows = Buffer.from(recorded.toString().replaceAll('\n', '\r\n'));
    const variants = [
      [recorded, recorded.length],
      [recorded, 7],
      [recorded, 1],
      [windows, 33],
    ] as const;
    for (const [bytes, size] of variants) {
      const { provider } = await openBoth(t, sending(bytes, size));
      const events = await eventsOf(provider, hello);
      t.is(textOf(events), text);
      const requests = requestsOf(events);
      t.deepEqual(
        requests.map((request) => [request.name, JSON.parse(request.arguments)]),
        calls.map((call) => [...call]),
      );
      t.is(new Set(requests.map(({ id }) => id)).size, calls.length, 'each has an id of its own');
      t.false(requests.some(({ id }) => id === ''));
      const last = events.at(-1);
      t.like(last, { kind: 'finish', reason, ...(usage === undefined ? {} : { usage }) });
      if (last?.kind === 'finish') t.true(last.usage.inputTokens > 0 && last.usage.outputTokens > 0);
    }
  });
}

for (const name of wireErrors) {
  test(`what ${name} has recorded is a failure of the provider`, async (t) => {
    const recorded = bytesOf(name);
    for (const size of [recorded.length, 5]) {
      const { provider } = await openBoth(t, sending(recorded, size));
      const error = await failureOf(t, provider);
      t.is(error.reason, 'PROVIDER_ERROR');
    }
  });
}

test('calls whose pieces have other ids each time are told apart by their index', async (t) => {
  const piece = (index: number, id: string, more: object) => chunk({ tool_calls: [{ index, id, function: more }] });
  const { provider } = await openBoth(
    t,
    streaming([
      piece(0, 'a', { name: 'one', arguments: '{"x"' }),
      piece(0, 'b', { arguments: ':1}' }),
      piece(1, 'c', { name: 'two', arguments: { y: 2 } }),
      chunk({}, 'tool_calls'),
    ]),
  );
  t.deepEqual(requestsOf(await eventsOf(provider, hello)), [
    { id: 'a', name: 'one', arguments: '{"x":1}' },
    { id: 'c', name: 'two', arguments: '{"y":2}' },
  ]);
});

test('bad arguments are handed on as the model wrote them, and none are an empty object', async (t) => {
  const call = (index: number, given?: string) => ({
    index,
    id: `c${index}`,
    function: { name: 'f', arguments: given },
  });
  const { provider } = await openBoth(
    t,
    streaming([chunk({ tool_calls: [call(0, '{"title": Buy'), call(1, ''), call(2)] }), chunk({}, 'tool_calls')]),
  );
  t.deepEqual(
    requestsOf(await eventsOf(provider, hello)).map((request) => request.arguments),
    ['{"title": Buy', '{}', '{}'],
  );
});

test('the request has what the API asks for, and nothing of the environment', async (t) => {
  const { server, provider } = await openBoth(t, saying('ok'), { maxOutputTokens: 100 });
  await eventsOf(provider, {
    messages: [
      { role: 'system', content: 'Be kind' },
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: '', toolRequests: [{ id: 'c1', name: 'f', arguments: '{"bad' }] },
      { role: 'tool', toolRequestId: 'c1', content: toolContent({ result: 'x', isError: true }) },
    ],
    tools: [{ name: 'f', description: 'does', parameters: { type: 'object' } }],
    options: { temperature: 0.5, max_tokens: 500 },
  });
  const [{ headers, body }] = server.calls as [(typeof server.calls)[number]];
  t.deepEqual(body, {
    model: 'test-model',
    messages: [
      { role: 'system', content: 'Be kind' },
      { role: 'user', content: 'Hello' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c1', type: 'function', function: { name: 'f', arguments: '{}' } }],
      },
      { role: 'tool', tool_call_id: 'c1', content: '{"error":"x"}' },
    ],
    tools: [{ type: 'function', function: { name: 'f', description: 'does', parameters: { type: 'object' } } }],
    stream: true,
    stream_options: { include_usage: true },
    temperature: 0.5,
    max_tokens: 100,
  } as never);
  t.is(headers.authorization, 'Bearer sk-of-tests');
  t.false('openai-organization' in headers || 'openai-project' in headers);
});

test('a member that the provider refuses is left out, or has its other name, from then on', async (t) => {
  const asked: string[][] = [];
  const { provider } = await openBoth(
    t,
    (response, call) => {
      asked.push(Object.keys(call.body).filter((name) => /max_|stream_/.test(name)));
      const refuse = (param: string | null, message: string) => {
        response.writeHead(400, { 'content-type': 'application/json' });
        response.end(JSON.stringify({ error: { message, type: 'invalid_request_error', param, code: null } }));
      };
      if ('stream_options' in call.body) return refuse(null, '[{"loc": ["stream_options"], "msg": "extra"}]');
      if ('max_tokens' in call.body) return refuse('max_tokens', "Use 'max_completion_tokens' instead.");
      return saying('ok')(response, call);
    },
    { maxOutputTokens: 100 },
  );
  t.is(textOf(await eventsOf(provider, hello)), 'ok');
  t.is(textOf(await eventsOf(provider, hello)), 'ok');
  t.deepEqual(asked, [
    ['stream_options', 'max_tokens'],
    ['max_tokens'],
    ['max_completion_tokens'],
    ['max_completion_tokens'],
  ]);
});

const refusing =
  (
    status: number,
    headers: Record<string, string> = {},
    body = '{"error": {"message": "sk-secret is wrong"}}',
  ): Answering =>
  (response) =>
    void response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body);

for (const status of [400, 401, 403, 404, 422, 500, 502, 503]) {
  test(`${status} of the provider is PROVIDER_ERROR, without the words that it used`, async (t) => {
    const { server, provider } = await openBoth(t, refusing(status));
    const error = await failureOf(t, provider);
    t.is(error.reason, 'PROVIDER_ERROR');
    t.regex(error.message, new RegExp(String(status)));
    t.notRegex(error.message + String(error.cause), /sk-secret/);
    t.is(server.calls.length, 1, 'it is not asked again');
  });
}

test('429 is PROVIDER_UNAVAILABLE, with the time that the provider asks for', async (t) => {
  const waits: [headers: Record<string, string>, least: number, most: number][] = [
    [{ 'retry-after': '7' }, 7_000, 7_000],
    [{ 'retry-after': new Date(Date.now() + 60_000).toUTCString() }, 40_000, 60_000],
    [{ 'retry-after': 'soon' }, 1_000, 60_000],
    [{}, 1_000, 60_000],
    [{ 'retry-after': '99999999' }, 3_600_000, 3_600_000],
  ];
  for (const [headers, least, most] of waits) {
    const { server, provider } = await openBoth(t, refusing(429, headers));
    const error = await failureOf(t, provider);
    t.is(error.reason, 'PROVIDER_UNAVAILABLE');
    t.true(
      error.retryAfter! >= least && error.retryAfter! <= most,
      `${error.retryAfter} for ${JSON.stringify(headers)}`,
    );
    t.is(server.calls.length, 1);
  }
});

test('a provider that is not there is PROVIDER_UNAVAILABLE', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  for (const host of ['127.0.0.1', 'localhost']) {
    const provider = await openOpenAi({ ...usual, baseUrl: `http://${host}:${port}/v1` });
    const error = await failureOf(t, provider);
    t.is(error.reason, 'PROVIDER_UNAVAILABLE', host);
    t.true(error.retryAfter! > 0);
    await provider.close();
  }
});

const half = [chunk({ role: 'assistant', content: '' }), chunk({ content: 'Half an ' })];
const brokenAnswers: Record<string, Answering> = {
  'an empty body': (response) => {
    beginEvents(response);
    response.end();
  },
  'a stream with its end alone': streaming([]),
  'a stream of chunks without choices': streaming([usageChunk(1, 0)]),
  'a stream that ends in the middle': (response) => {
    beginEvents(response);
    for (const each of half) sendEvent(response, each);
    response.end();
  },
  'a stream that says it is done in the middle': streaming(half),
  'a connection that breaks off in the middle': async (response) => {
    beginEvents(response);
    for (const each of half) sendEvent(response, each);
    await sleep(20);
    response.destroy();
  },
  'a connection that breaks off before the answer': (response) => void response.destroy(),
  'a page of HTML': refusing(200, { 'content-type': 'text/html' }, '<!doctype html><h1>Welcome</h1>'),
  'JSON that is no completion': refusing(200, {}, '{"status": "ok"}'),
  'an event that is no JSON': (response) => {
    beginEvents(response);
    response.end('data: {"choices": [\n\ndata: [DONE]\n\n');
  },
  'events that are no objects': (response) => {
    beginEvents(response);
    response.end('data: null\n\ndata: 7\n\ndata: "x"\n\ndata: [1]\n\ndata: [DONE]\n\n');
  },
  'members of other types': streaming([{ choices: 'none' }, { choices: [null] }, { choices: [{ delta: 7 }] }]),
  'tools wanted, but none named': streaming([
    chunk({ tool_calls: [{ index: 0, function: {} }] }),
    chunk({}, 'tool_calls'),
  ]),
  'an answer without end': async (response, { gone }) => {
    beginEvents(response);
    const piece = { content: 'x'.repeat(60_000) };
    while (!gone.aborted) {
      sendEvent(response, chunk(piece));
      await sleep(1);
    }
  },
};

for (const [name, answering] of Object.entries(brokenAnswers)) {
  test(`${name} is PROVIDER_ERROR`, async (t) => {
    const { provider } = await openBoth(t, answering);
    const error = await failureOf(t, provider);
    t.is(error.reason, 'PROVIDER_ERROR', error.message);
  });
}

test('a provider that falls silent, before its answer or in the middle, is PROVIDER_TIMEOUT', async (t) => {
  const silent: Answering[] = [
    () => {},
    (response) => beginEvents(response),
    (response) => {
      beginEvents(response);
      for (const each of half) sendEvent(response, each);
    },
  ];
  for (const answering of silent) {
    const { server, provider } = await openBoth(t, answering, { timeout: 200 });
    t.is((await failureOf(t, provider)).reason, 'PROVIDER_TIMEOUT');
    await eventually('the call has ended there', () => server.calls[0]!.gone.aborted, Boolean);
  }
});

test('a reader that takes its time is no silence of the provider', async (t) => {
  // Long enough that a busy machine doesn't make the provider look silent.
  const timeout = 3_000;
  const { provider } = await openBoth(t, saying('Hello there'), { timeout });
  let text = '';
  for await (const event of provider.complete(hello, new AbortController().signal)) {
    if (event.kind !== 'text') continue;
    if (text === '') await sleep(1.5 * timeout);
    text += event.delta;
  }
  t.is(text, 'Hello there');
});

test('an answer that is complete is not lost with a connection that breaks off, or does not end, behind it', async (t) => {
  const ends: Answering[] = [(response) => void setTimeout(() => response.destroy(), 20), () => {}];
  for (const end of ends) {
    const { provider } = await openBoth(t, (response, call) => {
      beginEvents(response);
      for (const each of [chunk({ content: 'Hello' }), chunk({}, 'stop')]) sendEvent(response, each);
      return end(response, call);
    });
    const events = await eventsOf(provider, hello);
    t.is(textOf(events), 'Hello');
    t.like(events.at(-1), { kind: 'finish', reason: 'stop' });
  }
});

const endless: Answering = async (response, { gone }) => {
  beginEvents(response);
  while (!gone.aborted) {
    sendEvent(response, chunk({ content: 'and on ' }));
    await sleep(10);
  }
};

test('the call ends at the provider when it is aborted, or when nobody reads any more', async (t) => {
  const leave: ((provider: Provider) => Promise<unknown>)[] = [
    async (provider) => {
      const stopping = new AbortController();
      await t.throwsAsync(async () => {
        for await (const _event of provider.complete(hello, stopping.signal)) stopping.abort(new Error('stop'));
      });
    },
    async (provider) => {
      for await (const _event of provider.complete(hello, new AbortController().signal)) break;
    },
    async (provider) => {
      const closed = await t.throwsAsync(async () => {
        for await (const _event of provider.complete(hello, new AbortController().signal)) await provider.close();
      });
      t.is((closed as ProviderError).reason, 'PROVIDER_UNAVAILABLE');
    },
  ];
  for (const act of leave) {
    const { server, provider } = await openBoth(t, endless);
    await act(provider);
    await eventually('the call has ended there', () => server.calls[0]!.gone.aborted, Boolean, 1_000);
  }
});

test('a call that is aborted while nothing has come yet ends at the provider, too', async (t) => {
  const { server, provider } = await openBoth(t, () => {});
  const stopping = new AbortController();
  const reading = t.throwsAsync(eventsOf(provider, hello, stopping.signal), { message: 'stop' });
  await eventually(
    'the call is there',
    () => server.calls.length,
    (count) => count === 1,
  );
  stopping.abort(new Error('stop'));
  await reading;
  await eventually('the call has ended there', () => server.calls[0]!.gone.aborted, Boolean, 1_000);
});
