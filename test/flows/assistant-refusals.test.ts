import test from 'ava';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

const services = ['auth', 'conversation', 'connectors', 'file', 'message', 'tools', 'assistant'];
const mesh = opened(
  () => startMesh({ bus: 'embedded', services }),
  (mesh) => mesh.stop(),
);

const uuidOf = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

interface Call {
  method?: string;
  as?: number;
  body?: unknown;
  headers?: Record<string, string>;
}

async function send(path: string, { method = 'GET', as, body, headers = {} }: Call = {}) {
  const token = as === undefined ? undefined : await mesh.userToken({ userId: uuidOf(as), username: `user${as}` });
  const response = await fetch(mesh.url + path, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  const isJson = /json/.test(response.headers.get('content-type') ?? '');
  return { status: response.status, headers: response.headers, text, json: (isJson ? JSON.parse(text) : {}) as never };
}

test('who asks comes before whose path it is, that before what is there, and that before what is wrong', async (t) => {
  const chat = async (path: string, call: Call) => {
    const { status, json } = await send(path, { method: 'POST', ...call });
    const { error_code: code, message, detail, code: number } = json as Record<string, unknown>;
    t.is(message, detail, path);
    t.is(number, status, path);
    return `${status} ${String(code)}`;
  };
  const unknown = { conversation_id: 999_999, message: '' };
  t.is(await chat('/api/2/chat', { body: unknown }), '401 TOKEN_MISSING');
  for (const body of [unknown, { message: 7 }, '{"message":']) {
    for (const path of ['2', '0', '999999999', 'somebody', uuidOf(2)]) {
      t.is(await chat(`/api/${path}/chat`, { as: 1, body }), '403 NOT_YOUR_PATH', path);
    }
  }
  t.is(await chat('/api/1/chat', { as: 1, body: unknown }), '404 CONVERSATION_NOT_FOUND');
  t.is(await chat('/api/1/chat', { as: 1, body: { message: ' ' } }), '400 INVALID_ARGUMENT');
  t.is(await chat('/api/1/chat', { as: 1, body: '{"message":' }), '400 MALFORMED_JSON');
});

test('the path has the number that GET /v1/users/me tells, or the UUID; /api/v1 is never taken for it', async (t) => {
  const me = (await send('/v1/users/me', { as: 2 })).json as { user?: { num_id: number }; num_id?: number };
  t.is(me.num_id ?? me.user?.num_id, 2);
  for (const path of ['2', uuidOf(2), uuidOf(2).toUpperCase()]) {
    const { status, json } = await send(`/api/${path}/tasks`, { as: 2 });
    t.is(status, 200, path);
    t.deepEqual(json, [] as never);
  }
  const envelope = await send('/api/v1/tasks', { as: 2 });
  t.is(envelope.status, 404);
  t.like(envelope.json, { data: null });
});

test('an answer comes as JSON, or as events, which a second client may follow', async (t) => {
  const body = { message: 'Show me all my tasks' };
  const whole = await send('/api/3/chat', { method: 'POST', as: 3, body });
  t.is(whole.status, 200, whole.text);
  const { conversation_id: id } = whole.json as { conversation_id: number };
  const events = await send('/api/3/chat', {
    method: 'POST',
    as: 3,
    body: { ...body, conversation_id: id, stream: true },
  });
  t.is(events.headers.get('content-type'), 'text/event-stream');
  t.is(events.headers.get('cache-control'), 'no-cache, no-transform');
  const types = [...events.text.matchAll(/^event: (\w+)$/gm)].map(([, type]) => type);
  t.is(types[0], 'start');
  t.is(types.at(-1), 'finish');
  const ids = [...events.text.matchAll(/^id: (\d+)$/gm)].map(([, number]) => Number(number));
  t.deepEqual(
    ids,
    ids.map((_, index) => index + 1),
  );
  t.is((await send(`/api/3/chat/${id}/stream`, { as: 3 })).status, 204);
  const history = (await send(`/api/3/chat/${id}/history`, { as: 3 })).json as { user_id: number }[];
  t.is(history.length, 4);
  t.true(history.every(({ user_id: owner }) => owner === 3));
});
