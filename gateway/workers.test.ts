import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import { freePorts } from '../dev/ports.ts';
import { descriptorSet, startEchoBackend } from '../test/echo-backend.ts';
import { dial, exchange } from '../test/echo-gateway.ts';
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
  return {
    pid: child.pid!,
    child,
    exited,
    lines: lines as () => { msg: string; level: number; port?: number; worker?: number }[],
  };
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

/** What the workers have answered so far, by status. */
async function answersIn(metrics: number): Promise<Record<string, number>> {
  const { status, text } = await exchange(metrics, 'GET /metrics');
  if (status !== 200) throw new Error(`/metrics is ${status}: ${text}`);
  const counted: Record<string, number> = {};
  for (const [, labels, count] of text.matchAll(/^chat4all_http_requests_total\{(.*)\} (\d+)$/gm)) {
    const [, code] = /status="(\d+)"/.exec(labels!)!;
    counted[code!] = (counted[code!] ?? 0) + Number(count);
  }
  return counted;
}

test('workers: metrics are those of all, added up', async (t) => {
  const [metrics] = (await freePorts(1)) as [number];
  const { pid, lines } = await start(t, 0, { METRICS_PORT: String(metrics) });
  const port = await ready(lines);
  const found = await answered(port);
  // Each on a connection of its own: the workers take them by turns.
  for (let times = 1; times < 20; times++) t.is(await answered(port), found);
  for (let times = 0; times < 10; times++) t.is((await exchange(port, 'GET /nothing/there')).status, 404);
  const counted = await eventually(
    'all are counted',
    () => answersIn(metrics),
    (by) => Object.values(by).reduce((sum, count) => sum + count, 0) >= 30,
  );
  t.deepEqual(counted, { [found]: found === 404 ? 30 : 20, ...(found !== 404 && { 404: 10 }) });
  const { text } = await exchange(metrics, 'GET /metrics');
  t.is(text.match(/^# TYPE chat4all_ready gauge$/gm)?.length, 1, 'whether it is ready, the first process says, once');
  t.is(text.match(/^chat4all_ready [01]$/gm)?.length, 1);
  if (!isLinux) return;
  // Of one worker they would be fewer: with it go its own.
  const [first] = await workersOf(pid);
  process.kill(first!, 'SIGKILL');
  const left = await eventually(
    'the metrics are those of the others',
    () => answersIn(metrics).catch(() => counted),
    (by) => Object.values(by).reduce((sum, count) => sum + count, 0) < 30,
  );
  const sum = Object.values(left).reduce((all, count) => all + count, 0);
  t.true(sum > 0, 'the other one has answered, too');
});

test('metrics: a target that is no URL harms nobody', async (t) => {
  const [metrics] = (await freePorts(1)) as [number];
  const { lines } = await start(t, 0, { METRICS_PORT: String(metrics) });
  await ready(lines);
  for (const target of ['http://[/x', '//', '*', '/%', 'http://a:b']) {
    const { socket, until } = await dial(metrics);
    socket.write(`GET ${target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    t.regex(await until('end'), /^HTTP\/1\.1 40[04] /, target);
  }
  t.is((await exchange(metrics, 'GET /metrics')).status, 200);
});

test('workers: a port that is taken is said once, and the exit code says so, too', async (t) => {
  const { lines: firstLines } = await start(t, 0);
  const port = await ready(firstLines);
  const { exited, lines } = await start(t, port);
  t.deepEqual((await exited)[0], 1);
  const failures = lines().filter(({ level }) => level === 60);
  t.is(failures.length, 1);
  t.is(failures[0]!.msg, `--port: 127.0.0.1:${port} is in use by another program`);
});
