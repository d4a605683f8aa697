import { randomBytes, randomUUID } from 'node:crypto';
import path from 'node:path';
import test from 'ava';
import pg from 'pg';
import { startPostgres, type Postgres } from '../../dev/engines/postgres.ts';
import { freePorts } from '../../dev/ports.ts';
import { eventually } from '../../test/eventually.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { provisionDatabase } from '../database-migrations.ts';
import { openLog } from '../log.ts';
import { busContract } from './contract.ts';
import type { Engine } from './contract/fixtures.ts';
import { busSettings, openBus } from './open.ts';
import { loadConfig } from '../config.ts';

const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const folder = openedFolder('chat4all-bus-');

async function startOwn(name: string, port?: number): Promise<Postgres> {
  return startPostgres({ dataDir: path.join(folder, name), port });
}

/** A database with a schema for the bus and a role that may do nothing but own it. */
async function provision(adminUrl: string): Promise<{ engine: Engine; drop: () => Promise<void> }> {
  const name = `bus_${randomBytes(6).toString('hex')}`;
  const admin = async (statement: string) => {
    const client = new pg.Client(adminUrl);
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await admin(`create database ${name}`);
  const url = new URL(adminUrl);
  url.pathname = name;
  const password = randomBytes(24).toString('base64url');
  await provisionDatabase(url.href, { schema: 'bus', role: name, password });
  url.username = name;
  url.password = password;
  const env = { BUS_DATABASE_URL: url.href };
  return {
    engine: { env, open: () => openBus(loadConfig(busSettings, env), { log, clientId: 'test' }) },
    drop: async () => {
      await admin(`drop database ${name} with (force)`);
      await admin(`drop role ${name}`);
    },
  };
}

const given = process.env['TEST_DATABASE_ADMIN_URL'];
const own =
  given === undefined
    ? opened(
        () => startOwn('shared'),
        (server) => server.stop(),
      )
    : undefined;
const shared = opened(
  () => provision(given ?? own!.adminUrl),
  ({ drop }) => drop(),
);

busContract(test, {
  shared: () => shared.engine,
  async startPrivate() {
    const name = `private-${randomBytes(6).toString('hex')}`;
    const [port] = await freePorts(1);
    let server = await startOwn(name, port);
    const { engine } = await provision(server.adminUrl);
    return {
      ...engine,
      stop: () => server.stop(),
      async start() {
        server = await startOwn(name, port);
      },
      remove: () => server.stop(),
    };
  },
});

test('what pg-boss has left is taken over: each event once, in its order, and nothing of pg-boss stays', async (t) => {
  const { engine, drop } = await provision(given ?? own!.adminUrl);
  t.teardown(drop);
  const client = new pg.Client(engine.env['BUS_DATABASE_URL']);
  await client.connect();
  t.teardown(() => client.end());
  await client.query(`
    create type bus.job_state as enum ('created', 'retry', 'active', 'completed', 'cancelled', 'failed');
    create table bus.version (version int);
    create table bus.job_common (id uuid, name text, singleton_key text, data jsonb, state bus.job_state, created_on timestamptz);
    create function bus.of_no_use() returns void language sql as 'select'`);
  const event = (text: string) => ({
    id: randomUUID(),
    type: 'chat4all.test.Text',
    key: 'key',
    value: Buffer.from(text).toString('base64'),
    requestId: `call-${text}`,
  });
  const [one, two, three, done] = ['one', 'two', 'three', 'done'].map(event);
  const jobs: [group: string, state: string, seconds: number, events: unknown[]][] = [
    ['topic/readers', 'active', 1, [one, two]],
    ['topic/readers', 'created', 2, [three]],
    ['topic/others', 'created', 2, [three]],
    ['topic/others', 'completed', 0, [done]],
  ];
  for (const [name, state, seconds, events] of jobs) {
    await client.query(`insert into bus.job_common values ($1, $2, '3', $3, $4, now() + $5 * interval '1 s')`, [
      randomUUID(),
      name,
      { events },
      state,
      seconds,
    ]);
  }
  const bus = await engine.open();
  t.teardown(() => bus.stop());
  const seen: string[] = [];
  const consume = (group: string) =>
    bus.consume({
      topics: ['topic'],
      group,
      handle: async (events) => {
        for (const { value, requestId, partition } of events) {
          seen.push(`${group} ${Buffer.from(value).toString()} ${requestId} ${partition}`);
        }
      },
    });
  await Promise.all([consume('readers'), consume('others')]);
  await eventually(
    'both groups have all',
    () => seen.length,
    (count) => count === 6,
  );
  t.deepEqual(
    seen.filter((each) => each.startsWith('readers')),
    ['readers one call-one 3', 'readers two call-two 3', 'readers three call-three 3'],
  );
  const { rows } = await client.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'bus'::regnamespace and relkind = 'r' order by 1`,
  );
  t.deepEqual(
    rows.map(({ name }) => name),
    ['consumers', 'events', 'partitions', 'progress'],
  );
});

test('events that all groups have acknowledged are deleted', async (t) => {
  const bus = await shared.engine.open();
  t.teardown(() => bus.stop());
  const client = new pg.Client(shared.engine.env['BUS_DATABASE_URL']);
  await client.connect();
  t.teardown(() => client.end());
  const topic = `deleted-${randomUUID()}`;
  let handled = 0;
  const consume = (group: string) =>
    bus.consume({ topics: [topic], group, handle: async (events) => void (handled += events.length) });
  const first = await consume('first');
  await first.stop();
  await consume('second');
  const some = Array.from({ length: 50 }, (_, index) => ({
    id: randomUUID(),
    type: 'chat4all.test.Text',
    key: String(index),
    value: Buffer.from('text'),
    requestId: 'call',
  }));
  await bus.publish(topic, some);
  await eventually(
    'the second group has them',
    () => handled,
    (count) => count === 50,
  );
  const count = async () =>
    Number((await client.query('select count(*) from bus.events where topic = $1', [topic])).rows[0].count);
  t.is(await count(), 50, 'the first group has not');
  await consume('first');
  await eventually('they are gone', count, (left) => left === 0);
  t.is(handled, 100);
  await bus.publish(topic, some.slice(0, 1));
  await eventually(
    'the next one comes to both',
    () => handled,
    (all) => all === 102,
  );
});
