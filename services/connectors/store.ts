import type { Database } from '#lib/database.ts';
import { openDeliveries } from './deliveries-store.ts';
import { openLanes } from './lanes-store.ts';

export type Store = ReturnType<typeof openStore>;

/** The queries of the connectors. */
export function openStore(db: Database) {
  return { ...openDeliveries(db), ...openLanes(db) };
}
