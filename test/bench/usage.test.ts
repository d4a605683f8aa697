import { spawn } from 'node:child_process';
import { once } from 'node:events';
import test from 'ava';
import { usageOf } from './usage.ts';

/** Works for 0.3 s of CPU, in a child that has ended by then, and says so. */
const busyParent = `
const { spawnSync } = require('node:child_process');
const busy = 'while (process.cpuUsage().user < 300_000);';
spawnSync(process.execPath, ['-e', busy]);
console.log('done');
setInterval(() => {}, 60_000);`;

test('usageOf: a tree counts what its ended children used, a single process does not', async (t) => {
  const child = spawn(process.execPath, ['-e', busyParent], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(async () => {
    child.kill();
    await once(child, 'exit');
  });
  await once(child.stdout, 'data');
  const [whole, alone] = await Promise.all([
    usageOf({ busy: child.pid! }, ['busy']),
    usageOf({ busy: child.pid! }, []),
  ]);
  t.true(whole.busy!.cpu >= alone.busy!.cpu + 0.29, `${whole.busy!.cpu} s, ${alone.busy!.cpu} s of its own`);
  t.true(alone.busy!.memory > 10 * 2 ** 20 && alone.busy!.memory < 2 ** 30);
});

test('usageOf: a process that is gone is named', async (t) => {
  const child = spawn(process.execPath, ['-e', ''], { stdio: 'ignore' });
  await once(child, 'exit');
  await t.throwsAsync(usageOf({ router: child.pid! }, []), { message: /router/ });
});
