import type { Database } from '#lib/database.ts';
import { startForgetting } from '#lib/forgetting.ts';
import type { Logger } from '#lib/log.ts';

/**
 * Deletes what is needed only as long as an event may come again: the records of deliveries that have ended, and what the simulated
 * networks know of them.
 */
export function forgetDeliveries(options: { database: Database; retention: number; log: Logger }): {
  stop(): Promise<void>;
} {
  const loops = [
    startForgetting({
      ...options,
      table: 'deliveries',
      isOld: 'coalesce(ended_at, taken_at, parked_at, claimed_until) < $3',
    }),
    startForgetting({ ...options, table: 'provider_effects', isOld: 'first_at < $3' }),
  ];
  return {
    async stop() {
      await Promise.all(loops.map((loop) => loop.stop()));
    },
  };
}
