import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { freePorts } from '../dev/ports.ts';
import { startProcessHub } from './flows/hubs.ts';
import { blocksIn, runShown } from './shown-lines.ts';

const root = path.resolve(import.meta.dirname, '..');
const limit = 120_000;

test('docs/tutorial-accounts.md: each line does what it says', async (t) => {
  t.timeout(limit + 120_000);
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  const folder = await mkdtemp(path.join(root, '.chat4all/tutorial-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, {});
  t.teardown(() => hub.stop());
  const [port] = await freePorts(1);
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, 'docs/tutorial-accounts.md'), 'utf8')),
    here: (script) =>
      script
        .replaceAll('http://localhost:8000', hub.url)
        .replaceAll('18787', String(port))
        // What the reader's own tool is must not outlive a line that fails.
        .replace('MINE=$!', "MINE=$!; trap 'kill $MINE 2>/dev/null' EXIT; sleep 1"),
    folder,
    env: {},
    limit,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  t.true(output.includes('"reversed":"reward"'), output.slice(-3_000));
  t.true(output.includes('"words":8'));
});

test('docs/tutorial-assistant.md: each line does what it says', async (t) => {
  t.timeout(limit + 120_000);
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  const folder = await mkdtemp(path.join(root, '.chat4all/tutorial-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, {});
  t.teardown(() => hub.stop());
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, 'docs/tutorial-assistant.md'), 'utf8')),
    here: (script) => script.replaceAll('http://localhost:8000', hub.url),
    folder,
    env: {},
    limit,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  for (const shown of [
    /scripted model/,
    /Your pending tasks:/,
    /I have sent 'hi there' to user2/,
    /^event: finish$/m,
    /^approval$/m,
  ]) {
    t.regex(output, shown);
  }
  t.regex(output, /"object": ?"chat.completion"/);
});

test('docs/howto-webhooks.md: each line does what it says', async (t) => {
  t.timeout(limit + 120_000);
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  // Below the project, so that the receiver finds the package that it verifies signatures with.
  const folder = await mkdtemp(path.join(root, '.chat4all/tutorial-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, {});
  t.teardown(() => hub.stop());
  const [port] = await freePorts(1);
  const printed = new Map<string, number>();
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, 'docs/howto-webhooks.md'), 'utf8')),
    refused: /-i http:/,
    here: (script) =>
      script
        .replaceAll('http://localhost:8000', hub.url)
        .replaceAll('9000', String(port))
        // What the reader waits for.
        .replaceAll(/ # the receiver prints (\S+)( twice)?$/gm, (_, type: string, twice?: string) => {
          const times = (printed.get(type) ?? 0) + (twice === undefined ? 1 : 2);
          printed.set(type, times);
          return `; until [ "$(grep -c '^${type} ' receiver.log)" -ge ${times} ]; do sleep 0.1; done`;
        })
        .replaceAll('kill $RECEIVER\n', 'kill $RECEIVER; wait $RECEIVER || true\n')
        .replaceAll(
          'node receiver.mjs &\nRECEIVER=$!',
          `node receiver.mjs >> receiver.log &
          RECEIVER=$!; trap 'kill $RECEIVER 2>/dev/null || true' EXIT
          until (exec 3<> /dev/tcp/127.0.0.1/${port}) 2>/dev/null; do sleep 0.1; done`,
        ),
    folder,
    env: {},
    limit,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  t.deepEqual(Object.fromEntries(printed), { ping: 3, 'conversation.created': 1, 'message.accepted': 4 });
  t.regex(output, /^conversation\.created delivered 204\nping delivered 204$/m);
  t.regex(output, /^paused$[^]*^active$/m);
  t.true(output.includes('{"webhooks":[]}'));
  const received = (await readFile(path.join(folder, 'receiver.log'), 'utf8')).trim().split('\n');
  const idsOf = (type: string) => received.filter((line) => line.startsWith(`${type} `));
  t.is(new Set(idsOf('message.accepted')).size, 2, 'what is sent once more has the id that it had');
  t.is(received.filter((line) => line.startsWith('refused:')).length, 1);
});
