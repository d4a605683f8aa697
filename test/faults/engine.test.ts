import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile, mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { eventually } from '../eventually.ts';
import { mayMount, mountDisk } from './disk.ts';
import { keepEngine, type KeptServer } from './engine.ts';

/** A server that does nothing. */
async function startIdle(): Promise<KeptServer> {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 60_000)'], { stdio: 'ignore' });
  await once(child, 'spawn');
  const exited = once(child, 'exit').then(() => {});
  const end = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  return { pid: child.pid!, exited, stop: end, kill: end };
}

test('keepEngine: what ends by itself is started again; what crashed, only when it is revived', async (t) => {
  const told: string[] = [];
  let mayStart = true;
  const start = () => (mayStart ? startIdle() : Promise.reject(new Error('the disk is full')));
  const engine = await keepEngine('idle', start, (line) => told.push(line));
  t.teardown(() => engine.stop());

  const first = engine.pid();
  process.kill(first, 'SIGKILL');
  await eventually('it is another process', engine.pid, (pid) => pid !== first);

  const second = engine.pid();
  await engine.crash();
  mayStart = false;
  const revived = engine.revive();
  await eventually(
    'it has tried',
    () => told,
    (lines) => lines.some((line) => line.includes('the disk is full')),
  );
  t.is(engine.pid(), second);
  mayStart = true;
  await revived;
  t.not(engine.pid(), second);
});

(mayMount() ? test : test.skip)('mountDisk: a full disk takes nothing, a freed one does', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-disk-'));
  const disk = await mountDisk(folder, 16);
  t.teardown(async () => {
    await disk.unmount();
    await rm(folder, { recursive: true });
  });
  await writeFile(path.join(folder, 'before'), Buffer.alloc(1_000_000));
  await disk.fill();
  await t.throwsAsync(writeFile(path.join(folder, 'more'), Buffer.alloc(100_000)), { code: 'ENOSPC' });
  await disk.free();
  await writeFile(path.join(folder, 'more'), Buffer.alloc(100_000));
  const { bsize, blocks } = await statfs(folder);
  t.is(bsize * blocks, 16 * 2 ** 20);
});
