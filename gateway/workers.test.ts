import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import { freePorts } from '../dev/ports.ts';
import { descriptorSet, startEchoBackend } from '../test/echo-backend.ts';
import { exchange } from '../test/echo-gateway.ts';
import { eventually } from '../test/eventually.ts';
import { foreignDescriptors } from '../test/grpc-gateway/build.ts';
import { openedFolder } from '../test/opened.ts';

/** One after another: each starts several processes. */
const test = ava.serial;

const program = path.join(import.meta.dirname, 'standalone.ts');
const folder = openedFolder('chat4all-');
const descriptors = path.join(folder, 'descriptors.binpb');
test.before(() => foreignDescriptors(descriptorSet, descriptors));
const startLimit = 60_000;
const isLinux = process.platform === 'linux';

/** `npm run gateway` with two workers. */
async function start(t: ExecutionContext, port: number, env: NodeJS.ProcessEnv = {}) {
  const backend = await startEchoBackend();
  t.teardown(() => backend.stop());
  const args = [
    '--descriptor-set',
    descriptors,
    '--backend',
    backend.address,
    '--port',
    String(port),
    '--workers',
    '2',
  ];
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LOG_FORMAT: 'json', SHUTDOWN_NOTICE: '0s', ...env },
  });
  t.teardown(() => void child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const lines = () => output.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []));
  return { pid: child.pid!, child, exited, lines: lines as () => { msg: string; port?: number; worker?: number }[] };
}

async function ready(lines: Awaited<ReturnType<typeof start>>['lines']): Promise<number> {
  const [line] = await eventually(
    'it is ready',
    () => lines().filter(({ msg }) => msg === 'ready'),
    ({ length }) => length > 0,
    startLimit,
  );
  return line!.port!;
}

async function workersOf(pid: number): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const stats = await Promise.all(pids.map((each) => readFile(`/proc/${each}/stat`, 'utf8').catch(() => '')));
  return stats.flatMap((stat) => {
    const [, own, state, parent] = /^(\d+) \(.*\) (\S) (\d+) /.exec(stat) ?? [];
    return Number(parent) === pid && state !== 'Z' ? [Number(own)] : [];
  });
}

const answered = (port: number) => exchange(port, 'GET /v1/letters/a').then(({ status }) => status);

test('workers: share the port, are replaced when they end, and go with their primary', async (t) => {
  const { pid, child, exited, lines } = await start(t, 0);
  const port = await ready(lines);
  const first = await answered(port);
  t.true(first < 500);
  for (let times = 0; times < 8; times++) t.is(await answered(port), first);
  if (isLinux) {
    const [one, two] = (await workersOf(pid)).toSorted((a, b) => a - b);
    t.truthy(two);
    process.kill(one!, 'SIGKILL');
    const after = await eventually(
      'another worker is there',
      () => workersOf(pid),
      (pids) => pids.length === 2 && !pids.includes(one!),
    );
    t.true(after.includes(two!));
    for (let times = 0; times < 8; times++) t.is(await answered(port), first);
    t.deepEqual(
      lines()
        .filter(({ worker }) => worker !== undefined)
        .map(({ worker }) => worker),
      [one],
    );
  }
  child.kill('SIGTERM');
  t.deepEqual((await exited)[0], 0);
  await t.throwsAsync(answered(port));
  if (isLinux) t.deepEqual(await workersOf(pid), []);
});

test('workers: a primary that is killed takes them with it', async (t) => {
  const { pid, child, exited, lines } = await start(t, 0);
  const port = await ready(lines);
  const workers = isLinux ? await workersOf(pid) : [];
  child.kill('SIGKILL');
  await exited;
  const found = await eventually(
    'nobody listens',
    () => answered(port).then(String, () => 'refused'),
    (answer) => answer === 'refused',
  );
  t.is(found, 'refused');
  for (const worker of workers) {
    await eventually(
      'the worker is gone',
      () => readFile(`/proc/${worker}/cmdline`, 'utf8').catch(() => ''),
      (line) => line === '',
    );
  }
});

test('workers: metrics are those of all', async (t) => {
  const [metrics] = (await freePorts(1)) as [number];
  const { lines } = await start(t, 0, { METRICS_PORT: String(metrics) });
  await ready(lines);
  const { status, text } = await exchange(metrics, 'GET /metrics');
  t.is(status, 200);
  const [, heap] = /^nodejs_eventloop_lag_seconds ([\d.e-]+)$/m.exec(text) ?? [];
  t.truthy(heap, text);
});

test('workers: a port that is taken is said once, and the exit code says so, too', async (t) => {
  const { lines: firstLines } = await start(t, 0);
  const port = await ready(firstLines);
  const { exited, lines } = await start(t, port);
  t.deepEqual((await exited)[0], 1);
  const failures = lines().filter(({ msg }) => msg === 'failed to start');
  t.is(failures.length, 1);
  t.regex(JSON.stringify(failures), new RegExp(`EADDRINUSE|${port}`));
});
