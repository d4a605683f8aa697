import type { DatabaseDefinition, SchemaMigration } from '#lib/database-definition.ts';
import { simulationMigrations } from './simulation/database.ts';

const migrations: readonly SchemaMigration[] = [
  { name: '0001-deliveries', load: async () => (await import('./migrations/0001-deliveries.ts')).Deliveries },
  {
    name: '0002-providers-and-receipts',
    load: async () => (await import('./migrations/0002-providers-and-receipts.ts')).Receipts,
  },
  { name: '0003-replays', load: async () => (await import('./migrations/0003-replays.ts')).Replays },
  {
    name: '0004-parked-deliveries',
    load: async () => (await import('./migrations/0004-parked-deliveries.ts')).ParkedDeliveries,
  },
  { name: '0005-loads', load: async () => (await import('./migrations/0005-loads.ts')).Loads },
  {
    name: '0006-room-for-outcomes',
    load: async () => (await import('./migrations/0006-room-for-outcomes.ts')).RoomForOutcomes,
  },
];

/** The tables of the connectors and of the simulated networks; migrations run in the order of their names. */
export const database: DatabaseDefinition = {
  schema: 'connectors',
  async entities() {
    const [own, simulation] = await Promise.all([import('./entities.ts'), import('./simulation/entities.ts')]);
    return { entities: [...own.entities, ...simulation.entities] };
  },
  migrations: [...migrations, ...simulationMigrations].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
};
