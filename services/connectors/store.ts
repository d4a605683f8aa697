import type { Database } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { openDeliveries } from './deliveries-store.ts';
import { openLanes } from './lanes-store.ts';

export const tables: DatabaseDefinition = {
  schema: 'connectors',
  migrations: [
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
  ],
};

export type Store = ReturnType<typeof openStore>;

/** The queries of the connectors. */
export function openStore(db: Database) {
  return { ...openDeliveries(db), ...openLanes(db) };
}
