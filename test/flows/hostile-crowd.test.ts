import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { openRemote } from '../bench/remote.ts';
import type { commands } from '../hostile/crowd.ts';
import { beHonest } from '../hostile/honest.ts';
import { startProcessHub } from './hubs.ts';
import { ended } from './meshes.ts';

const clients = 100;
const seconds = 30;
const startLimit = 120_000;

// Elsewhere one machine has a single loopback address, and a hundred clients would be one.
const onLinux = process.platform === 'linux' ? test : test.skip;

onLinux('a hundred clients that mean harm neither end nor refuse anything of an honest one', async (t) => {
  t.timeout(4 * 60_000);
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-crowd-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await chmod(folder, 0o755);
  const hub = await startProcessHub(folder, { SEED_USERS: String(5 + clients), DELIVERY_DEADLINE: '5m' });
  t.teardown(() => hub.stop());

  const file = path.resolve(import.meta.dirname, '../hostile/crowd.ts');
  const stop = new AbortController();
  const crowd = openRemote<typeof commands>(file, 'inherit', stop.signal);
  t.teardown(() => crowd.stop());
  await crowd.ask('start', { url: hub.url, grpcPorts: hub.grpcPorts, clients }, startLimit);
  const pids = await hub.pids();
  const found = await beHonest(hub.url, hub.grpcPorts['file']!, [...hub.people], seconds);
  const { tried, answers } = await crowd.ask('stop', undefined as never, startLimit);

  t.log(tried, answers);
  const least = Math.min(...Object.values(tried));
  t.true(Object.keys(tried).length > 0 && least >= clients, 'all of them have tried everything');
  t.deepEqual(found.harmed, []);
  t.true(found.latencies.length > 0 && found.logins > 0);
  t.deepEqual(await hub.pids(), pids, 'no process has ended');
  for (const id of found.accepted) t.is((await ended(hub.people[0]!, id)).status, 'delivered');
  // What they are told is never that something is broken.
  t.deepEqual(
    Object.keys(answers).filter((code) => ['500', '502'].includes(code)),
    [],
  );
});
