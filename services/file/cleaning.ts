import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
import type { Storage } from './storage/storage.ts';
import type { Store } from './store.ts';
import type { Uploads } from './uploads.ts';

const batch = 100;
/** Milliseconds. Beside this the loop is woken when there is something to remove. */
const lookForRemovals = 5_000;
const longestSweepPause = 60_000;

/**
 * Removes from the store what nothing points to any more, as it was written down. What a store may open late it had not opened
 * for `lifetime` milliseconds then, like any other upload to which nothing happens.
 */
export function startRemoving(options: { store: Store; storage: Storage; log: Logger; lifetime: number }): Loop {
  const { store, storage, log, lifetime } = options;
  return repeat('Removing from the store what is not needed any more', log, async () => {
    const keys = await store.removals(batch);
    for (const key of keys) {
      await storage.remove(key);
      await store.removed(key, lifetime);
      log.debug({ key }, 'removed from the store');
    }
    return keys.length === batch ? 0 : lookForRemovals;
  });
}

/**
 * Fails uploads to which nothing has happened for `lifetime` milliseconds. Of chunks that went straight into the store only
 * the store knows, so it is asked first.
 */
export function startSweep(options: { store: Store; uploads: Uploads; log: Logger; lifetime: number }): Loop {
  const { store, uploads, log, lifetime } = options;
  return repeat('The sweep for uploads without activity', log, async () => {
    const before = new Date(Date.now() - lifetime);
    const idle = await store.idle(before, batch);
    for (const file of idle) {
      await uploads.progress(file);
      const now = await store.find(file.fileId);
      if (now === undefined || now.updatedAt >= before) continue;
      await uploads.abort(file.fileId, `Nothing was uploaded for ${lifetime / 1_000} s`);
    }
    return idle.length === batch ? 0 : Math.min(longestSweepPause, lifetime / 4);
  });
}
