import { randomUUID } from 'node:crypto';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client, StreamableHTTPClientTransport, type ClientOptions } from '@modelcontextprotocol/client';
import type { McpServer } from '@modelcontextprotocol/server';
import test, { type ExecutionContext } from 'ava';
import { z } from 'zod';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database as definition } from '../database.ts';
import { openTasks } from '../tasks/tasks-store.ts';
import type { ToolCaller } from '../toolbox/toolbox.ts';
import { conformanceServer } from '../../../test/conformance-server.ts';
import { openEndpoint, type Endpoint } from './endpoint.ts';
import { serveTools } from './our-server.ts';
import { openMcpSessions, sessionLimits } from './sessions-store.ts';
import { tasksServer } from './tasks-server.ts';
import { serveWeb } from '../../../test/web-server.ts';

const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const origins = ['localhost', '127.0.0.1', '[::1]'];

const harness = opened(openHarness, (each) => each.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('assistant'), poolSize: 10, name: 'test' }),
  (each) => each.close(),
);
const sessions = openMcpSessions(database);
const tasks = openTasks(database);

/** The signals of calls that wait for nothing but their cancellation. */
const waiting = new Map<string, AbortSignal>();

function waitingServer(): McpServer {
  const served = conformanceServer();
  served.registerTool('wait', { inputSchema: z.object({ for: z.string() }) }, async ({ for: name }, { mcpReq }) => {
    waiting.set(name, mcpReq.signal);
    await new Promise((resolve) => mcpReq.signal.addEventListener('abort', resolve));
    return { content: [] };
  });
  return served;
}

/** One process that serves the fixture, or our tasks. */
function openReplica(name: 'fixture' | 'tasks'): Endpoint {
  const serve = (caller: ToolCaller) =>
    name === 'fixture' ? waitingServer() : serveTools(tasksServer(tasks), { caller, log });
  return openEndpoint({ name, serve, sessions, origins, log });
}

const replicas = {
  fixture: [
    opened(
      () => openReplica('fixture'),
      (each) => each.close(),
    ),
    opened(
      () => openReplica('fixture'),
      (each) => each.close(),
    ),
  ],
  tasks: [
    opened(
      () => openReplica('tasks'),
      (each) => each.close(),
    ),
    opened(
      () => openReplica('tasks'),
      (each) => each.close(),
    ),
  ],
};

interface Served {
  url: URL;
  /** Which replica answers from now on; undefined: they take turns. */
  only: number | undefined;
}

/** The replicas behind one address, for somebody. */
async function serveReplicas(
  t: ExecutionContext,
  name: keyof typeof replicas,
  caller: Partial<ToolCaller> = {},
): Promise<Served> {
  const all = { userId: randomUUID(), numId: 7n, credentials: {}, requestId: 'request', ...caller };
  let count = 0;
  const served: Served = { url: new URL('http://127.0.0.1'), only: undefined };
  const web = await serveWeb((request) => replicas[name][served.only ?? count++ % 2]!.answer(request, all));
  served.url = new URL(web.url);
  t.teardown(() => web.close());
  return served;
}

async function connected(t: ExecutionContext, url: URL, options: ClientOptions = {}): Promise<Client> {
  const client = new Client({ name: 'test', version: '1' }, options);
  t.teardown(() => client.close());
  await client.connect(new StreamableHTTPClientTransport(url));
  return client;
}

test('a tool asks the user in the middle, and hears the answer at whichever replica it comes in', async (t) => {
  const { url } = await serveReplicas(t, 'fixture');
  const client = await connected(t, url, { capabilities: { elicitation: {} } });
  client.setRequestHandler('elicitation/create', () => ({
    action: 'accept',
    content: { username: 'ana', email: 'ana@example.com' },
  }));
  for (const _ of [1, 2, 3]) {
    const { content } = await client.callTool({ name: 'test_elicitation', arguments: { message: 'Who are you?' } });
    t.deepEqual(content, [
      { type: 'text', text: 'User response: action=accept, content={"username":"ana","email":"ana@example.com"}' },
    ]);
  }
});

test('clients of both eras list our tools and call them', async (t) => {
  const { url } = await serveReplicas(t, 'tasks');
  const eras: ClientOptions['versionNegotiation'][] = [undefined, { mode: 'auto' }, { mode: { pin: '2026-07-28' } }];
  for (const versionNegotiation of eras) {
    const client = await connected(t, url, versionNegotiation === undefined ? {} : { versionNegotiation });
    const { tools } = await client.listTools();
    t.deepEqual(
      tools.map(({ name }) => name),
      ['add_task', 'list_tasks', 'complete_task', 'delete_task', 'update_task'],
    );
    for (const { inputSchema, outputSchema, annotations } of tools) {
      t.false(inputSchema['additionalProperties']);
      t.truthy(outputSchema);
      t.is(Object.keys(annotations ?? {}).filter((hint) => hint.endsWith('Hint')).length, 4);
    }
    const { structuredContent, content } = await client.callTool({
      name: 'add_task',
      arguments: { title: 'Pay bills' },
    });
    t.like(structuredContent, { status: 'created', title: 'Pay bills' });
    t.deepEqual(JSON.parse((content as { text: string }[])[0]!.text), structuredContent);
  }

  const older = new OlderClient({ name: 'older', version: '1' });
  t.teardown(() => older.close());
  // Its types want exactOptionalPropertyTypes off.
  await older.connect(new OlderTransport(url) as never);
  const { structuredContent } = await older.callTool({ name: 'list_tasks', arguments: { status: 'pending' } });
  t.is((structuredContent as { tasks: unknown[] }).tasks.length, 3);
});

test('nobody can say for whom a tool acts: the token does', async (t) => {
  const userId = randomUUID();
  const client = await connected(t, (await serveReplicas(t, 'tasks', { userId })).url);
  for (const member of ['user', 'user_id', 'userId']) {
    const result = await client.callTool({
      name: 'add_task',
      arguments: { title: 'Theirs', [member]: randomUUID() },
    });
    t.true(result.isError);
    t.regex(JSON.stringify(result.content), new RegExp(member));
  }
  const { structuredContent } = await client.callTool({ name: 'list_tasks' });
  t.deepEqual(structuredContent, { tasks: [] });
});

test('bad arguments, unknown tasks and unknown tools are told', async (t) => {
  const client = await connected(t, (await serveReplicas(t, 'tasks')).url);
  for (const [name, given] of [
    ['add_task', { title: ' ' }],
    ['add_task', { title: 'x'.repeat(201) }],
    ['complete_task', { task_id: 999_999_999 }],
    ['complete_task', { task_id: 1.5 }],
    ['update_task', { task_id: 1 }],
    ['list_tasks', { status: 'done' }],
  ] as const) {
    const result = await client.callTool({ name, arguments: given });
    t.true(result.isError, `${name} ${JSON.stringify(given)}`);
  }
  await t.throwsAsync(() => client.callTool({ name: 'no_such_tool' }), { message: /no_such_tool/ });
});

test('a session is its owner’s alone, and ends when it is deleted', async (t) => {
  const hers = await serveReplicas(t, 'tasks');
  const client = new Client({ name: 'test', version: '1' });
  const transport = new StreamableHTTPClientTransport(hers.url);
  await client.connect(transport);
  const { sessionId } = transport;
  const list = (url: URL, id = sessionId) =>
    fetch(url, {
      method: 'POST',
      headers: {
        accept: 'application/json, text/event-stream',
        'content-type': 'application/json',
        ...(id === undefined ? {} : { 'mcp-session-id': id }),
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }),
    });
  const answer = await list(hers.url);
  t.is(answer.status, 200);
  t.regex(await answer.text(), /add_task/);
  t.is((await list((await serveReplicas(t, 'tasks')).url)).status, 404);
  t.is((await list((await serveReplicas(t, 'fixture')).url)).status, 404);
  t.is((await list(hers.url, randomUUID())).status, 404);
  t.is((await list(hers.url, 'no uuid')).status, 404);
  t.is(
    (
      await fetch(hers.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
      })
    ).status,
    400,
  );
  await transport.terminateSession();
  t.is((await list(hers.url)).status, 404);
  await client.close();
});

test('a page of another origin is refused', async (t) => {
  const { url } = await serveReplicas(t, 'tasks');
  const post = (origin: string) =>
    fetch(url, {
      method: 'POST',
      headers: { origin, 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 1,
        method: 'initialize',
        params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'page', version: '1' } },
      }),
    });
  t.is((await post('http://evil.example')).status, 403);
  t.is((await post('null')).status, 403);
  t.is((await post('http://localhost:6274')).status, 200);
});

test('what is no request of the protocol is refused with a JSON-RPC error', async (t) => {
  const { url } = await serveReplicas(t, 'tasks');
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  for (const [init, status] of [
    [{ method: 'POST', headers, body: '{' }, 400],
    [{ method: 'POST', headers: { ...headers, 'content-type': 'text/plain' }, body: '{}' }, 415],
    [{ method: 'POST', headers, body: '[]' }, 400],
    [{ method: 'POST', headers, body: 'null' }, 400],
    [{ method: 'GET', headers: { accept: 'text/event-stream' } }, 400],
    [{ method: 'DELETE' }, 400],
  ] as const) {
    const answer = await fetch(url, init);
    t.is(answer.status, status, JSON.stringify(init));
    t.like(await answer.json(), { jsonrpc: '2.0', id: null });
  }
});

test('a client that was cut off gets the rest of the stream from another replica', async (t) => {
  const served = await serveReplicas(t, 'fixture');
  served.only = 0;
  const client = new Client({ name: 'test', version: '1' });
  const transport = new StreamableHTTPClientTransport(served.url);
  await client.connect(transport);
  t.teardown(() => client.close());
  const headers = {
    accept: 'application/json, text/event-stream',
    'content-type': 'application/json',
    'mcp-session-id': transport.sessionId!,
    'mcp-protocol-version': '2025-11-25',
  };
  const cut = new AbortController();
  const answer = await fetch(served.url, {
    method: 'POST',
    headers,
    signal: cut.signal,
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 5,
      method: 'tools/call',
      params: { name: 'test_tool_with_progress', _meta: { progressToken: 'far' } },
    }),
  });
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  const [first] = /(?<=^id: )\d+/m.exec((await reader.read()).value!)!;
  cut.abort();
  await t.throwsAsync(() => reader.read());

  served.only = 1;
  const rest = await fetch(served.url, { headers: { ...headers, 'last-event-id': first } });
  t.is(rest.status, 200);
  const events = (await rest.text()).split('\n\n').filter((event) => event.startsWith('event: message'));
  const messages = events.map((event) => JSON.parse(/(?<=^data: ).*/m.exec(event)![0]));
  t.deepEqual(
    messages.map(({ id, params }) => id ?? params.progress),
    [0, 50, 100, 5],
  );
  t.is((await fetch(served.url, { headers: { ...headers, 'last-event-id': '999999999' } })).status, 404);
  t.is((await fetch(served.url, { headers: { ...headers, 'last-event-id': 'x' } })).status, 404);
});

test('a request is cancelled at whichever replica that is said', async (t) => {
  const served = await serveReplicas(t, 'fixture');
  served.only = 0;
  const client = await connected(t, served.url);
  const stop = new AbortController();
  const call = client.callTool({ name: 'wait', arguments: { for: t.title } }, { signal: stop.signal });
  await eventually('the tool is waiting', () => waiting.get(t.title), Boolean);
  served.only = 1;
  stop.abort();
  await t.throwsAsync(() => call);
  await eventually('the tool was told', () => waiting.get(t.title)?.aborted, Boolean);
});

test('a user has 100 sessions: the one that was used longest ago goes', async (t) => {
  const userId = randomUUID();
  const initialize = { jsonrpc: '2.0', id: 0, method: 'initialize' } as const;
  const ids = Array.from({ length: sessionLimits.perUser + 1 }, () => randomUUID());
  for (const id of ids) await sessions.begin({ id, userId, server: 'tasks', initialize });
  const there = await Promise.all(ids.map((id) => sessions.find(id, userId, 'tasks')));
  t.is(there.filter((each) => each !== undefined).length, sessionLimits.perUser);
  t.is(there.at(-1)?.id, ids.at(-1));
});

test('sweep: sessions that nobody uses end, with their events', async (t) => {
  const [id, userId, streamId] = [randomUUID(), randomUUID(), randomUUID()];
  await sessions.begin({ id, userId, server: 'tasks', initialize: { jsonrpc: '2.0', id: 0, method: 'initialize' } });
  const age = (milliseconds: number) => new Date(Date.now() - milliseconds);
  const begin = () => sessions.append({ sessionId: id, streamId, message: null, isLast: false });
  const [old, young] = [await begin(), await begin()];
  await database.sql('update mcp_events set created_at = $2 where id = $1', [old, age(sessionLimits.kept + 1_000)]);
  await sessions.sweep();
  t.is(await sessions.streamOf(id, old!), undefined);
  t.truthy(await sessions.streamOf(id, young!));

  await database.sql('update mcp_sessions set used_at = $2 where id = $1', [id, age(sessionLimits.idle + 1_000)]);
  await sessions.sweep();
  t.is(await sessions.find(id, userId, 'tasks'), undefined);
  t.is(await sessions.streamOf(id, young!), undefined);
  t.is(await begin(), undefined);
});
