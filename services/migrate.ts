import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { ConfigError, loadConfig, text, type Settings } from '#lib/config.ts';
import { migrateDatabase, provisionDatabase, type DatabaseDefinition } from '#lib/database.ts';
import { configurationExitCode } from '#lib/lifecycle.ts';

/**
 * Brings a PostgreSQL database up to date, before the services start: for each service its role `chat4all_<service>`,
 * its schema and its tables; for the bus its role and schema, unless there is a Kafka. Safe to repeat.
 */

const busSchema = 'bus';

const definitions: { name: string; database: DatabaseDefinition }[] = [];
for (const name of readdirSync(import.meta.dirname).toSorted()) {
  if (!existsSync(path.join(import.meta.dirname, name, 'index.ts'))) continue;
  const service: { database?: DatabaseDefinition } = await import(`./${name}/index.ts`);
  if (service.database !== undefined) definitions.push({ name, database: service.database });
}

const passwordVariable = (name: string) => `${name.toUpperCase()}_DATABASE_PASSWORD`;
const role = (name: string) => `chat4all_${name}`;

try {
  const owners = definitions.map(({ name, database }) => ({ name, schema: database.schema }));
  if ((process.env.KAFKA_BROKERS ?? '') === '') owners.push({ name: 'bus', schema: busSchema });
  const config = loadConfig({
    DATABASE_URL: text().describe('PostgreSQL URL of a role that may make roles, and schemas in this database'),
    ...Object.fromEntries(
      owners.map(({ name }) => [passwordVariable(name), text().describe(`the password of the role ${role(name)}`)]),
    ),
  } as Settings) as Record<string, string>;
  const adminUrl = config.DATABASE_URL!;

  for (const { name, schema } of owners) {
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
} catch (error) {
  if (error instanceof ConfigError) {
    console.error(`migrate: ${error.message}`);
    process.exitCode = configurationExitCode;
  } else {
    console.error('migrate: failed:', error);
    process.exitCode = 1;
  }
}
