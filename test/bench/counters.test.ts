import { once } from 'node:events';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import pg from 'pg';
import { countedBetween, openCounters } from './counters.ts';
import { ratiosOf } from './ratios.ts';

test('openCounters: what PostgreSQL, processes and the log tell, from one moment to another', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'counters-'));
  const logFile = path.join(folder, 'hub.log');
  await writeFile(logFile, 'one\ntwo\n');
  let published = 4;
  const server = createServer((_, response) => response.end(`chat4all_bus_published_total{topic="x"} ${published}\n`));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const databaseUrl = process.env.TEST_DATABASE_ADMIN_URL!;
  const { port } = server.address() as AddressInfo;
  // Nobody serves metrics on the second one.
  const counters = await openCounters({ databaseUrl, metricsPorts: [port, 1], logFile });
  const database = new pg.Client({ connectionString: databaseUrl });
  await database.connect();
  t.teardown(async () => {
    await Promise.all([counters.close(), database.end()]);
    server.close();
    await rm(folder, { recursive: true });
  });

  const before = await counters.read();
  published = 10;
  await appendFile(logFile, 'three\nfo');
  await database.query(
    `create temporary table filled as select n, repeat('x', 100) as text from generate_series(1, 1000) as n`,
  );
  await database.query(`select pg_logical_emit_message(false, 'bench', repeat('x', 100000))`);
  const counted = countedBetween(before, await counters.read());
  t.is(counted.logLines, 1);
  t.is(counted.logBytes, 8);
  t.deepEqual(counted.metrics, { 'chat4all_bus_published_total{topic="x"}': 6 });
  t.true(counted.walBytes >= 100_000, String(counted.walBytes));
  t.true(counted.commits >= 0);

  await appendFile(logFile, 'ur\n');
  t.is(countedBetween(before, await counters.read()).logLines, 2);
});

const none = { inserted: 0, updated: 0, hotUpdated: 0, deleted: 0, read: 0 };
const counted = {
  commits: 30,
  walBytes: 10_240,
  walSyncs: 5,
  rows: { message: { inserted: 20, updated: 8, hotUpdated: 6, deleted: 4, read: 100 }, router: none },
  metrics: {
    'chat4all_rpc_handled_total{rpc="Send",code="OK"}': 10,
    'chat4all_rpc_handled_total{rpc="Get",code="OK"}': 5,
    'chat4all_bus_rounds_total{topic="x",group="g"}': 2,
    'chat4all_bus_handled_total{topic="x",group="g"}': 60,
    'chat4all_bus_rounds_total{topic="y",group="g"}': 0,
    'chat4all_bus_published_total{topic="x"}': 10,
    'chat4all_bus_publishes_total{topic="x"}': 4,
  },
  logLines: 20,
  logBytes: 2_000,
};

test('ratiosOf: figures for one message; what is not counted is missing, a stage without rounds too', (t) => {
  const ratios = ratiosOf(counted, 10);
  t.like(ratios, {
    commits: 3,
    walBytes: 1024,
    walSyncs: 0.5,
    rowsInserted: 2,
    rowsUpdated: 0.8,
    hotShare: 0.75,
    rowsDeleted: 0.4,
    rowsRead: 10,
    rpcs: 1.5,
    eventsPublished: 1,
    publications: 0.4,
    logLines: 2,
    rpcsByName: { Send: 1, Get: 0.5 },
    eventsARound: { 'x → g': 30 },
    eventsAPublication: { x: 2.5 },
  });
  t.false('kafkaRequests' in ratios);
  t.is(ratiosOf({ ...counted, rows: {} }, 0).hotShare, 1);
});
