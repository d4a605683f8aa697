import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { grpcTools } from '../dev/engines/grpc-tools.ts';
import { startProcessHub } from './flows/hubs.ts';
import { blocksIn, runShown } from './shown-lines.ts';

/**
 * The README's lines for a running hub, just as they stand there but for the ports: all in one shell, each block with what
 * the ones before have left.
 */

const root = path.resolve(import.meta.dirname, '..');
/** The part of the README for which a hub runs. */
const part = { from: '\n## A first conversation\n', to: '\n## How it is built\n' };
/** gRPC ports as the README has them. */
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
/** Blocks that show how the hub refuses something, by a word of theirs. */
const refused = /pigeon/;
const limit = 300_000;

const readme = await readFile(path.join(root, 'README.md'), 'utf8');
const shown = readme.slice(readme.indexOf(part.from), readme.indexOf(part.to));
const blocks = blocksIn(shown);

/** Where they can't be built their lines are left out, unless CI=true: test/run.ts sees to that. */
const withGrpc = grpcTools.isAvailable();
const chosen = withGrpc ? blocks : blocks.filter((block) => !/grpcurl|ghz|\bgrpc\b/.test(block));

test(`README.md: each line for a running hub does what it says${withGrpc ? '' : ', but for those of gRPC tools'}`, async (t) => {
  t.timeout(limit + 120_000);
  if (withGrpc) await grpcTools.install();
  // Below the project, since npm looks for it from here on upwards.
  await mkdir(path.join(root, '.chat4all'), { recursive: true });
  const folder = await mkdtemp(path.join(root, '.chat4all/readme-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const hub = await startProcessHub(folder, { ADMIN_USERS: 'user1' });
  t.teardown(() => hub.stop());

  const { code, output, last } = await runShown({
    blocks: chosen,
    refused,
    here: (script) =>
      Object.entries(ports)
        .reduce(
          (shown, [service, port]) => shown.replaceAll(`localhost:${port}`, `127.0.0.1:${hub.grpcPorts[service]}`),
          script,
        )
        .replaceAll('http://localhost:8000', hub.url),
    folder,
    // npm run upload has no part in the shell's variables.
    env: { HUB_URL: hub.url },
    programs: grpcTools.folders,
    limit,
  });
  t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
  t.regex(output, /^=== end$/m);

  t.regex(output, /^same$/m);
  t.regex(output, /"field_errors"/);
  if (withGrpc) {
    t.regex(output, /option \(\.google\.api\.http\) = \{ post: "\/v1\/messages", body: "\*" \}/);
    t.is(output.match(/\[OK\] +500 responses/g)?.length, 1);
    t.notRegex(output, /Error distribution/);
    t.true(output.includes(`"data": "${Buffer.from('Hello, world').toString('base64')}"`));
  }
});

test('README.md: the versions of gRPC tools are those that its lines are tried with', async (t) => {
  const used = await readFile(path.join(root, 'dev/engines/grpc-tools.ts'), 'utf8');
  for (const [, module, version] of readme.matchAll(/go install (\S+)@(v[\d.]+)/g)) {
    t.true(used.includes(`['${module}', '${version}']`), `${module} ${version}`);
  }
});
