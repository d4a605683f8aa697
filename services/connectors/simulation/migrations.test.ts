import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import { migrateDatabase, schemaDrift } from '#lib/database-migrations.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { database } from '../database.ts';
import { emptyProfile } from './profile.ts';
import { openSimulationStore } from './store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const db = opened(
  () => openDatabase(database, { url: harness.databaseUrl('connectors'), poolSize: 1, name: 'migrations test' }),
  (db) => db.close(),
);

for (const last of ['0006-room-for-outcomes', '0007-receipts-of-rounds']) {
  test.serial(`0002-simulated-networks: keeps the tables that were made before it, up to ${last}`, async (t) => {
    const url = harness.databaseUrl('connectors');
    const tables = await db.sql<{ name: string }>(
      `select format('connectors.%I', tablename) as name from pg_tables where schemaname = 'connectors'`,
    );
    await db.sql(`drop table ${tables.map(({ name }) => name).join()}`);
    const before = database.migrations.filter(({ name }) => name <= last);
    await migrateDatabase({ ...database, migrations: before }, { url });
    await db.sql(`delete from migrations where name = '0002-simulated-networks'`);
    const store = openSimulationStore(db);
    await store.setProfile('whatsapp', { ...emptyProfile, rateLimit: 7 });

    await migrateDatabase(database, { url });
    t.is(await schemaDrift(database, { url }), '');
    t.like((await store.load()).profiles.get('whatsapp'), { rateLimit: 7 });
  });
}
