import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { isOnPath } from '../dev/engines/install.ts';
import { startProcessHub } from './flows/hubs.ts';
import { blocksIn, runShown } from './shown-lines.ts';

const root = path.resolve(import.meta.dirname, '..');
const limit = 120_000;

const isThere = ['python3', 'go'].every(isOnPath);
const languages = isThere || process.env['CI'] === 'true' ? test : test.skip;

languages('docs/tutorial-internal-service.md: each line does what it says, in Python and in Go', async (t) => {
  t.timeout(4 * limit + 120_000);
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  const folder = await mkdtemp(path.join(root, '.chat4all/tutorial-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, {});
  t.teardown(() => hub.stop());
  const ports = ['auth', 'conversation', 'message'].map((service) => hub.grpcPorts[service]);
  const { code, output, last } = await runShown({
    blocks: blocksIn(await readFile(path.join(root, 'docs/tutorial-internal-service.md'), 'utf8')),
    here: (script) =>
      script
        .replaceAll(/localhost:5005([123])/g, (_, digit: string) => `localhost:${ports[Number(digit) - 1]}`)
        // The reader is in the project's folder.
        .replaceAll(
          /^npx buf generate --template (\S+) -o clerk$/gm,
          `(cd ${root} && buf generate --template $1 -o ${folder}/clerk)`,
        ),
    folder,
    env: {},
    limit: 4 * limit,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);
  for (const language of ['python', 'go']) {
    t.regex(output, new RegExp(`^${language}: (MESSAGE_STATUS_)?DELIVERED$`, 'm'));
    t.regex(
      output,
      new RegExp(`^${language}: (INVALID_ARGUMENT|InvalidArgument): message_id must be a valid UUID$`, 'm'),
    );
  }
  t.regex(output, /^request id clerk-[\da-f-]{36}$/m);
});
