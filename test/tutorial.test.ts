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
