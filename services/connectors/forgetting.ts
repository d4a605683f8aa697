import type { Database } from '#lib/database.ts';
import { startForgetting } from '#lib/forgetting.ts';
import type { Logger } from '#lib/log.ts';
import type { Loop } from '#lib/loop.ts';

/** Deletes records of ended deliveries. They are only needed as long as their event may come again. */
export function forgetDeliveries(options: { database: Database; retention: number; log: Logger }): Loop {
  return startForgetting({
    ...options,
    table: 'deliveries',
    isOld: 'coalesce(ended_at, taken_at, parked_at, claimed_until) < $3',
  });
}
