import { v4 as uuid } from 'uuid';
import { hubTime } from '#lib/clock.ts';
import { within } from '#lib/deadline.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep, type Loop } from '#lib/loop.ts';
import { backoffMs } from '#lib/backoff.ts';
import type { Storage } from './storage/storage.ts';
import type { Removal, Store } from './store.ts';
import type { Uploads } from './uploads.ts';

/** Beside this the loop is woken when there is something to remove. */
const removalSweep = { batchSize: 10, everyMs: 5_000 };
/** Milliseconds that one removal may take, and after which others may try it, since whoever holds it may be gone. */
const removalLimit = 10_000;
const removalLease = 15_000;
/** Between two tries of a removal. */
const backoff = { firstMs: 1_000, maxMs: 60_000, jitter: 0 };

/**
 * Removes from the store what nothing points to any more, as it was written down. What a store may open late it had not opened
 * for `lifetime` milliseconds then, like any other upload to which nothing happens.
 *
 * Any number of processes may do so: each holds what it is at. What can't be removed waits longer each time, and holds up nothing
 * else; while the whole store is away, nothing counts as failed.
 */
export function startRemoving(options: { store: Store; storage: Storage; log: Logger; lifetime: number }): Loop {
  const { store, storage, log, lifetime } = options;

  /** @returns why it could not be removed */
  async function remove({ storageKey }: Removal, by: string): Promise<unknown> {
    const late = () => new Error(`not removed within ${removalLimit} ms`);
    try {
      await within(removalLimit, storage.remove(storageKey), late);
    } catch (error) {
      return error;
    }
    await store.removed(storageKey, by, lifetime);
    log.debug({ key: storageKey }, 'removed from the store');
    return undefined;
  }

  async function putOff(failed: readonly { removal: Removal; failure: unknown }[], by: string): Promise<void> {
    const [first] = failed;
    if (first === undefined) return;
    const away = await storage.ping().catch((error: unknown) => error);
    for (const { removal } of failed) {
      const pause = away === undefined ? backoffMs(backoff, removal.attempts + 1) : 0;
      await store.releaseRemoval(removal.storageKey, by, pause, away === undefined ? 1 : 0);
    }
    // That is told, and waited for, by the loop.
    if (away !== undefined) throw away;
    const { storageKey: key, attempts } = first.removal;
    log.warn({ key, attempts: attempts + 1, failed: failed.length, err: first.failure }, 'not removed from the store');
  }

  return sweep('Removing from the store what is not needed any more', log, removalSweep, async (batchSize) => {
    const by = uuid();
    const removals = await store.holdRemovals({ by, length: removalLease }, batchSize);
    const outcomes = await Promise.all(
      removals.map(async (removal) => ({ removal, failure: await remove(removal, by) })),
    );
    await putOff(
      outcomes.filter(({ failure }) => failure !== undefined),
      by,
    );
    return removals.length;
  });
}

/**
 * Fails uploads to which nothing has happened for `lifetime` milliseconds. Of chunks that went straight into the store only
 * the store knows, so it is asked first.
 */
export function startSweep(options: { store: Store; uploads: Uploads; log: Logger; lifetime: number }): Loop {
  const { store, uploads, log, lifetime } = options;
  const sizes = { batchSize: 100, everyMs: Math.min(60_000, lifetime / 4) };
  return sweep('The sweep for uploads without activity', log, sizes, async (batchSize) => {
    const before = new Date(hubTime() - lifetime);
    const idle = await store.idle(before, batchSize);
    for (const file of idle) {
      await uploads.progress(file);
      const now = await store.find(file.fileId);
      if (now === undefined || now.updatedAt >= before) continue;
      await uploads.abort(file.fileId, `Nothing was uploaded for ${lifetime / 1_000} s`);
    }
    return idle.length;
  });
}

const lapsedBatch = 100;
/** Milliseconds that a share outlives the messages with the file: it begins before them, and they don't go at the second. */
const lapseMargin = 3_600_000;
const lapseEvery = 60_000;

/** Ends the shares of files whose messages were removed after `retention` milliseconds, and deletes files that were sent nowhere else. */
export function startLapsing(options: { store: Store; log: Logger; retention: number; onRemoval: () => void }): Loop {
  const { store, log, retention, onRemoval } = options;
  return repeat('The end of attachments of old messages', log, async () => {
    const before = new Date(hubTime() - retention - lapseMargin);
    const fileIds = await store.lapsed(before, lapsedBatch);
    let deleted = 0;
    for (const fileId of fileIds) if ((await store.delete(fileId, before)) === 'deleted') deleted += 1;
    if (deleted > 0) {
      log.info({ deleted }, 'Attachments of removed messages deleted');
      onRemoval();
    }
    return fileIds.length > 0 ? 0 : lapseEvery;
  });
}
