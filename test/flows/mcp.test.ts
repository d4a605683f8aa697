import { spawn } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { Client } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import test, { type ExecutionContext } from 'ava';
import { eventually } from '../eventually.ts';
import { startMesh } from '../harness.ts';
import { opened } from '../opened.ts';

const root = path.resolve(import.meta.dirname, '../..');
/** Two MCP servers of others: one that is there, and one at an address where nobody answers. */
const servers = opened(
  async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'mcp-servers-'));
    const file = path.join(folder, 'servers.json');
    const example = { command: process.execPath, args: [path.join(root, 'test/example-mcp-server.ts')] };
    await writeFile(file, JSON.stringify({ mcpServers: { example, away: { url: 'http://127.0.0.1:1/mcp' } } }));
    return { folder, file };
  },
  ({ folder }) => rm(folder, { recursive: true }),
);
const mesh = opened(
  () =>
    startMesh({
      bus: 'embedded',
      services: ['auth', 'conversation', 'message', 'file', 'router', 'connectors', 'assistant'],
      env: { ASSISTANT_MCP_FILE: servers.file },
    }),
  (each) => each.stop(),
);

async function tokenOf(username: string): Promise<string> {
  const answer = await fetch(`${mesh.url}/auth/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ username, password: 'password123' }),
  });
  return ((await answer.json()) as { access_token: string }).access_token;
}

async function apiKeyOf(token: string): Promise<string> {
  const answer = await fetch(`${mesh.url}/api/v1/users/me/api-keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'MCP host' }),
  });
  return ((await answer.json()) as { data: { key: string } }).data.key;
}

/** The MCP inspector's program: published alone, it misses a package.json two folders above it. */
const inspector = opened(
  async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'mcp-inspector-'));
    await writeFile(
      path.join(folder, 'package.json'),
      '{"name": "@modelcontextprotocol/inspector", "version": "1.0.3"}',
    );
    await symlink(path.join(root, 'node_modules/@modelcontextprotocol/inspector-cli'), path.join(folder, 'cli'));
    await symlink(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
    return { folder };
  },
  ({ folder }) => rm(folder, { recursive: true }),
);

/** Runs the MCP inspector's program, and returns what it prints. */
async function inspect(server: 'tasks' | 'hub', token: string, ...asked: string[]): Promise<unknown> {
  const program = spawn(
    process.execPath,
    [
      '--preserve-symlinks',
      '--preserve-symlinks-main',
      path.join(inspector.folder, 'cli/build/index.js'),
      `${mesh.url}/mcp/${server}`,
      '--transport',
      'http',
      '--header',
      `Authorization: Bearer ${token}`,
      ...asked,
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  const ended = new Promise<number | null>((resolve) => program.on('close', resolve));
  const [said, complained, code] = await Promise.all([text(program.stdout), text(program.stderr), ended]);
  if (code !== 0) throw new Error(`The inspector has failed: ${complained}${said}`);
  return JSON.parse(said);
}

test('the MCP inspector lists and calls our tools with a token', async (t) => {
  const token = await tokenOf('user1');
  const { tools } = (await inspect('tasks', token, '--method', 'tools/list')) as { tools: { name: string }[] };
  t.deepEqual(
    tools.map(({ name }) => name),
    ['add_task', 'list_tasks', 'complete_task', 'delete_task', 'update_task'],
  );
  const added = (await inspect(
    'tasks',
    token,
    '--method',
    'tools/call',
    '--tool-name',
    'add_task',
    '--tool-arg',
    'title=Buy groceries',
  )) as { structuredContent: { task_id: number } };
  t.like(added.structuredContent, { status: 'created', title: 'Buy groceries' });
  const found = (await inspect(
    'hub',
    token,
    '--method',
    'tools/call',
    '--tool-name',
    'find_users',
    '--tool-arg',
    'query=user2',
  )) as { structuredContent: { users: { username: string }[] } };
  t.is(found.structuredContent.users[0]?.username, 'user2');
});

test('a client of the older SDK works through the gateway with an API key', async (t) => {
  const key = await apiKeyOf(await tokenOf('user2'));
  const client = new OlderClient({ name: 'older', version: '1' });
  t.teardown(() => client.close());
  const transport = new OlderTransport(new URL(`${mesh.url}/mcp/tasks`), {
    requestInit: { headers: { 'x-api-key': key } },
  });
  await client.connect(transport as never);
  t.truthy(transport.sessionId);
  const { structuredContent } = await client.callTool({ name: 'add_task', arguments: { title: 'With a key' } });
  t.like(structuredContent, { title: 'With a key' });
  const { tools } = await client.listTools();
  t.is(tools.length, 5);
  await transport.terminateSession();
});

test('without a token, with a bad one, and from another origin nobody is let in', async (t) => {
  const post = (headers: Record<string, string>) =>
    fetch(`${mesh.url}/mcp/hub`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...headers },
      body: JSON.stringify({
        jsonrpc: '2.0',
        id: 1,
        method: 'initialize',
        params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
      }),
    });
  for (const headers of [{}, { authorization: 'Bearer nonsense' }, { 'x-api-key': 'c4a_nonsense' }]) {
    const answer = await post(headers as Record<string, string>);
    t.is(answer.status, 401);
    t.regex(answer.headers.get('www-authenticate') ?? '', /^Bearer/);
  }
  const authorization = `Bearer ${await tokenOf('user1')}`;
  t.is((await post({ authorization, origin: 'http://evil.example' })).status, 403);
  const answer = await post({ authorization, origin: 'http://localhost:6274' });
  t.is(answer.status, 200);
  t.truthy(answer.headers.get('mcp-session-id'));
  t.is(answer.headers.get('content-type'), 'text/event-stream');
  t.regex(await answer.text(), /"serverInfo"/);
});

function stdio(t: ExecutionContext, server: string, env: Record<string, string>) {
  const transport = new StdioClientTransport({
    command: 'npm',
    args: ['run', '--silent', 'mcp', '--', server],
    cwd: root,
    env,
    stderr: 'pipe',
  });
  const complained = text(transport.stderr as Readable);
  const client = new Client({ name: 'host', version: '1' });
  t.teardown(() => client.close());
  return { transport, client, complained };
}

test('/ready names each MCP server of others, and is ready without them', async (t) => {
  const ready = await eventually(
    'the server that is there is connected',
    async () => {
      const answer = await fetch(`${mesh.url}/ready`);
      const body = (await answer.json()) as { status: string; optional_dependencies: Record<string, string> };
      return { code: answer.status, ...body };
    },
    ({ optional_dependencies: optional }) => optional['assistant.mcp.example'] === 'up',
  );
  t.like(ready, {
    code: 200,
    status: 'ready',
    optional_dependencies: { 'assistant.mcp.example': 'up', 'assistant.mcp.away': 'down' },
  });
});

test('both servers are programs on stdio, for hosts that start them', async (t) => {
  const token = await tokenOf('user3');
  for (const [credential, server, name, given] of [
    [await apiKeyOf(token), 'tasks', 'add_task', { title: 'From an editor' }],
    [token, 'hub', 'find_users', { query: 'user4' }],
  ] as const) {
    const { transport, client } = stdio(t, server, { CHAT4ALL_URL: mesh.url, CHAT4ALL_API_KEY: credential });
    await client.connect(transport);
    const { tools } = await client.listTools();
    t.is(tools.length, 5);
    t.true(tools.every(({ annotations }) => annotations?.readOnlyHint !== undefined));
    const { structuredContent } = await client.callTool({ name, arguments: given });
    t.regex(JSON.stringify(structuredContent), /From an editor|user4/);
    const bad = await client.callTool({ name, arguments: { user_id: 'somebody' } });
    t.true(bad.isError);
    await client.close();
  }
});

test('the program on stdio says what it lacks', async (t) => {
  const without = stdio(t, 'tasks', { CHAT4ALL_URL: mesh.url });
  await t.throwsAsync(() => without.client.connect(without.transport));
  t.regex(await without.complained, /CHAT4ALL_API_KEY is required/);

  const withBad = stdio(t, 'tasks', { CHAT4ALL_URL: mesh.url, CHAT4ALL_API_KEY: `c4a_${'x'.repeat(43)}` });
  await withBad.client.connect(withBad.transport);
  await t.throwsAsync(() => withBad.client.listTools(), { message: /does not take the API key/ });

  const nowhere = stdio(t, 'hub', { CHAT4ALL_URL: 'http://127.0.0.1:1', CHAT4ALL_API_KEY: 'token' });
  await nowhere.client.connect(nowhere.transport);
  await t.throwsAsync(() => nowhere.client.callTool({ name: 'find_users' }), { message: /can't be reached/ });
});
