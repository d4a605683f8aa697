import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import test from 'ava';
import pg from 'pg';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { schemaDrift } from '#lib/database-migrations.ts';
import { generateKeys } from '#lib/identity.ts';
import { configurationExitCode } from '#lib/lifecycle.ts';
import { openHarness, serviceNames } from './harness.ts';
import { opened } from './opened.ts';

const harness = opened(openHarness, (harness) => harness.stop());

for (const name of serviceNames) {
  test(`${name}: its entities describe what its migrations make`, async (t) => {
    const { database } = (await import(`../services/${name}/database.ts`)) as { database: DatabaseDefinition };
    t.is(await schemaDrift(database, { url: harness.databaseUrl(name) }), '');
  });
}

test('a service refuses a schema that is newer than its code, in one line', async (t) => {
  const url = harness.databaseUrl('conversation');
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  await client.query(`
    alter table conversation.migrations add column if not exists needs text;
    insert into conversation.migrations (name, needs) values ('0999-less', '0998-more')`);
  t.teardown(() => client.query(`delete from conversation.migrations where name = '0999-less'`));

  const { privateKeys, trusted } = await generateKeys([...serviceNames, 'gateway']);
  const child = spawn(process.execPath, ['services/main.ts', 'conversation'], {
    cwd: path.resolve(import.meta.dirname, '..'),
    env: {
      PATH: process.env['PATH'],
      IDENTITY_KEY: privateKeys['conversation'],
      TRUSTED_KEYS: trusted,
      DATABASE_URL: url,
      GRPC_PORT: '0',
      AUTH_ADDRESS: '127.0.0.1:1',
    },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [said, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
  t.is(
    said,
    'conversation: The schema "conversation" of DATABASE_URL is newer than this code: 0999-less needs code that knows 0998-more. Start a newer version\n',
  );
  t.is(code, configurationExitCode);
});
