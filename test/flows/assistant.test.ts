import test from 'ava';
import type { ModelServer } from '../model-server.ts';
import { beginEvents, calling, chunk, saying, sendEvent, startModelServer, usageChunk } from '../model-server.ts';
import { eventually } from '../eventually.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';
import { openRest, type Rest, type Token } from '../rest.ts';

const services = ['auth', 'assistant'];
/** With the scripted model. */
const scripted = opened(
  () => startMesh({ bus: 'embedded', services, env: { SEED_USERS: '3' } }),
  (mesh) => mesh.stop(),
);
const model = opened(
  () => startModelServer(),
  (server) => server.stop(),
);
/** With a model that says what a test wants. */
const told = opened(
  () =>
    startMesh({
      bus: 'embedded',
      services,
      env: {
        SEED_USERS: '5',
        ASSISTANT_BASE_URL: model.url,
        ASSISTANT_MODEL: 'told',
        ASSISTANT_TIMEOUT: '1s',
      },
    }),
  (mesh) => mesh.stop(),
);

interface ToolCall {
  id: string;
  server: string;
  name: string;
  arguments: Record<string, unknown>;
  result: unknown;
  is_error: boolean;
  duration_ms: number;
}

interface Answer {
  conversation_id: number;
  response: string;
  tool_calls: ToolCall[];
  message_id: number;
  model: string;
  usage: { input_tokens: number; output_tokens: number; total_tokens: number };
  finish_reason: string;
  approvals?: { approval_id: string; id: string; name: string; arguments: object }[];
}

interface HistoryRow {
  id: number;
  conversation_id: number;
  user_id: number;
  role: string;
  content: string;
  created_at: string;
  status: string;
  tool_calls: ToolCall[];
  usage?: Answer['usage'];
  model?: string;
  siblings?: HistoryRow[];
}

/** user1, user2, … by number. */
async function login(mesh: { url: string }, number: number): Promise<{ rest: Rest; token: string; base: string }> {
  const { token } = await openRest(mesh.url).post<Token>('/auth/token', {
    username: `user${number}`,
    password: 'password123',
  });
  return { rest: openRest(mesh.url, token), token, base: `/api/${number}` };
}

interface ServerEvent {
  event: string;
  id: number;
  data: Record<string, unknown>;
}

/** The events of a stream, as WHATWG HTML reads them. */
async function* eventsIn(body: AsyncIterable<Buffer>): AsyncGenerator<ServerEvent> {
  let text = '';
  for await (const piece of body) {
    text += piece.toString();
    for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
      const fields = text
        .slice(0, end)
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith(':'))
        .map((line): [string, string] => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trim()]);
      text = text.slice(end + 2);
      const { event, id, data } = Object.fromEntries(fields);
      if (data !== undefined)
        yield { event: event!, id: Number(id), data: JSON.parse(data) as Record<string, unknown> };
    }
  }
}

async function streamed(
  rest: Rest,
  method: string,
  path: string,
  json?: unknown,
  headers = {},
): Promise<ServerEvent[]> {
  const { status, body } = await rest.raw(method, path, {
    ...(json === undefined ? {} : { json }),
    headers: { accept: 'text/event-stream', ...headers },
  });
  if (status !== 200) throw new Error(`${method} ${path}: ${status}`);
  const events: ServerEvent[] = [];
  for await (const event of eventsIn(body)) events.push(event);
  return events;
}

test('a chat with the scripted model: a task is added, listed, completed and deleted; the history has it all', async (t) => {
  const { rest, base } = await login(scripted, 1);
  const first = await rest.post<Answer>(`${base}/chat`, { message: 'Add a task to buy groceries' });
  t.is(first.model, 'scripted');
  t.is(first.finish_reason, 'stop');
  t.like(first.tool_calls[0], {
    server: 'tasks',
    name: 'add_task',
    arguments: { title: 'Buy groceries' },
    is_error: false,
  });
  t.like(first.tool_calls[0]!.result, { status: 'created', title: 'Buy groceries' });
  t.is(first.usage.total_tokens, first.usage.input_tokens + first.usage.output_tokens);
  const { task_id: taskId } = first.tool_calls[0]!.result as { task_id: number };
  const say = (message: string) =>
    rest.post<Answer>(`${base}/chat`, { conversation_id: first.conversation_id, message });
  t.regex((await say('Show me all my tasks')).response, /Buy groceries/);
  t.is((await say(`Mark task ${taskId} as complete`)).tool_calls[0]!.name, 'complete_task');
  t.is((await say(`Delete task ${taskId}`)).tool_calls[0]!.name, 'delete_task');
  t.deepEqual((await say('How are you?')).tool_calls, []);

  const history = await rest.get<HistoryRow[]>(`${base}/chat/${first.conversation_id}/history`);
  t.deepEqual(
    history.map(({ role }) => role),
    Array.from({ length: 10 }, (_, index) => (index % 2 === 0 ? 'user' : 'assistant')),
  );
  t.is(history[0]!.content, 'Add a task to buy groceries');
  t.is(history[0]!.user_id, 1);
  t.deepEqual(history[0]!.tool_calls, []);
  t.deepEqual(history[1]!.tool_calls, first.tool_calls);
  t.deepEqual(history[1]!.usage, first.usage);
  t.is(history[1]!.id, first.message_id);
  t.regex(history[1]!.created_at, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  const newest = await rest.get<HistoryRow[]>(`${base}/chat/${first.conversation_id}/history?limit=3`);
  t.deepEqual(newest, history.slice(-3));
  const older = await rest.get<HistoryRow[]>(
    `${base}/chat/${first.conversation_id}/history?limit=2&before_id=${newest[0]!.id}`,
  );
  t.deepEqual(older, history.slice(5, 7));
});

test('conversations: listed with the newest activity first, renamed, deleted', async (t) => {
  const { rest, base } = await login(scripted, 2);
  const ids: number[] = [];
  for (const message of ['one', 'two', 'three'])
    ids.push((await rest.post<Answer>(`${base}/chat`, { message })).conversation_id);
  await rest.post(`${base}/chat`, { conversation_id: ids[0], message: 'again' });
  const page = await rest.get<{ conversations: { id: number; title: string; message_count: number }[]; total: number }>(
    `${base}/chat?limit=2`,
  );
  t.like(page, { total: 3, limit: 2, offset: 0 });
  t.deepEqual(
    page.conversations.map(({ id, title, message_count: count }) => [id, title, count]),
    [
      [ids[0], 'one', 4],
      [ids[2], 'three', 2],
    ],
  );
  const { status, body } = await rest.call('PATCH', `${base}/chat/${ids[1]}`, { json: { title: '  Second  ' } });
  t.is(status, 200);
  t.like(body, { id: ids[1], title: 'Second' });
  t.is((await rest.call('DELETE', `${base}/chat/${ids[1]}`)).status, 204);
  await rest.refused(404, 'GET', `${base}/chat/${ids[1]}/history`);
  await rest.refused(404, 'DELETE', `${base}/chat/${ids[1]}`);
});

test('refusals come in their order: 401, 403, 404, 400', async (t) => {
  const { rest, base } = await login(scripted, 1);
  const { rest: other, base: otherBase } = await login(scripted, 3);
  const { conversation_id: foreign } = await other.post<Answer>(`${otherBase}/chat`, { message: 'mine' });
  const bad = { json: { message: ' ' } };
  await openRest(scripted.url).refused(401, 'POST', `${base}/chat`, bad);
  for (const path of ['/api/3', '/api/99999', '/api/nobody', '/api/00000000-0000-4000-8000-000000000099']) {
    const { message, code } = (await rest.refused(403, 'POST', `${path}/chat`, bad)) as unknown as Record<
      string,
      unknown
    >;
    t.is(typeof message, 'string');
    t.is(code, 403);
  }
  for (const id of [foreign, 999_999]) {
    await rest.refused(404, 'POST', `${base}/chat`, { json: { conversation_id: id, message: ' ' } });
    for (const [method, path] of [
      ['GET', 'history'],
      ['GET', 'stream'],
      ['POST', 'stop'],
      ['POST', 'regenerate'],
      ['POST', 'approvals/x'],
    ])
      await rest.refused(404, method!, `${base}/chat/${id}/${path}`, method === 'POST' ? { json: {} } : {});
    await rest.refused(404, 'PATCH', `${base}/chat/${id}`, { json: { title: '' } });
  }
  for (const json of [{}, { message: '' }, { message: ' \n' }, { message: 'x'.repeat(32_001) }, { message: 5 }])
    await rest.refused(400, 'POST', `${base}/chat`, { json });
  t.is(
    (await rest.post<Answer>(`${base}/chat`, { message: 'x'.repeat(32_000), conversation_id: null })).finish_reason,
    'stop',
  );
});

test('a stream: its events, the whole answer at the end, and the same again for whoever comes later', async (t) => {
  const { rest, base } = await login(scripted, 1);
  const events = await streamed(
    rest,
    'POST',
    `${base}/chat`,
    { message: 'Add a task to water plants', stream: true },
    {
      accept: '*/*',
    },
  );
  const kinds = events.map(({ event }) => event);
  t.is(kinds[0], 'start');
  t.deepEqual(
    kinds.filter((kind) => kind !== 'text'),
    ['start', 'tool_call', 'tool_result', 'finish'],
  );
  t.deepEqual(
    events.map(({ id }) => id),
    events.map((_, index) => index + 1),
  );
  const answer = events.at(-1)!.data as unknown as Answer;
  t.is(
    events
      .filter(({ event }) => event === 'text')
      .map(({ data }) => data['delta'])
      .join(''),
    answer.response,
  );
  t.like(events[0]!.data, { conversation_id: answer.conversation_id, message_id: answer.message_id });
  const stream = `${base}/chat/${answer.conversation_id}/stream`;
  t.is((await rest.call('GET', stream)).status, 204);
  const rest2 = await streamed(rest, 'GET', stream, undefined, { 'last-event-id': '2' });
  t.deepEqual(rest2, events.slice(2));
});

/** A model whose words come when the test says so. */
function speaking(server: ModelServer) {
  const waiting = Promise.withResolvers<{ say(text: string): void; end(): void; gone: AbortSignal }>();
  server.on((response, { gone }) => {
    beginEvents(response);
    waiting.resolve({
      gone,
      say: (text) => sendEvent(response, chunk({ content: text })),
      end() {
        sendEvent(response, chunk({}, 'stop'));
        sendEvent(response, usageChunk(3, 2));
        response.end('data: [DONE]\n\n');
      },
    });
  });
  return waiting.promise;
}

test.serial(
  'an answer under way is resumed behind an event, and stopped: the provider hears of it within a second',
  async (t) => {
    const { rest, base } = await login(told, 1);
    const speech = speaking(model);
    const { body } = await rest.raw('POST', `${base}/chat`, { json: { message: 'Tell me', stream: true } });
    const events = eventsIn(body);
    const { data } = (await events.next()).value as ServerEvent;
    const { say, gone } = await speech;
    say('Once');
    say(' upon');
    t.like((await events.next()).value, { event: 'text', id: 2, data: { delta: 'Once' } });
    const conversation = `${base}/chat/${String(data['conversation_id'])}`;
    const resumed = await rest.raw('GET', `${conversation}/stream`, { headers: { 'last-event-id': '2' } });
    t.is(resumed.headers.get('cache-control'), 'no-cache, no-transform');
    t.is(resumed.headers.get('x-accel-buffering'), 'no');
    const more = eventsIn(resumed.body);
    t.like((await more.next()).value, { event: 'text', id: 3, data: { delta: ' upon' } });
    await rest.refused(409, 'POST', `${base}/chat`, {
      json: { message: 'More', conversation_id: data['conversation_id'] },
    });
    body.destroy();
    t.false(gone.aborted, 'a client that goes does not stop the answer');
    const began = Date.now();
    t.deepEqual(await rest.post(`${conversation}/stop`, {}), { stopped: true });
    await eventually('the provider hears of it', () => gone.aborted, Boolean);
    t.true(Date.now() - began < 1_000);
    t.like((await more.next()).value, { event: 'stopped', data: { response: 'Once upon', finish_reason: 'stopped' } });
    t.true((await more.next()).done);
    t.deepEqual(await rest.post(`${conversation}/stop`, {}), { stopped: false });
    const history = await rest.get<HistoryRow[]>(`${conversation}/history`);
    t.like(history[1], { status: 'stopped', content: 'Once upon' });
  },
);

test.serial(
  'a provider that fails: 502, 503 with Retry-After, 504; the message is kept, and no answer is made up',
  async (t) => {
    const { rest, base } = await login(told, 2);
    for (const [answering, status, reason] of [
      [(response) => void response.writeHead(500).end('{}'), 502, 'PROVIDER_ERROR'],
      [(response) => void response.writeHead(401).end('{}'), 502, 'PROVIDER_ERROR'],
      [(response) => void response.writeHead(429, { 'retry-after': '7' }).end('{}'), 503, 'PROVIDER_UNAVAILABLE'],
      [() => {}, 504, 'PROVIDER_TIMEOUT'],
    ] as [Parameters<ModelServer['on']>[0], number, string][]) {
      model.on(answering);
      const problem = await rest.refused(status, 'POST', `${base}/chat`, { json: { message: 'Hello' } });
      t.is(problem.error_code, reason);
      if (status === 503) t.is(problem.headers.get('retry-after'), '7');
      const events = await streamed(rest, 'POST', `${base}/chat`, { message: 'Hello', stream: true });
      t.deepEqual(
        events.map(({ event }) => event),
        ['start', 'error'],
      );
      t.like(events[1]!.data, { code: status, error_code: reason });
      const history = await rest.get<HistoryRow[]>(
        `${base}/chat/${String(events[0]!.data['conversation_id'])}/history`,
      );
      t.deepEqual(
        history.map(({ role, content, status: state }) => [role, content, state]),
        [
          ['user', 'Hello', 'completed'],
          ['assistant', '', 'failed'],
        ],
      );
    }
  },
);

test.serial('approvals: a tool that destroys something waits for the user; a second decision is 409', async (t) => {
  const { rest, base } = await login(told, 3);
  model.on(calling({ id: 'c1', name: 'tasks__delete_task', arguments: '{"task_id":1}' }));
  const held = await rest.post<Answer>(`${base}/chat`, { message: 'Delete it', approve_tools: true });
  t.is(held.finish_reason, 'approval');
  t.like(held.approvals![0], { name: 'delete_task', arguments: { task_id: 1 } });
  const conversation = `${base}/chat/${held.conversation_id}`;
  await rest.refused(409, 'POST', `${base}/chat`, { json: { message: 'More', conversation_id: held.conversation_id } });
  const approval = `${conversation}/approvals/${held.approvals![0]!.approval_id}`;
  await rest.refused(400, 'POST', approval, { json: {} });
  await rest.refused(404, 'POST', `${conversation}/approvals/other`, { json: { approve: true } });
  model.on(saying('Then not.'));
  const answer = await rest.post<Answer>(approval, { approve: false });
  t.like(answer, { response: 'Then not.', finish_reason: 'stop', message_id: held.message_id });
  t.true(answer.tool_calls[0]!.is_error);
  const { error_code: reason } = await rest.refused(409, 'POST', approval, { json: { approve: true } });
  t.is(reason, 'ALREADY_DECIDED');
});

test.serial('regenerate: another answer to the last message, with the one before as its sibling', async (t) => {
  const { rest, base } = await login(told, 4);
  model.on(saying('one'));
  const first = await rest.post<Answer>(`${base}/chat`, { message: 'Say something' });
  model.on(saying('two'));
  const conversation = `${base}/chat/${first.conversation_id}`;
  const second = await rest.post<Answer>(`${conversation}/regenerate`, {});
  t.is(second.response, 'two');
  const history = await rest.get<HistoryRow[]>(`${conversation}/history`);
  t.deepEqual(
    history.map(({ content, siblings }) => [content, siblings?.map((each) => each.content)]),
    [
      ['Say something', []],
      ['two', ['one']],
    ],
  );
});

test.serial('Idempotency-Key: the same request gets the first answer, another one 409', async (t) => {
  const { rest, base } = await login(told, 5);
  model.on(saying('only once'));
  const calls = model.calls.length;
  const headers = { 'idempotency-key': 'key-1' };
  const ask = (message: string) => rest.call('POST', `${base}/chat`, { json: { message }, headers });
  const [first, again] = [await ask('Hello'), await ask('Hello')];
  t.deepEqual(again.body, first.body);
  t.is(model.calls.length, calls + 1);
  const { status, body } = await ask('Other');
  t.is(status, 409);
  t.like(body, { error_code: 'IDEMPOTENCY_KEY_REUSED' });
});

test.serial('somebody has 20 streams open at most, and is told when to come again', async (t) => {
  const { rest, base } = await login(told, 3);
  const speeches: { end(): void }[] = [];
  model.on((response) => {
    beginEvents(response);
    speeches.push({ end: () => void response.end('data: [DONE]\n\n') });
  });
  const control = new AbortController();
  const open = await Promise.all(
    Array.from({ length: 20 }, () =>
      rest.raw('POST', `${base}/chat`, { json: { message: 'Hello', stream: true }, signal: control.signal }),
    ),
  );
  t.deepEqual(new Set(open.map(({ status }) => status)), new Set([200]));
  const { error_code: reason } = await rest.refused(429, 'POST', `${base}/chat`, {
    json: { message: 'Hello', stream: true },
  });
  t.is(reason, 'TOO_MANY_STREAMS');
  const completion = { model: 'm', messages: [{ role: 'user', content: 'Hello' }] };
  const { error_code: shared } = await rest.refused(429, 'POST', '/v1/chat/completions', { json: completion });
  t.is(shared, 'TOO_MANY_STREAMS', 'completions count together with them');
  for (const { body } of open) body.on('error', () => {});
  control.abort();
  await eventually(
    'there is room again',
    async () => {
      const { status, body } = await rest.raw('POST', `${base}/chat`, { json: { message: 'Hello', stream: true } });
      body.destroy();
      return status;
    },
    (status) => status === 200,
  );
  for (const speech of speeches) speech.end();
});

test.serial('nothing that was said is in the log', async (t) => {
  const { rest, base } = await login(told, 1);
  model.on(saying('a secret answer'));
  await rest.post<Answer>(`${base}/chat`, { message: 'a secret question' });
  const lines = told.services['assistant']!.lines.join('\n');
  t.regex(lines, /"gen_ai.operation.name":"invoke_agent"/);
  t.regex(lines, /"gen_ai.usage.input_tokens"/);
  t.notRegex(lines, /secret/);
});
