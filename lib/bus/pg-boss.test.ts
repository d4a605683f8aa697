import { randomBytes } from 'node:crypto';
import path from 'node:path';
import test from 'ava';
import pg from 'pg';
import { startPostgres, type Postgres } from '../../dev/engines/postgres.ts';
import { freePorts } from '../../dev/ports.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { provisionDatabase } from '../database.ts';
import { openLog } from '../log.ts';
import { busContract, type Engine } from './contract.ts';
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
