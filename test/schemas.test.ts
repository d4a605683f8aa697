import test from 'ava';
import { schemaDrift, type DatabaseDefinition } from '#lib/database.ts';
import { openHarness, serviceNames } from './harness.ts';
import { opened } from './opened.ts';

const harness = opened(openHarness, (harness) => harness.stop());

for (const name of serviceNames) {
  test(`${name}: its entities describe what its migrations make`, async (t) => {
    const { database } = (await import(`../services/${name}/index.ts`)) as { database: DatabaseDefinition };
    t.is(await schemaDrift(database, { url: harness.databaseUrl(name) }), '');
  });
}
