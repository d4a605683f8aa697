import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';

/** A process of ours; what it does is in HABIT. */
const program = `
  import { z } from ${JSON.stringify(import.meta.resolve('zod'))};
  import { runProcess } from ${JSON.stringify(import.meta.resolve('#lib/lifecycle.ts'))};
  import { ConfigError } from ${JSON.stringify(import.meta.resolve('#lib/config.ts'))};
  import { awaitEngine } from ${JSON.stringify(import.meta.resolve('#lib/engines.ts'))};
  import { HubError } from ${JSON.stringify(import.meta.resolve('#lib/errors.ts'))};
  import { StartError } from ${JSON.stringify(import.meta.resolve('#lib/starting.ts'))};
  const habits = (process.env.HABIT ?? '').split(',');
  const away = async () => { throw new HubError('UNAVAILABLE', 'AWAY', 'away'); };
  await runProcess([{
    name: 'sample',
    settings: habits.includes('settings') ? { FIRST: z.string(), SECOND: z.string() } : {},
    async start(config, log) {
      if (habits.includes('fails')) throw new Error('no luck');
      if (habits.includes('refused')) throw new ConfigError(['FIRST is wrong']);
      if (habits.includes('gone')) {
        throw new HubError('UNAVAILABLE', 'AWAY', 'away', { cause: new Error('connect ECONNREFUSED') });
      }
      if (habits.includes('away')) throw new StartError('SECOND: it is not there');
      const alive = setInterval(() => {}, 1000);
      if (habits.includes('waits')) {
        await awaitEngine({ setting: 'FIRST', what: 'the first', ask: away }, { log, patienceMs: 60_000 })
          .finally(() => clearInterval(alive));
      }
      if (habits.includes('throws')) setTimeout(() => { throw new Error('a bug'); }, 10);
      if (habits.includes('rejects')) setTimeout(() => void Promise.reject(new Error('a bug')), 10);
      return {
        port: 4711,
        retire: () => log.info('not ready any more'),
        async stop() {
          log.info('letting go');
          if (habits.includes('hangs')) await new Promise(() => {});
          clearInterval(alive);
        },
      };
    },
  }]);`;

/** Three services in one process: the first stops before the others. */
const several = `
  import { z } from ${JSON.stringify(import.meta.resolve('zod'))};
  import { runProcess } from ${JSON.stringify(import.meta.resolve('#lib/lifecycle.ts'))};
  const sample = (name, port) => ({
    name,
    settings: { GREETING: z.string() },
    async start({ GREETING }, log) {
      log.info(GREETING);
      if (GREETING === 'no luck') throw new Error(GREETING);
      const alive = setInterval(() => {}, 1000);
      return {
        port,
        retire() {},
        async stop() {
          log.info('letting go');
          await new Promise((resolve) => setTimeout(resolve, 50));
          clearInterval(alive);
          log.info('gone');
        },
      };
    },
  });
  await runProcess([sample('first', 1)], [sample('second', 2), sample('third', 3)]);`;

test('runProcess: says that it is ready, with its port, and stops in order at SIGTERM and SIGINT', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const sample = start(t);
    t.deepEqual(await sample.ready, { ready: true, port: 4711 });
    sample.child.kill(signal);
    t.deepEqual(await sample.ended, [0, null]);
    const texts = sample.lines().map(({ msg }) => msg);
    t.deepEqual(texts, ['ready', `stopping: ${signal}`, 'not ready any more', 'letting go', 'stopped']);
  }
});

test('runProcess: several services in one process have settings and log lines of their own, and stop group by group', async (t) => {
  const sample = start(t, '', { SECOND__GREETING: 'salut', GREETING: 'hello' }, several);
  t.deepEqual(await sample.ready, { ready: true, port: 1 });
  sample.child.kill('SIGTERM');
  t.deepEqual(await sample.ended, [0, null]);
  const texts = sample.lines().map(({ name, msg }) => `${name}: ${msg}`);
  t.deepEqual(texts.slice(0, 6).toSorted(), [
    'first: hello',
    'first: ready',
    'second: ready',
    'second: salut',
    'third: hello',
    'third: ready',
  ]);
  t.deepEqual(
    texts.filter((text) => /letting go|gone/.test(text)),
    ['first: letting go', 'first: gone', 'second: letting go', 'third: letting go', 'second: gone', 'third: gone'],
  );
});

test('runProcess: of several services those that are not usable or fail say so by name', async (t) => {
  const misconfigured = start(t, '', {}, several);
  t.deepEqual(await misconfigured.ended, [78, null]);
  t.regex(misconfigured.errors(), /^first: The configuration is not usable[^]*GREETING is required/);
  const failing = start(t, '', { GREETING: 'hello', THIRD__GREETING: 'no luck' }, several);
  t.deepEqual(await failing.ended, [1, null]);
  const fatal = failing.lines().filter(({ level }) => level === 60);
  t.like(fatal, [{ name: 'third', msg: 'failed to start' }]);
});

test('runProcess: names all settings that are missing or wrong and exits with 78', async (t) => {
  const sample = start(t, 'settings', { SHUTDOWN_TIMEOUT: 'soon' });
  t.deepEqual(await sample.ended, [78, null]);
  t.regex(sample.errors(), /^sample: The configuration is not usable/);
  for (const name of ['FIRST is required', 'SECOND is required', 'SHUTDOWN_TIMEOUT must be']) {
    t.true(sample.errors().includes(name), name);
  }
});

test('runProcess: what is no bug is one line without a stack; it exits with 78 if it is a setting, and else with 1', async (t) => {
  const refused = start(t, 'refused');
  t.deepEqual(await refused.ended, [78, null]);
  t.is(refused.errors(), 'sample: The configuration is not usable: FIRST is wrong\n');
  t.deepEqual(refused.lines(), []);
  const away = start(t, 'away');
  t.deepEqual(await away.ended, [1, null]);
  t.is(away.errors(), '');
  t.like(away.lines(), [{ level: 60, msg: 'SECOND: it is not there' }]);
  t.false('err' in away.lines()[0]!);
  const gone = start(t, 'gone');
  t.deepEqual(await gone.ended, [1, null]);
  t.deepEqual(
    gone.lines().map((line) => [line.msg, 'err' in line]),
    [['failed to start: away: connect ECONNREFUSED', false]],
  );
});

test('runProcess: one that waits for something when it is told to stop ends at once', async (t) => {
  const sample = start(t, 'waits', { SHUTDOWN_NOTICE: '10s' });
  await sample.wrote('waiting for up to');
  sample.child.kill('SIGTERM');
  t.deepEqual(await sample.ended, [0, null]);
});

test('runProcess: names variables that look like settings and are none', async (t) => {
  const sample = start(t, '', { DELIVERY_DEADLIN: '30s' });
  await sample.wrote('There is no setting');
  t.like(sample.lines()[0], { level: 40, msg: 'There is no setting DELIVERY_DEADLIN: is DELIVERY_DEADLINE meant?' });
});

test('runProcess: a failed start is logged and exits with 1', async (t) => {
  const sample = start(t, 'fails');
  t.deepEqual(await sample.ended, [1, null]);
  t.like(sample.lines(), [{ level: 60, msg: 'failed to start', err: { message: 'no luck' } }]);
});

test('runProcess: an error or a rejection that nothing caught is logged and exits with 1', async (t) => {
  for (const habit of ['throws', 'rejects']) {
    const sample = start(t, habit);
    t.deepEqual(await sample.ended, [1, null]);
    t.like(sample.lines().at(-1), { level: 60, err: { message: 'a bug' } });
  }
});

test('runProcess: work that does not end within SHUTDOWN_TIMEOUT is ended', async (t) => {
  const sample = start(t, 'hangs', { SHUTDOWN_TIMEOUT: '200ms' });
  await sample.ready;
  sample.child.kill('SIGTERM');
  t.deepEqual(await sample.ended, [1, null]);
  t.regex(sample.lines().at(-1)!.msg, /not stopped after 0\.2 s/);
});

test('runProcess: says at once that it is not ready any more, but goes on for SHUTDOWN_NOTICE, which is no part of SHUTDOWN_TIMEOUT', async (t) => {
  const sample = start(t, '', { SHUTDOWN_NOTICE: '1s', SHUTDOWN_TIMEOUT: '900ms' });
  await sample.ready;
  sample.child.kill('SIGTERM');
  await sample.wrote('not ready any more');
  t.is(sample.child.exitCode, null);
  t.deepEqual(await sample.ended, [0, null]);
  const [retired, stopped] = ['not ready any more', 'letting go'].map(
    (text) => sample.lines().find(({ msg }) => msg === text)!.time,
  );
  t.true(stopped! - retired! >= 990);
});

test('runProcess: the same signal twice at once is one, a later one ends the process at once', async (t) => {
  const sample = start(t, 'hangs', { SHUTDOWN_TIMEOUT: '60s' });
  await sample.ready;
  sample.child.kill('SIGINT');
  await sample.wrote('letting go');
  sample.child.kill('SIGINT');
  // Longer than the two signals of one Ctrl-C are apart, and longer than an exit takes.
  await sleep(1_500);
  t.is(sample.child.exitCode, null);
  sample.child.kill('SIGINT');
  t.deepEqual(await sample.ended, [1, null]);
});

test('runProcess: stops when the supervisor is gone', async (t) => {
  const sample = start(t);
  await sample.ready;
  sample.child.disconnect();
  t.deepEqual(await sample.ended, [0, null]);
  t.true(sample.lines().some(({ msg }) => msg === 'letting go'));
});

function start(t: ExecutionContext, habit = '', env: NodeJS.ProcessEnv = {}, code = program) {
  const child: ChildProcess = spawn(process.execPath, ['--input-type=module', '--eval', code], {
    env: { HABIT: habit, LOG_FORMAT: 'json', SHUTDOWN_NOTICE: '0s', ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  let errors = '';
  child.stdout!.on('data', (data) => (output += String(data)));
  child.stderr!.on('data', (data) => (errors += String(data)));
  const lines = () =>
    output
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as { name: string; level: number; time: number; msg: string });
  return {
    child,
    ready: once(child, 'message').then(([message]) => message as unknown),
    // `close` isn't emitted once the parent has disconnected.
    ended: Promise.all([once(child, 'exit'), once(child.stdout!, 'end'), once(child.stderr!, 'end')]).then(
      ([exit]) => exit as unknown,
    ),
    lines,
    errors: () => errors,
    async wrote(text: string) {
      for (const limit = Date.now() + 30_000; Date.now() < limit; await sleep(20)) if (output.includes(text)) return;
      throw new Error(`"${text}" was not written within 30 s`);
    },
  };
}
