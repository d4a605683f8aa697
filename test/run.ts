import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync, statSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { grpcTools } from '../dev/engines/grpc-tools.ts';
import { kafka, minio, type NativeEngine } from '../dev/engines/native.ts';
import { startPostgres } from '../dev/engines/postgres.ts';

/**
 * `node test/run.ts [file or pattern…] [AVA's options]`: starts the engines that the tests need, runs AVA, stops the
 * engines. The last line is `<n> passed, <n> failed`, with `, <n> skipped` behind it if any were.
 *
 * One PostgreSQL and, where Java and Maven are there, one Kafka, and where Go is there, one MinIO serve all test files; Go also
 * builds the gRPC tools of the README. With CI=true a missing engine or tool is a failure.
 */

const root = path.resolve(import.meta.dirname, '..');
/** Milliseconds after which the tests as a whole have failed. */
const longestRun = 20 * 60_000;
/** What AVA may take to end its workers. */
const stopLimit = 10_000;

/** The part of AVA's statistics that the last line and its exit code are made of. */
interface Report {
  passedTests: number;
  passedKnownFailingTests: number;
  failedTests: number;
  failedHooks: number;
  timedOutTests: number;
  uncaughtExceptions: number;
  unhandledRejections: number;
  unexpectedProcessExits: number;
  internalErrors: number;
  skippedTests: number;
  todoTests: number;
}

const usesKafka = (text: string) => /'kafka'|kafkaIsThere|TEST_KAFKA_BROKERS/.test(text);
/** Who uses S3 or builds MinIO; meshes on Kafka keep their files in it. */
const usesMinio = (text: string) =>
  /'s3'|s3IsThere|TEST_S3_|startMinio/.test(text) || (/openedMeshes|startFlowMesh/.test(text) && usesKafka(text));

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
  const native = [
    { engine: kafka, isUsedBy: usesKafka },
    { engine: minio, isUsedBy: usesMinio },
  ].filter(({ engine, isUsedBy }) => isNeeded(engine, isUsedBy));
  const tools = isNeeded(grpcTools, (text) => text.includes('grpcTools.install')) ? [grpcTools] : [];
  // Before anything is started: a build takes all that the machine has.
  for (const { install } of [...native.map(({ engine }) => engine), ...tools]) {
    await install({ log: console.log, signal: stopped.signal });
  }
  await using started = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-test-'));
  started.defer(() => rm(folder, { recursive: true, force: true }));
  // PostgreSQL runs as another user where we are root.
  await chmod(folder, 0o755);

  const env: NodeJS.ProcessEnv = { ...process.env, TEST_REPORT: path.join(folder, 'report.json') };
  const engines = await Promise.allSettled([
    startPostgres({ dataDir: path.join(folder, 'postgres') }).then((postgres) => {
      started.defer(() => postgres.stop());
      env.TEST_DATABASE_ADMIN_URL = postgres.adminUrl;
    }),
    ...native.map(async ({ engine }) => {
      const dataDir = path.join(folder, engine.name.toLowerCase());
      const { server, env: settings } = await engine.start({ dataDir, signal: stopped.signal });
      started.defer(() => server.stop());
      for (const [name, value] of Object.entries(settings)) env[`TEST_${name}`] = value;
    }),
  ]);
  for (const engine of engines) if (engine.status === 'rejected') throw engine.reason;
  stopped.signal.throwIfAborted();

  // Only now: the first run on a machine downloads and builds, with limits of its own.
  const tooLong = new Error(`not done after ${longestRun / 60_000} minutes`);
  const limit = setTimeout(() => stopped.abort(tooLong), longestRun).unref();
  const code = await runAva(env);
  clearTimeout(limit);
  stopped.signal.throwIfAborted();
  const stats = await readFile(env.TEST_REPORT!, 'utf8').catch(() => undefined);
  if (stats === undefined) throw new Error(`AVA ran no test file (exit code ${code})`);
  return report(JSON.parse(stats) as Report, code);
}

/** Whether to start an engine: not for files that make no use of it, and not where it can't run unless it must. */
function isNeeded(engine: Omit<NativeEngine, 'start'>, isUsedBy: (text: string) => boolean): boolean {
  const found = given.filter((argument) => !argument.startsWith('-')).flatMap((pattern) => globSync(pattern));
  const files = found.flatMap((file) => (statSync(file).isDirectory() ? globSync(`${file}/**/*.test.ts`) : [file]));
  if (files.length > 0 && !files.some((file) => isUsedBy(readFileSync(file, 'utf8')))) return false;
  if (engine.isAvailable()) return true;
  const missing = `${engine.name} needs ${engine.needs}, and that is not there`;
  if (process.env.CI === 'true') throw new Error(`${missing}: with CI=true its tests may not be left out`);
  console.log(`${missing}: its tests are left out.`);
  return false;
}

async function runAva(env: NodeJS.ProcessEnv): Promise<number> {
  const ava = fileURLToPath(new URL('cli.js', import.meta.resolve('ava')));
  // A process group of its own, so that Ctrl-C reaches AVA once, from here.
  const child = spawn(process.execPath, [ava, ...given], { cwd: root, env, stdio: 'inherit', detached: true });
  const stop = () => {
    child.kill('SIGINT');
    setTimeout(() => {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }, stopLimit).unref();
  };
  stopped.signal.addEventListener('abort', stop, { once: true });
  const [code] = (await once(child, 'exit')) as [number | null];
  stopped.signal.removeEventListener('abort', stop);
  return code ?? 1;
}

/** Prints the last line. @returns the exit code, which is never 0 if anything failed or nothing ran */
function report(stats: Report, code: number): number {
  const passed = stats.passedTests + stats.passedKnownFailingTests;
  const failed =
    stats.failedTests +
    stats.failedHooks +
    stats.timedOutTests +
    stats.uncaughtExceptions +
    stats.unhandledRejections +
    stats.unexpectedProcessExits +
    stats.internalErrors;
  const skipped = stats.skippedTests + stats.todoTests;
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  return code === 0 && failed > 0 ? 1 : code;
}
