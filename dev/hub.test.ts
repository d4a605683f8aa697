import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { openLog } from '#lib/log.ts';
import { eventually } from '../test/eventually.ts';
import { startHub } from './hub.ts';
import { freePorts } from './ports.ts';

test('startHub: a port that is taken just before its service has it moves all of them', async (t) => {
  t.timeout(240_000);
  const home = await mkdtemp(path.join(tmpdir(), 'chat4all-hub-'));
  t.teardown(() => rm(home, { recursive: true, force: true }));
  const lines: string[] = [];
  const { DATABASE_URL: _, KAFKA_BROKERS: __, S3_ENDPOINT: ___, ...env } = process.env;
  let block: number[];
  do block = await freePorts(20);
  while (block.at(-1) !== block[0]! + 19);
  const base = block[0]!;
  const starting = startHub({
    dataDir: home,
    port: 0,
    grpcPortBase: base,
    grpcPortsMayMove: true,
    processes: 'one',
    env: { ...env, LOG_LEVEL: 'fatal' },
    log: openLog({
      name: 'hub',
      format: 'json',
      level: 'warn',
      destination: { write: (line) => void lines.push(line) },
    }),
  });
  // Written once the ports are chosen, and before there is a database for the services.
  await eventually('the ports are chosen', () => existsSync(path.join(home, 'secrets.json')), Boolean);
  const other = createServer().listen(base + 2, '127.0.0.1');
  t.teardown(() => void other.close());
  await once(other, 'listening');

  const hub = await starting;
  t.teardown(() => hub.stop());
  t.is(hub.takenPort, base + 2);
  t.true(Object.values(hub.grpcPorts).every((port) => port >= base + 10));
  t.true(lines.some((line) => line.includes(`Port ${base + 2} is taken by another program`)));
  t.is((await fetch(`${hub.url}/ready`)).status, 200);
});
