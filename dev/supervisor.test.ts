import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { openLog } from '#lib/log.ts';
import { supervise, type ChildDefinition, type Supervisor } from './supervisor.ts';

/** A process of ours that writes down what happens to it, one word and the time a line, in the file EVENTS. */
const program = `
  import { appendFileSync } from 'node:fs';
  import { z } from 'zod';
  import { runProcess } from '#lib/lifecycle.ts';
  const { NAME, EVENTS, HABIT } = process.env;
  const note = (what) => appendFileSync(EVENTS, NAME + '.' + what + ' ' + Date.now() + '\\n');
  note('start');
  await runProcess([{
    name: NAME,
    settings: HABIT === 'misconfigured' ? { REQUIRED_AND_MISSING: z.string() } : {},
    async start() {
      if (HABIT === 'fails') throw new Error('no luck');
      if (HABIT === 'crashes') setTimeout(() => process.exit(3), 10);
      const alive = setInterval(() => {}, 1000);
      return {
        port: 1,
        retire() {},
        async stop() {
          note('stop');
          if (HABIT === 'hangs') await new Promise(() => {});
          clearInterval(alive);
          note('stopped');
        },
      };
    },
  }]);`;

const log = openLog({ name: 'test', format: 'json', level: 'silent' });

test('supervise: a child that is killed starts again, in a new process', async (t) => {
  const { supervisor } = await supervised(t, [[{ name: 'a' }, { name: 'b' }]]);
  await supervisor.ready;
  const before = supervisor.pids();
  supervisor.kill('a', 'SIGKILL');
  await until(() => (supervisor.pids().a ?? before.a) !== before.a);
  t.is(supervisor.pids().b, before.b);
});

test('supervise: restart lets a child stop in order and waits until the next one is ready', async (t) => {
  const { supervisor, events } = await supervised(t, [[{ name: 'a' }, { name: 'b', habit: 'hangs' }]], 300);
  await supervisor.ready;
  const before = supervisor.pids();
  await Promise.all([supervisor.restart('a'), supervisor.restart('a'), supervisor.restart('b')]);
  const after = supervisor.pids();
  t.true(after.a !== undefined && after.a !== before.a, 'a second call while it restarts means the same restart');
  t.true(after.b !== undefined && after.b !== before.b, 'one that hangs is killed');
  const order = (await events()).map(({ what }) => what).filter((what) => what.startsWith('a.'));
  t.deepEqual(order, ['a.start', 'a.stop', 'a.stopped', 'a.start']);
  t.throws(() => supervisor.kill('c', 'SIGKILL'), { message: 'no child is called c' });
});

test('supervise: the wait before a child starts again doubles', async (t) => {
  const { events } = await supervised(t, [[{ name: 'a', habit: 'crashes' }]]);
  await until(async () => (await events()).length >= 4);
  const starts = (await events()).map(({ at }) => at);
  const waits = starts.slice(1).map((at, index) => at - starts[index]!);
  t.true(waits[0]! >= 200 && waits[1]! >= 400 && waits[2]! >= 800, String(waits));
});

test('supervise: a child that never gets ready is named after three attempts', async (t) => {
  const { supervisor, events } = await supervised(t, [[{ name: 'a' }, { name: 'b', habit: 'fails' }]]);
  await t.throwsAsync(supervisor.ready, { message: /^b doesn't start: exit code 1\./ });
  t.is((await events()).filter(({ what }) => what === 'b.start').length, 3);
});

test('supervise: a child with an unusable configuration is named at once', async (t) => {
  const { supervisor, events } = await supervised(t, [[{ name: 'a', habit: 'misconfigured' }]]);
  await t.throwsAsync(supervisor.ready, { message: /^a doesn't start: exit code 78\./ });
  t.is((await events()).length, 1);
});

test('supervise: stops group by group, and nothing starts again', async (t) => {
  const { supervisor, events } = await supervised(t, [[{ name: 'first' }], [{ name: 'second' }, { name: 'third' }]]);
  await supervisor.ready;
  const pids = Object.values(supervisor.pids());
  await supervisor.stop();
  const order = (await events()).map(({ what }) => what).filter((what) => !what.endsWith('start'));
  t.deepEqual(order.slice(0, 2), ['first.stop', 'first.stopped']);
  t.deepEqual(order.slice(2).toSorted(), ['second.stop', 'second.stopped', 'third.stop', 'third.stopped']);
  t.deepEqual(supervisor.pids(), {});
  t.false(pids.some(isAlive));
});

test('supervise: a child that hangs while it stops is killed, and so is a frozen one', async (t) => {
  const { supervisor } = await supervised(t, [[{ name: 'a', habit: 'hangs' }], [{ name: 'b' }]], 300);
  await supervisor.ready;
  const pids = Object.values(supervisor.pids());
  supervisor.kill('b', 'SIGSTOP');
  await supervisor.stop();
  t.false(pids.some(isAlive));
});

test('supervise: stop doesn’t wait for a child that is about to start again', async (t) => {
  const { supervisor, events } = await supervised(t, [[{ name: 'a', habit: 'crashes' }]]);
  await until(async () => (await events()).length >= 3);
  await until(() => supervisor.pids().a === undefined);
  await supervisor.stop();
  const starts = (await events()).length;
  await sleep(1_000);
  t.is((await events()).length, starts);
});

test('supervise: children stop by themselves when the supervisor is killed', async (t) => {
  const { children, events } = await prepare(t, [[{ name: 'a' }, { name: 'b' }]]);
  const supervising = `
    import { supervise } from ${JSON.stringify(import.meta.resolve('./supervisor.ts'))};
    import { openLog } from ${JSON.stringify(import.meta.resolve('#lib/log.ts'))};
    const supervisor = supervise({
      groups: ${JSON.stringify(children)},
      log: openLog({ name: 'test', format: 'json', level: 'silent' }),
      stopLimit: 1000,
    });
    await supervisor.ready;
    process.stdout.write(JSON.stringify(supervisor.pids()), () => process.kill(process.pid, 'SIGKILL'));`;
  const parent = spawn(process.execPath, ['--input-type=module', '--eval', supervising], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  parent.stdout.on('data', (data) => (output += String(data)));
  await once(parent, 'exit');
  // The children have the same output, so that it doesn't end with the parent.
  const pids = Object.values(JSON.parse(output.match(/\{"a":\d+,"b":\d+\}/)![0]) as Record<string, number>);
  await until(() => !pids.some(isAlive));
  const stopped = (await events()).map(({ what }) => what).filter((what) => what.endsWith('stopped'));
  t.deepEqual(stopped.toSorted(), ['a.stopped', 'b.stopped']);
});

interface Child {
  name: string;
  habit?: 'fails' | 'crashes' | 'hangs' | 'misconfigured';
}

async function prepare(t: ExecutionContext, groups: readonly (readonly Child[])[]) {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-supervisor-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'events');
  await writeFile(file, '');
  // In the project's own context, so that its import names hold.
  const command = [
    '--input-type=module',
    '--eval',
    program
      .replace('#lib/lifecycle.ts', import.meta.resolve('#lib/lifecycle.ts'))
      .replace("'zod'", `'${import.meta.resolve('zod')}'`),
  ];
  const children: ChildDefinition[][] = groups.map((group) =>
    group.map(({ name, habit }) => ({
      name,
      command,
      env: { NAME: name, EVENTS: file, HABIT: habit ?? '', LOG_LEVEL: 'silent', SHUTDOWN_NOTICE: '0s' },
    })),
  );
  return {
    children,
    async events() {
      if (!existsSync(file)) return [];
      const lines = (await readFile(file, 'utf8')).trim().split('\n').filter(Boolean);
      return lines.map((line) => ({ what: line.split(' ')[0]!, at: Number(line.split(' ')[1]) }));
    },
  };
}

async function supervised(
  t: ExecutionContext,
  groups: readonly (readonly Child[])[],
  stopLimit = 5_000,
): Promise<{ supervisor: Supervisor; events: () => Promise<{ what: string; at: number }[]> }> {
  const { children, events } = await prepare(t, groups);
  const supervisor = supervise({ groups: children, log, stopLimit });
  t.teardown(() => supervisor.stop());
  return { supervisor, events };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const limit = Date.now() + 30_000; Date.now() < limit; await sleep(20)) if (await condition()) return;
  throw new Error('what the test waits for did not happen within 30 s');
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
