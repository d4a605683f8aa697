import { globSync, readFileSync, statSync } from 'node:fs';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { installPlugin, pluginAvailable, pluginNeeds } from '../dev/client/plugin.ts';
import { grpcTools } from '../dev/engines/grpc-tools.ts';
import type { InstallOptions } from '../dev/engines/install.ts';
import { kafka, minio, type NativeEngine } from '../dev/engines/native.ts';
import { startPostgres } from '../dev/engines/postgres.ts';
import { installToxiproxy, toxiproxyAvailable, toxiproxyNeeds } from '../dev/engines/toxiproxy.ts';
import { baseImagesAvailable, baseImagesNeed, installBaseImages } from './containers/base-images.ts';
import { buildGrpcGateway, goIsThere } from './grpc-gateway/build.ts';
import { alone, testFiles } from './order.ts';
import { installKubernetesTools, kubernetesToolsAvailable, kubernetesToolsNeeds } from './kubernetes/tools.ts';
import { gofakes3, moto } from './other-s3s/engines.ts';
import { buildGrpcJava, grpcJavaAvailable, grpcJavaNeeds } from './grpc-java/build.ts';
import { failuresOf, runAva, slowest, type AvaRun } from './runner.ts';

/**
 * `node test/run.ts --install` builds and downloads what the tests need, and does nothing else.
 *
 * `node test/run.ts [file or pattern…] [AVA's options]`: starts the engines that the tests need, runs AVA, stops the
 * engines. The last line is `<n> passed, <n> failed`, with `, <n> skipped` behind it if any were; before it stand the slowest
 * files, and once more what has failed.
 *
 * One PostgreSQL and, where Java and Maven are there, one Kafka, and where Go is there, one MinIO serve all test files; Go also
 * builds other programs that tests use. With CI=true a missing engine or tool is a failure, save for containers. As long as something is built or
 * downloaded, the files run that need nothing of it. If one of them fails, that is the end.
 */

const root = path.resolve(import.meta.dirname, '..');
/** Milliseconds after which the tests as a whole have failed: four times what they take on two cores with nothing else to do. */
const longestRun = 40 * 60_000;
/** Milliseconds without news of a test after which they have failed, unless a test has asked for more time. */
const quietLimit = 3 * 60_000;
/** What it takes to see that all is installed. */
const lookLimit = 1_000;

/** A program that is built or downloaded, once for this user, for those files that use it. */
interface Needed {
  name: string;
  /** What the machine must have for it. */
  needs: string;
  isAvailable(): boolean;
  install(options: InstallOptions): Promise<unknown>;
  isUsedBy(text: string): boolean;
  /** Where it serves all of the files at once. */
  start?: NativeEngine['start'];
  /** With CI=true, too, its tests are left out where it isn't there: not every machine of a CI can have it. */
  mayBeMissing?: boolean;
}

const usesKafka = (text: string) => /'kafka'|kafkaIsThere|TEST_KAFKA_BROKERS/.test(text);
/** Who uses S3 or builds MinIO; meshes on Kafka keep their files in it. */
const usesMinio = (text: string) =>
  /'s3'|s3IsThere|TEST_S3_|startMinio/.test(text) || (/openedMeshes|startFlowMesh/.test(text) && usesKafka(text));

const programs: readonly Needed[] = [
  { ...kafka, isUsedBy: usesKafka },
  { ...minio, isUsedBy: usesMinio },
  { ...grpcTools, isUsedBy: (text) => text.includes('grpcTools.install') },
  {
    name: 'Toxiproxy',
    needs: toxiproxyNeeds,
    isAvailable: toxiproxyAvailable,
    install: installToxiproxy,
    isUsedBy: (text) => /installToxiproxy|startToxiproxy/.test(text),
  },
  ...[moto, gofakes3].map(({ name, needs, isAvailable, install }) => ({
    name,
    needs,
    isAvailable,
    install,
    isUsedBy: (text: string) => text.includes('other-s3s/engines.ts'),
  })),
  {
    name: 'grpc-gateway',
    needs: 'Go (go) on the PATH, to be built',
    isAvailable: goIsThere,
    install: buildGrpcGateway,
    isUsedBy: (text) => text.includes('buildGrpcGateway'),
  },
  {
    name: 'grpc-java',
    needs: grpcJavaNeeds,
    isAvailable: grpcJavaAvailable,
    install: buildGrpcJava,
    isUsedBy: (text) => text.includes('buildGrpcJava'),
  },
  {
    name: "The client's generator",
    needs: pluginNeeds,
    isAvailable: pluginAvailable,
    install: installPlugin,
    isUsedBy: (text) => text.includes('installPlugin'),
  },
  {
    name: 'What checks manifests for Kubernetes',
    needs: kubernetesToolsNeeds,
    isAvailable: kubernetesToolsAvailable,
    install: installKubernetesTools,
    isUsedBy: (text) => text.includes('kubernetesToolsAvailable'),
  },
  {
    name: 'Containers',
    needs: baseImagesNeed,
    isAvailable: baseImagesAvailable,
    install: installBaseImages,
    isUsedBy: (text) => text.includes('baseImagesAvailable'),
    mayBeMissing: true,
  },
];

const given = process.argv.slice(2);
const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(new Error(signal)));

try {
  process.exitCode = await run();
} catch (error) {
  console.error(stopped.signal.aborted ? `\nStopped: ${(stopped.signal.reason as Error).message}` : error);
  process.exitCode = 1;
}

async function run(): Promise<number> {
  if (given.includes('--install')) {
    await install(
      programs.filter(({ isAvailable }) => isAvailable()),
      stopped.signal,
    );
    return 0;
  }
  const files = selectedFiles();
  const needed = programs.filter((program) => isNeeded(program, files));
  await using started = new AsyncDisposableStack();
  const installing = new AbortController();
  const installed = install(needed, AbortSignal.any([installing.signal, stopped.signal]));
  // Whoever waits for it hears of it.
  installed.catch(() => {});
  started.defer(async () => {
    installing.abort();
    await installed.catch(() => {});
  });
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-test-'));
  started.defer(() => rm(folder, { recursive: true, force: true }));
  // PostgreSQL runs as another user where we are root.
  await chmod(folder, 0o755);
  const env: NodeJS.ProcessEnv = { ...process.env };
  const postgres = await startPostgres({ dataDir: path.join(folder, 'postgres') });
  started.defer(() => postgres.stop());
  env.TEST_DATABASE_ADMIN_URL = postgres.adminUrl;
  // A hundred processes of tests, and each process of their hubs, load the same code.
  env.NODE_COMPILE_CACHE ??= path.join(folder, 'compile-cache');

  const tooLong = new Error(`not done after ${longestRun / 60_000} minutes`);
  const runs: AvaRun[] = [];
  const runFiles = async (args: readonly string[]) => {
    // What is installed has limits of its own.
    const limit = setTimeout(() => stopped.abort(tooLong), longestRun).unref();
    const report = path.join(folder, `report-${runs.length}.json`);
    const done = await runAva({ cwd: root, args, env, report, quietLimit, signal: stopped.signal });
    clearTimeout(limit);
    stopped.signal.throwIfAborted();
    runs.push(done);
    return done.code;
  };

  const isUser = ({ text }: { text: string }) => needed.some(({ isUsedBy }) => isUsedBy(text));
  const others = files.filter(isUser).map(({ file }) => file);
  const simple = files.filter((file) => !isUser(file)).map(({ file }) => file);
  const isThere = await Promise.race([installed.then(() => true), sleep(lookLimit, false)]);
  const isSplit = !isThere && simple.length > 0 && others.length > 0 && !given.some((each) => each.startsWith('-'));
  if (isSplit) {
    console.log(`First the ${simple.length} test files that need nothing of what is installed meanwhile.`);
    if ((await runFiles(simple)) !== 0) {
      console.log(`Some of them have failed: the other ${others.length} are left out.`);
      return report(runs);
    }
  }
  await installed;
  const engines = await Promise.allSettled(
    needed.map(async ({ name, start }) => {
      if (start === undefined) return;
      const dataDir = path.join(folder, name.toLowerCase());
      const { server, env: settings } = await start({ dataDir, signal: stopped.signal });
      started.defer(() => server.stop());
      for (const [variable, value] of Object.entries(settings)) env[`TEST_${variable}`] = value;
    }),
  );
  for (const engine of engines) if (engine.status === 'rejected') throw engine.reason;
  stopped.signal.throwIfAborted();
  const left = isSplit ? others : files.map(({ file }) => file);
  if (given.length > 0) await runFiles(isSplit ? others : given);
  else {
    const isAlone = (file: string) => alone.includes(file.split(path.sep).join('/'));
    await runFiles(['--concurrency', '1', ...left.filter(isAlone)]);
    await runFiles(left.filter((file) => !isAlone(file)));
  }
  return report(runs);
}

/** One after the other: each build takes all that the machine has. */
async function install(needed: readonly Needed[], signal: AbortSignal): Promise<void> {
  for (const program of needed) await program.install({ log: console.log, signal });
}

/** The test files that were asked for, all of them by default, with their texts. */
function selectedFiles(): { file: string; text: string }[] {
  const patterns = given.filter((argument) => !argument.startsWith('-'));
  const find = (from: readonly string[]) =>
    from
      .flatMap((pattern) => globSync(pattern, { cwd: root }))
      .flatMap((file) =>
        statSync(path.join(root, file)).isDirectory() ? globSync(`${file}/**/*.test.ts`, { cwd: root }) : [file],
      );
  const found = find(patterns);
  const names = found.length > 0 ? found : find([testFiles]);
  return names.map((file) => ({ file, text: readFileSync(path.join(root, file), 'utf8') }));
}

/** Whether to install something: not for files that make no use of it, and not where it can't run unless it must. */
function isNeeded(
  { name, needs, isAvailable, isUsedBy, mayBeMissing }: Needed,
  files: readonly { text: string }[],
): boolean {
  if (!files.some(({ text }) => isUsedBy(text))) return false;
  if (isAvailable()) return true;
  const missing = `${name} needs ${needs}, and that is not there`;
  if (process.env.CI === 'true' && !mayBeMissing)
    throw new Error(`${missing}: with CI=true its tests may not be left out`);
  console.log(`${missing}: its tests are left out.`);
  return false;
}

/** Prints the slowest files, what has failed, and the last line. @returns the exit code, which is never 0 if anything failed or nothing ran */
function report(runs: readonly AvaRun[]): number {
  const sum = (count: (run: AvaRun) => number) => runs.reduce((total, run) => total + count(run), 0);
  const lines = slowest(
    runs.flatMap(({ ended }) => ended),
    root,
  );
  console.log(`\nThe slowest files:\n${lines.join('\n')}\n`);
  const failures = failuresOf(
    runs.flatMap((each) => each.failures),
    root,
  );
  if (failures.length > 0) console.log(`What has failed:\n${failures.join('\n')}\n`);
  const skipped = sum((run) => run.skipped);
  console.log(
    `${sum((run) => run.passed)} passed, ${sum((run) => run.failed)} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`,
  );
  return runs.find(({ code }) => code !== 0)?.code ?? 0;
}
