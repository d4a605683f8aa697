import { glob, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { grpcTools } from '../dev/engines/grpc-tools.ts';
import { freePorts } from '../dev/ports.ts';
import { startProcessHub } from './flows/hubs.ts';
import { opened } from './opened.ts';
import { blocksIn, runShown, type Shown } from './shown-lines.ts';

/**
 * The lines of README.md and docs that are marked `sh run`, just as they stand there but for the ports: those of a page in one shell, one page
 * after the other, on one hub.
 */

const root = path.resolve(import.meta.dirname, '..');
/** gRPC ports as the pages have them. */
const ports = {
  auth: 50051,
  conversation: 50052,
  message: 50053,
  file: 50054,
  router: 50055,
  connectors: 50056,
  tools: 50057,
  assistant: 50058,
};
const limit = 300_000;

// Below the project, since npm and packages are looked for from here on upwards.
const place = opened(
  async () => {
    await mkdir(path.join(root, '.chat4all'), { recursive: true });
    return { folder: await mkdtemp(path.join(root, '.chat4all/documents-')) };
  },
  ({ folder }) => rm(folder, { recursive: true, force: true }),
);
const hub = opened(
  () => startProcessHub(place.folder, {}),
  (started) => started.stop(),
);

/** The pages that have a test here. */
const pages: string[] = [];

/** Declares the test of a page; the tests run in their order. */
function page(document: string, check: (t: ExecutionContext, document: string) => Promise<void>): void {
  pages.push(document);
  test.serial(`${document}: each line does what it says`, (t) => check(t, document));
}

/**
 * Runs the lines of a page, to the end. What is another here than it says there, but for the hub's URL and ports, is in `here`.
 *
 * @returns what was written, and the folder in which the lines were run
 */
async function follow(
  t: ExecutionContext,
  document: string,
  { here = (script) => script, ...more }: Partial<Pick<Shown, 'here' | 'programs'>> = {},
): Promise<{ output: string; folder: string }> {
  t.timeout(limit + 60_000);
  const folder = await mkdtemp(path.join(place.folder, 'page-'));
  // As in the folder of the clone, where the reader is.
  await mkdir(path.join(folder, '.chat4all'));
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, document), 'utf8')),
    here: (script) =>
      here(
        Object.entries(ports)
          .reduce(
            (shown, [service, port]) => shown.replaceAll(`localhost:${port}`, `127.0.0.1:${hub.grpcPorts[service]}`),
            script,
          )
          .replaceAll('http://localhost:8000', hub.url),
      ),
    folder,
    // npm run upload and programs have no part in the shell's variables.
    env: { HUB_URL: hub.url },
    limit,
    ...more,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  return { output, folder };
}

// The first one, since it counts what happens to a user.
page('docs/howto-webhooks.md', async (t, document) => {
  const [port] = await freePorts(1);
  const printed = new Map<string, number>();
  const { output, folder } = await follow(t, document, {
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

page('README.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /"status": ?"accepted"/);
  t.regex(output, /^Whatever you like$/m);
  t.regex(output, /"words": ?2/);
  t.regex(output, /"title": ?"Call Ada"/);
  t.regex(output, /^accepted$/m);
});

page('docs/tutorial-conversation.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /^1 user1: Hello, all of you/m);
  t.regex(output, /"field_errors"/);
  t.regex(output, /^message_read$/m);
});

page('docs/tutorial-files.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /^same$/m);
  t.regex(output, /206 Partial Content/);
});

page('docs/howto-upload.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /holiday\.bin/);
});

page('docs/howto-web-pages.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /304 Not Modified/);
});

page('docs/tutorial-accounts.md', async (t, document) => {
  const [port] = await freePorts(1);
  const { output } = await follow(t, document, {
    here: (script) =>
      script
        .replaceAll('18787', String(port))
        // What the reader's own tool is must not outlive a line that fails.
        .replace('MINE=$!', "MINE=$!; trap 'kill $MINE 2>/dev/null' EXIT; sleep 1"),
  });
  t.true(output.includes('"reversed":"reward"'), output.slice(-3_000));
  t.true(output.includes('"words":8'));
});

page('docs/tutorial-assistant.md', async (t, document) => {
  const { output } = await follow(t, document);
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

page('docs/tutorial-know-at-once.md', async (t, document) => {
  const { output, folder } = await follow(t, document, {
    here: (script) =>
      script
        // What the reader waits for.
        .replaceAll(/ # wait until (\S+) has (.+)$/gm, "; until grep -qF '$2' $1; do sleep 0.1; done")
        // Those in the background are to be stopped as processes of their own, and none outlives a line that fails.
        .replaceAll('curl -sSN', 'env curl -sSN')
        .replace(/^/, "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
        .replaceAll('./client/', '../../../client/'),
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

page('docs/howto-administration.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /"status": ?"disabled"/);
  t.regex(output, /"is_active": ?false/);
  t.regex(output, /"action": ?"tool\.update"/);
});

page('docs/howto-audit.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /balanced: true/);
});

page('docs/howto-dead-letters.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /"replayed": ?0/);
});

/** Where they can't be built their page is left out, unless CI=true: test/run.ts sees to that. */
const withGrpc = grpcTools.isAvailable();
if (withGrpc) {
  page('docs/tutorial-grpc.md', async (t, document) => {
    t.timeout(limit + 120_000);
    await grpcTools.install();
    const { output } = await follow(t, document, { programs: grpcTools.folders });
    t.regex(output, /option \(\.google\.api\.http\) = \{ post: "\/v1\/messages", body: "\*" \}/);
    t.is(output.match(/\[OK\] +500 responses/g)?.length, 1);
    t.notRegex(output, /Error distribution/);
    t.true(output.includes(`"data": "${Buffer.from('Hello, world').toString('base64')}"`));
  });
}

// The last one, since a network fails on it.
page('docs/howto-networks.md', async (t, document) => {
  const { output } = await follow(t, document);
  t.regex(output, /"rate_limit"/);
});

/** Pages that are run by tests of their own. */
const elsewhere = {
  'docs/tutorial-internal-service.md': 'test/tutorial-internal-service.test.ts',
  'docs/operating.md': 'test/restore.test.ts',
};

test('every page with lines to be run has a test that runs them', async (t) => {
  const found: string[] = [];
  for await (const file of glob(['*.md', 'docs/**/*.md', 'client/README.md'], { cwd: root })) {
    if (blocksIn(await readFile(path.join(root, file), 'utf8')).length > 0) found.push(file);
  }
  for (const [document, by] of Object.entries(elsewhere)) {
    t.true((await readFile(path.join(root, by), 'utf8')).includes(document), by);
  }
  const run = [...pages, ...Object.keys(elsewhere), ...(withGrpc ? [] : ['docs/tutorial-grpc.md'])];
  t.deepEqual(found.toSorted(), run.toSorted());
});

test('docs/tutorial-grpc.md: the versions of gRPC tools are those that its lines are tried with', async (t) => {
  const used = await readFile(path.join(root, 'dev/engines/grpc-tools.ts'), 'utf8');
  const page = await readFile(path.join(root, 'docs/tutorial-grpc.md'), 'utf8');
  const named = [...page.matchAll(/go install (\S+)@(v[\d.]+)/g)];
  t.is(named.length, 2);
  for (const [, module, version] of named) {
    t.true(used.includes(`['${module}', '${version}']`), `${module} ${version}`);
  }
});
