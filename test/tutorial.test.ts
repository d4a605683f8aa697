import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { freePorts } from '../dev/ports.ts';
import { startProcessHub } from './flows/hubs.ts';
import { blocksIn, runShown, type Shown } from './shown-lines.ts';

const root = path.resolve(import.meta.dirname, '..');
const limit = 120_000;

/**
 * Runs the lines of a document on a hub of its own, to the end. What is another here than it says there, but for the hub's URL, is in
 * `here`.
 *
 * @returns what was written, and the folder in which the lines were run: below the project, so that packages are found from there
 */
async function follow(
  t: ExecutionContext,
  document: string,
  { here = (script) => script, ...more }: Partial<Pick<Shown, 'here' | 'refused'>> = {},
): Promise<{ output: string; folder: string }> {
  t.timeout(limit + 120_000);
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  const folder = await mkdtemp(path.join(root, '.chat4all/tutorial-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, {});
  t.teardown(() => hub.stop());
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, document), 'utf8')),
    here: (script) => here(script.replaceAll('http://localhost:8000', hub.url)),
    folder,
    env: {},
    limit,
    ...more,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  return { output, folder };
}

test.serial('docs/tutorial-accounts.md: each line does what it says', async (t) => {
  const [port] = await freePorts(1);
  const { output } = await follow(t, 'docs/tutorial-accounts.md', {
    here: (script) =>
      script
        .replaceAll('18787', String(port))
        // What the reader's own tool is must not outlive a line that fails.
        .replace('MINE=$!', "MINE=$!; trap 'kill $MINE 2>/dev/null' EXIT; sleep 1"),
  });
  t.true(output.includes('"reversed":"reward"'), output.slice(-3_000));
  t.true(output.includes('"words":8'));
});

test.serial('docs/tutorial-assistant.md: each line does what it says', async (t) => {
  const { output } = await follow(t, 'docs/tutorial-assistant.md');
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

test.serial('docs/howto-webhooks.md: each line does what it says', async (t) => {
  const [port] = await freePorts(1);
  const printed = new Map<string, number>();
  const { output, folder } = await follow(t, 'docs/howto-webhooks.md', {
    refused: /-i http:/,
    here: (script) =>
      script
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
  });
  t.deepEqual(Object.fromEntries(printed), { ping: 3, 'conversation.created': 1, 'message.accepted': 4 });
  t.regex(output, /^conversation\.created delivered 204\nping delivered 204$/m);
  t.regex(output, /^paused$[^]*^active$/m);
  t.true(output.includes('{"webhooks":[]}'));
  const received = (await readFile(path.join(folder, 'receiver.log'), 'utf8')).trim().split('\n');
  const idsOf = (type: string) => received.filter((line) => line.startsWith(`${type} `));
  t.is(new Set(idsOf('message.accepted')).size, 2, 'what is sent once more has the id that it had');
  t.is(received.filter((line) => line.startsWith('refused:')).length, 1);
});

test.serial('docs/tutorial-know-at-once.md: each line does what it says', async (t) => {
  const { output, folder } = await follow(t, 'docs/tutorial-know-at-once.md', {
    refused: /application\/json, text/,
    here: (script) =>
      script
        // What the reader waits for.
        .replaceAll(/ # wait until (\S+) has (.+)$/gm, "; until grep -qF '$2' $1; do sleep 0.1; done")
        // Those in the background are to be stopped as processes of their own, and none outlives a line that fails.
        .replaceAll('curl -sSN', 'env curl -sSN')
        .replace(/^/, "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
        .replaceAll('./client/', '../../client/'),
  });
  const told = ['hello', 'message_accepted', 'delivery_changed'].map((type) => `event: ${type}\\n`);
  t.regex(output, new RegExp(told.join('[^]*')));
  const more = await readFile(path.join(folder, 'more.txt'), 'utf8');
  t.is(more.match(/^event: message_accepted$/gm)?.length, 1, 'only what was missed');
  t.regex(output, /^Here I am again$/m);
  t.regex(output, /TICKET_INVALID/);
  for (const line of [/^listening$/m, /^others present: 1$/m, /^read up to 3$/m, /^typing in \S+$/m])
    t.regex(output, line);
});
