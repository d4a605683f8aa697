import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createMcpHandler } from '@modelcontextprotocol/server';
import test, { type ExecutionContext } from 'ava';
import { z } from 'zod';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../../test/eventually.ts';
import { tool, type OurServer } from '../mcp/our-server.ts';
import { serveWeb } from '../../../test/web-server.ts';
import { outcomeOf } from './calling.ts';
import { readServers } from './configuration.ts';
import { exampleServer } from '../../../test/example-mcp-server.ts';
import { openToolbox } from './open.ts';
import type { Toolbox, ToolCaller } from './toolbox.ts';

const caller: ToolCaller = { userId: randomUUID(), numId: 1n, credentials: {}, requestId: 'request' };
const never = new AbortController().signal;
const example = {
  command: process.execPath,
  args: [path.join(import.meta.dirname, '../../../test/example-mcp-server.ts')],
};

async function fileWith(t: ExecutionContext, content: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'mcp-servers-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'servers.json');
  await writeFile(file, content);
  return file;
}

async function open(
  t: ExecutionContext,
  { own = [], servers = {} }: { own?: OurServer[]; servers?: Record<string, object> },
): Promise<{ toolbox: Toolbox; lines: string[] }> {
  const lines: string[] = [];
  const log = openLog({
    name: 'test',
    format: 'json',
    level: 'info',
    destination: { write: (line) => void lines.push(line) },
  });
  const others = readServers(await fileWith(t, JSON.stringify({ mcpServers: servers })), []);
  const toolbox = openToolbox({ own, others, log });
  t.teardown(() => toolbox.close());
  return { toolbox, lines };
}

/** The tools of a turn, once all servers are there. */
async function openSet(t: ExecutionContext, toolbox: Toolbox) {
  await eventually(
    'all servers are there',
    () => toolbox.problems(),
    (problems) => problems.length === 0,
  );
  const set = await toolbox.open(caller, never);
  t.teardown(() => set.close());
  return set;
}

test('readServers: each mistake is named by its place, without values', async (t) => {
  const read = async (content: unknown) => {
    const file = await fileWith(t, typeof content === 'string' ? content : JSON.stringify(content));
    return t.throws(() => readServers(file, ['tasks', 'hub']))!.message;
  };
  t.regex(await read('{'), /is no JSON/);
  t.regex(await read({ servers: {} }), /mcpServers/);
  t.regex(await read({ mcpServers: { a: {} } }), /mcpServers\.a: needs either a command or a url/);
  t.regex(await read({ mcpServers: { a: { command: 'x', url: 'http://x' } } }), /either/);
  t.regex(await read({ mcpServers: { a: { url: 'ftp://secret' } } }), /^(?!.*secret).*mcpServers\.a\.url/s);
  t.regex(
    await read({ mcpServers: { a: { url: 'http://x', env: { A: 'secret' } } } }),
    /^(?!.*secret).*without a command/s,
  );
  t.regex(await read({ mcpServers: { a: { command: 'x', timeout: '30' } } }), /mcpServers\.a\.timeout/);
  t.regex(await read({ mcpServers: { a__b: { command: 'x' } } }), /mcpServers\.a__b/);
  t.regex(
    await read({ mcpServers: { tasks: { command: 'x' } } }),
    /mcpServers\.tasks: is the name of a server of the hub/,
  );
  t.regex(t.throws(() => readServers('/no/such/file', []))!.message, /ENOENT/);
  t.deepEqual(readServers(undefined, []), []);
});

test('a server on stdio gets its env and the six variables of the SDK, and nothing of ours', async (t) => {
  process.env['TOOLBOX_TEST_SECRET'] = 'secret';
  t.teardown(() => delete process.env['TOOLBOX_TEST_SECRET']);
  const { toolbox } = await open(t, { servers: { example: { ...example, env: { MINE: 'yes' } } } });
  const set = await openSet(t, toolbox);
  const { result, isError } = await set.call(
    { server: 'example', name: 'environment', arguments: {}, callId: '1' },
    never,
  );
  t.false(isError);
  const names = Object.keys(JSON.parse(result as string) as object);
  t.true(names.includes('MINE'));
  t.deepEqual(
    names.filter((name) => !['MINE', 'HOME', 'LOGNAME', 'PATH', 'SHELL', 'TERM', 'USER'].includes(name)),
    [],
  );
});

test('tools are told with what they need, and those that models can’t be told of are left out', async (t) => {
  const { toolbox, lines } = await open(t, { servers: { example } });
  const set = await openSet(t, toolbox);
  t.deepEqual(
    set.tools.map(({ server, name, needsApproval, isReadOnly }) => [server, name, needsApproval, isReadOnly]),
    [
      ['example', 'environment', false, true],
      ['example', 'wait', false, false],
      ['example', 'say', false, false],
      // Without a word about it, a tool may destroy something (the specification's ToolAnnotations).
      ['example', 'die', true, false],
      ['example', 'fail', true, false],
    ],
  );
  t.true(lines.some((line) => line.includes('a.name.that.no.model.takes')));
  t.deepEqual(set.missing, []);
});

test('the configuration says which tools are used, and which are asked for', async (t) => {
  const { toolbox } = await open(t, {
    servers: {
      some: { ...example, tools: ['say', 'fail'], approve: ['say'] },
      none: { ...example, tools: ['fail'], approve: false },
      all: { ...example, tools: ['environment'], approve: true },
    },
  });
  const set = await openSet(t, toolbox);
  t.deepEqual(
    set.tools.map(({ server, name, needsApproval }) => [server, name, needsApproval]),
    [
      ['some', 'say', true],
      ['some', 'fail', false],
      ['none', 'fail', false],
      ['all', 'environment', true],
    ],
  );
  const left = await set.call({ server: 'some', name: 'environment', arguments: {}, callId: '1' }, never);
  t.true(left.isError);
});

test('what fails is an outcome: the tool, its arguments, its time, its size, and the process itself', async (t) => {
  const { toolbox } = await open(t, { servers: { example: { ...example, timeout: '500ms' } } });
  const set = await openSet(t, toolbox);
  const call = (name: string, given: unknown = {}, signal = never) =>
    set.call({ server: 'example', name, arguments: given, callId: '1' }, signal);
  t.deepEqual(await call('fail'), { result: 'It has failed', isError: true });
  t.like(await call('say', { characters: 'many' }), { isError: true });
  t.like(await call('say', 'no object'), { isError: true });
  t.like(await call('no_such_tool'), { isError: true });
  t.regex(String((await call('wait', { milliseconds: 20_000 })).result), /has not answered within 0.5 s/);
  const much = (await call('say', { characters: 150_000 })).result as { cut_off: boolean; beginning: string };
  t.true(much.cut_off);
  t.is(much.beginning.length, 100_000);

  const stop = new AbortController();
  const stopped = call('wait', { milliseconds: 20_000 }, stop.signal);
  stop.abort();
  t.like(await stopped, { isError: true });

  t.regex(String((await call('die')).result), /has failed/);
  // It is started again, for this turn and the next.
  const outcome = await eventually(
    'the server is there again',
    () => call('say', { characters: 2 }),
    ({ isError }) => !isError,
  );
  t.is(outcome.result, 'xx');
});

test('a server that can’t be reached is left out of a turn, named in the log, and comes back', async (t) => {
  let isUp = false;
  const handler = createMcpHandler(exampleServer);
  const tokens = new Set<string | null>();
  const web = await serveWeb((request) => {
    tokens.add(request.headers.get('x-token'));
    return isUp ? handler.fetch(request) : Promise.resolve(new Response(null, { status: 503 }));
  });
  t.teardown(() => web.close());
  t.teardown(() => handler.close());
  const { toolbox, lines } = await open(t, {
    servers: { away: { url: web.url, headers: { 'x-token': 'secret' } }, example },
  });
  await eventually(
    'one is there',
    () => toolbox.problems(),
    (problems) => problems.length === 1,
  );
  const set = await toolbox.open(caller, never);
  t.deepEqual(
    set.missing.map(({ server }) => server),
    ['away'],
  );
  t.true(set.tools.every(({ server }) => server === 'example'));
  t.true(lines.some((line) => line.includes('away')));
  t.false(lines.some((line) => line.includes('secret')));
  await set.close();

  isUp = true;
  const later = await openSet(t, toolbox);
  t.true(later.tools.some(({ server }) => server === 'away'));
  t.like(await later.call({ server: 'away', name: 'say', arguments: { characters: 1 }, callId: '1' }, never), {
    result: 'x',
  });
  t.deepEqual([...tokens], ['secret']);
});

test('a server of ours knows its caller and the id of the call, from the assistant alone', async (t) => {
  const calls: [userId: string, callId: string | undefined][] = [];
  const annotations = { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false };
  const own: OurServer = {
    name: 'own',
    title: 'Own',
    instructions: '',
    tools: [
      tool({
        name: 'note',
        title: 'Note',
        description: 'Notes who calls',
        annotations,
        input: { text: z.string() },
        output: { noted: z.string() },
        async run({ text }, call) {
          if (text === 'refuse') throw new HubError('NOT_FOUND', 'NOTHING', 'There is nothing');
          if (text === 'bug') throw new Error('a secret');
          calls.push([call.caller.userId, call.callId]);
          return { noted: text };
        },
      }),
    ],
  };
  const { toolbox } = await open(t, { own: [own] });
  const set = await openSet(t, toolbox);
  t.like(set.tools, [
    { server: 'own', name: 'note', needsApproval: true, inputSchema: { additionalProperties: false } },
  ]);
  const call = (given: unknown) => set.call({ server: 'own', name: 'note', arguments: given, callId: 'call-1' }, never);
  t.deepEqual(await call({ text: 'hello' }), { result: { noted: 'hello' }, isError: false });
  t.deepEqual(calls, [[caller.userId, 'call-1']]);
  t.deepEqual(await call({ text: 'refuse' }), { result: 'There is nothing', isError: true });
  const { result, isError } = await call({ text: 'bug' });
  t.true(isError);
  t.notRegex(String(result), /secret/);
  t.true((await call({ text: 'hello', user_id: randomUUID() })).isError);
});

test('outcomeOf: what is no text is named', (t) => {
  const outcome = outcomeOf({
    content: [
      { type: 'text', text: 'one' },
      { type: 'image', data: '', mimeType: 'image/png' },
      { type: 'resource', resource: { uri: 'test://a', text: 'two' } },
      { type: 'resource_link', uri: 'test://b', name: 'b' },
    ],
  });
  t.deepEqual(outcome, { result: 'one\n[image]\ntwo\ntest://b', isError: false });
  t.deepEqual(outcomeOf({ content: [], structuredContent: { a: 1 }, isError: true }), {
    result: { a: 1 },
    isError: true,
  });
});
