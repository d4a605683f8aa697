import { Readable } from 'node:stream';
import test from 'ava';
import { createClient, RefusedError, type Client } from '../../client/client.ts';
import type { ChatResponse } from '../../client/gen/chat4all/assistant/v1/assistant.pb.ts';
import { startMesh } from '../harness.ts';
import { beginEvents, chunk, sendEvent, startModelServer, usageChunk } from '../model-server.ts';
import { opened } from '../opened.ts';

/** The client of the assistant, as somebody uses it who has nothing else. */

const services = ['auth', 'assistant'];
const scripted = opened(
  () => startMesh({ bus: 'embedded', services, env: { SEED_USERS: '2' } }),
  (mesh) => mesh.stop(),
);
const model = opened(
  () => startModelServer(),
  (server) => server.stop(),
);
/** With a model that says what a test wants: those run one after the other. */
const told = opened(
  () =>
    startMesh({
      bus: 'embedded',
      services,
      env: { SEED_USERS: '1', ASSISTANT_BASE_URL: model.url, ASSISTANT_MODEL: 'told' },
    }),
  (mesh) => mesh.stop(),
);

async function login({ url: baseUrl }: { url: string }, number: number): Promise<{ user_id: string; client: Client }> {
  const { auth } = createClient({ baseUrl });
  const { token } = await auth.issueToken({ username: `user${number}`, password: 'password123' });
  return { user_id: String(number), client: createClient({ baseUrl, token: () => token }) };
}

test('client: somebody chats, and gets an answer, the whole history and all tasks', async (t) => {
  const { user_id, client } = await login(scripted, 1);
  const answer = await client.assistant.chat({ user_id, message: 'Add a task to buy groceries' });
  t.is(answer.finish_reason, 'stop');
  t.like(answer.tool_calls[0], { name: 'add_task', arguments: { title: 'Buy groceries' }, is_error: false });
  const { conversation_id } = answer;
  const history = await client.assistant.getHistory({ user_id, conversation_id });
  t.deepEqual(
    history.map(({ role, content }) => [role, content]),
    [
      ['user', 'Add a task to buy groceries'],
      ['assistant', answer.response],
    ],
  );
  t.deepEqual(history[1]?.usage, answer.usage);
  const newest = await client.assistant.getHistory({ user_id, conversation_id, limit: 1 });
  t.deepEqual(newest, history.slice(1));
  const [task] = await client.task.listTasks({ user_id, status: 'pending' });
  t.like(task, { title: 'Buy groceries', description: null, completed: false });
  t.deepEqual(await client.task.listTasks({ user_id, status: 'completed' }), []);
  t.deepEqual(await client.task.deleteTask({ user_id, task_id: task!.id }), {});
});

test('client: the events of an answer come with their types, their ids and what they tell', async (t) => {
  const { user_id, client } = await login(scripted, 2);
  const events: ChatResponse[] = [];
  for await (const event of client.assistant.chatEvents({ user_id, message: 'Add a task to water plants' })) {
    events.push(event);
  }
  t.deepEqual(
    events.map(({ id }) => id),
    events.map((_, index) => index + 1),
  );
  t.deepEqual(
    events.map(({ type }) => type).filter((type) => type !== 'text'),
    ['start', 'tool_call', 'tool_result', 'finish'],
  );
  const said = events.map((event) => (event.type === 'text' ? event.data.delta : '')).join('');
  const last = events.at(-1)!;
  if (last.type !== 'finish') throw new Error(`The last event is ${last.type}`);
  t.is(said, last.data.response);
  // There is nothing to follow any more, but what was told is still there for who comes late.
  const { conversation_id } = last.data;
  const follow = (asked: object) =>
    Readable.from(client.assistant.streamAnswer({ user_id, conversation_id, ...asked })).toArray();
  t.deepEqual(await follow({}), []);
  t.deepEqual(await follow({ last_event_id: events[1]!.id }), events.slice(2));
});

test('client: a repeated request with its key gets the first answer, and another one is refused', async (t) => {
  const { user_id, client } = await login(scripted, 2);
  const say = (message: string) => client.assistant.chat({ user_id, message, idempotency_key: 'client-1' });
  const first = await say('How are you?');
  t.deepEqual(await say('How are you?'), first);
  t.like(await t.throwsAsync(say('And you?'), { instanceOf: RefusedError }), {
    status: 409,
    code: 'IDEMPOTENCY_KEY_REUSED',
  });
});

test.serial('client: a refusal is an Error before the first event and behind it, and without events', async (t) => {
  const { user_id, client } = await login(told, 1);
  const refused = async (call: Promise<unknown>) => (await t.throwsAsync(call, { instanceOf: RefusedError }))!;
  const wrong = client.assistant.chatEvents({ user_id, message: ' ' }).next();
  t.deepEqual(
    (await refused(wrong)).details.map(({ field }) => field),
    ['message'],
  );
  t.like(await refused(client.assistant.chatEvents({ user_id: '2', message: 'x' }).next()), {
    status: 403,
    code: 'NOT_YOUR_PATH',
  });
  t.like(await refused(client.assistant.getHistory({ user_id, conversation_id: 999_999 })), {
    status: 404,
    code: 'CONVERSATION_NOT_FOUND',
  });

  model.on((response) => void response.writeHead(500).end('{}'));
  t.like(await refused(client.assistant.chat({ user_id, message: 'Hello' })), {
    status: 502,
    code: 'PROVIDER_ERROR',
  });
  const seen: string[] = [];
  const streamed = async () => {
    for await (const { type } of client.assistant.chatEvents({ user_id, message: 'Hello' })) seen.push(type);
  };
  const late = await refused(streamed());
  t.like(late, { status: 502, code: 'PROVIDER_ERROR' });
  t.is(late.requestId === undefined, false);
  t.deepEqual(seen, ['start']);
});

test.serial('client: who breaks off in the midst can follow the answer from there on', async (t) => {
  const { user_id, client } = await login(told, 1);
  const speech = Promise.withResolvers<{ say(text: string): void; end(): void }>();
  model.on((response) => {
    beginEvents(response);
    speech.resolve({
      say: (text) => sendEvent(response, chunk({ content: text })),
      end() {
        sendEvent(response, chunk({}, 'stop'));
        sendEvent(response, usageChunk(3, 2));
        response.end('data: [DONE]\n\n');
      },
    });
  });
  let [conversation_id, last_event_id] = [0, 0];
  for await (const event of client.assistant.chatEvents({ user_id, message: 'Tell me' })) {
    if (event.type === 'start') {
      ({ conversation_id } = event.data);
      (await speech.promise).say('Once');
      continue;
    }
    t.like(event, { type: 'text', data: { delta: 'Once' } });
    last_event_id = event.id;
    break;
  }
  const following = client.assistant.streamAnswer({ user_id, conversation_id, last_event_id });
  const { say, end } = await speech.promise;
  say(' upon a time');
  t.like((await following.next()).value, { type: 'text', id: last_event_id + 1, data: { delta: ' upon a time' } });
  end();
  t.like((await following.next()).value, { type: 'finish', data: { response: 'Once upon a time' } });
  t.true((await following.next()).done);
});
