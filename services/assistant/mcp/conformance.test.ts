import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database as definition } from '../database.ts';
import { conformanceServer } from '../../../test/conformance-server.ts';
import { openEndpoint } from './endpoint.ts';
import { openMcpSessions } from './sessions-store.ts';
import { serveWeb } from '../../../test/web-server.ts';

/** Scenarios that can't pass, each with the reason. */
const impossible: Record<string, string> = {
  'server-sse-polling':
    'It calls its tool as a client of the revision 2025-03-26, and wants an event without data first: the SDK sends that to clients of 2025-11-25 and later only, since older ones take it for broken JSON.',
};

const harness = opened(openHarness, (each) => each.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('assistant'), poolSize: 5, name: 'test' }),
  (each) => each.close(),
);
const endpoint = opened(
  () =>
    openEndpoint({
      name: 'conformance',
      serve: conformanceServer,
      sessions: openMcpSessions(database),
      origins: ['localhost', '127.0.0.1', '[::1]'],
      log: openLog({ name: 'conformance', format: 'json', level: 'silent' }),
    }),
  (each) => each.close(),
);
const caller = { userId: '00000000-0000-4000-8000-0000000000c0', numId: 1n, credentials: {}, requestId: 'conformance' };
const web = opened(
  () => serveWeb((request) => endpoint.answer(request, caller)),
  (each) => each.close(),
);

test('the conformance suite of MCP passes, save what is listed with its reason', async (t) => {
  t.timeout(150_000);
  const folder = await mkdtemp(path.join(tmpdir(), 'mcp-conformance-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const expected = path.join(folder, 'expected.yml');
  await writeFile(expected, `server: ${JSON.stringify(Object.keys(impossible))}\n`);
  const program = path.join(
    import.meta.dirname,
    '../../../node_modules/@modelcontextprotocol/conformance/dist/index.js',
  );
  const runner = spawn(
    process.execPath,
    [program, 'server', '--url', web.url, '--suite', 'all', '--expected-failures', expected],
    { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  t.teardown(() => runner.kill());
  const ended = new Promise<number | null>((resolve) => runner.on('close', resolve));
  const [said, complained, code] = await Promise.all([text(runner.stdout), text(runner.stderr), ended]);
  const [passed] = /Total: \d+ passed, \d+ failed/.exec(said) ?? [];
  t.is(code, 0, `${said.slice(-6_000)}\n${complained.slice(-2_000)}`);
  t.regex(passed ?? '', /^Total: [1-9]\d+ passed, 0 failed$/);
});
