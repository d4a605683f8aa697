import { once } from 'node:events';
import { ConfigError, loadConfig, postgresUrl, secret, type Settings } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { migrateDatabase, provisionDatabase } from '#lib/database-migrations.ts';
import { awaitEngine, engineSettings, placeOf } from '#lib/engines.ts';
import { HubError } from '#lib/errors.ts';
import { configurationExitCode } from '#lib/lifecycle.ts';
import { openLog } from '#lib/log.ts';
import { StartError } from '#lib/starting.ts';
import { serviceNames } from '../services/names.ts';

/**
 * Brings a PostgreSQL database up to date, before the services start: for each service its role `chat4all_<service>`,
 * its schema and its tables; for the bus its role and schema, unless there is a Kafka. Safe to repeat.
 */

const definitions: { name: string; database: DatabaseDefinition }[] = [];
for (const name of serviceNames) {
  const { database }: { database: DatabaseDefinition } = await import(`../services/${name}/database.ts`);
  definitions.push({ name, database });
}

const bus = { name: 'bus', schema: 'bus' };
const owners = [...definitions.map(({ name, database }) => ({ name, schema: database.schema })), bus];
const passwordVariable = (name: string) => `${name.toUpperCase()}_DATABASE_PASSWORD`;
const role = (name: string) => `chat4all_${name}`;

const settingsFor = (some: typeof owners): Settings => ({
  DATABASE_URL: postgresUrl().describe('PostgreSQL URL of a role that may make roles, and schemas in this database'),
  ...Object.fromEntries(
    some.map(({ name }) => {
      const password = `the password of the role ${role(name)}`;
      return [
        passwordVariable(name),
        secret().describe(name === 'bus' ? `${password}; not with KAFKA_BROKERS` : password),
      ];
    }),
  ),
  ...engineSettings,
});

/** All settings of the migration; those of the bus are only needed without Kafka. */
export const settings = settingsFor(owners);

/** `npm start` starts this process together with the database, and sends the URL once the database is available. */
async function sentEnvironment(): Promise<NodeJS.ProcessEnv> {
  if (!process.connected) return {};
  const [message] = (await once(process, 'message')) as [NodeJS.ProcessEnv];
  process.disconnect();
  return message;
}

async function migrate(): Promise<void> {
  const env = { ...process.env, ...(await sentEnvironment()) };
  const wanted = env.KAFKA_BROKERS ? owners.filter((owner) => owner !== bus) : owners;
  const { START_PATIENCE: patienceMs } = loadConfig(engineSettings, env);
  const config = loadConfig(settingsFor(wanted), env) as Record<string, string>;
  const adminUrl = config.DATABASE_URL!;
  await awaitDatabase(adminUrl, patienceMs);

  for (const { name, schema } of wanted) {
    await provisionDatabase(adminUrl, { schema, role: role(name), password: config[passwordVariable(name)]! });
  }
  await Promise.all(
    definitions.map(async ({ name, database }) => {
      const url = new URL(adminUrl);
      url.username = role(name);
      url.password = config[passwordVariable(name)]!;
      await migrateDatabase(database, { url: url.href });
      console.log(`${name}: up to date`);
    }),
  );
}

/** @throws ConfigError or StartError, as a service does at its start */
async function awaitDatabase(url: string, patienceMs: number): Promise<void> {
  const database = openDatabase({ schema: 'public', migrations: [] }, { url, poolSize: 1, name: 'migrate' });
  const log = openLog({ name: 'migrate', level: 'info' });
  try {
    const what = `PostgreSQL at ${placeOf(url)}`;
    await awaitEngine({ setting: 'DATABASE_URL', what, ask: database.ping }, { log, patienceMs });
  } finally {
    await database.close();
  }
}

if (import.meta.main) {
  try {
    await migrate();
  } catch (error) {
    if (error instanceof ConfigError) {
      console.error(`migrate: ${error.message}`);
      process.exitCode = configurationExitCode;
    } else if (error instanceof StartError) {
      console.error(`migrate: ${error.message}`);
      process.exitCode = 1;
    } else {
      // The cause says why the database is unavailable.
      const away = error instanceof HubError && error.cause instanceof Error;
      console.error('migrate: failed:', away ? String(error.cause) : error);
      process.exitCode = 1;
    }
  }
}
