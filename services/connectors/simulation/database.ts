import type { SchemaMigration } from '#lib/database-definition.ts';

/** Of the tables of the simulated networks, in the connectors' schema. */
export const simulationMigrations: readonly SchemaMigration[] = [
  {
    name: '0002-simulated-networks',
    load: async () => (await import('./migrations/0002-simulated-networks.ts')).SimulatedNetworks,
  },
  {
    name: '0007-receipts-of-rounds',
    load: async () => (await import('./migrations/0007-receipts-of-rounds.ts')).ReceiptsOfRounds,
  },
];
