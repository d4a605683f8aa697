import { v4 as uuid } from 'uuid';
import { hubTime } from '#lib/clock.ts';
import { within } from '#lib/deadline.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep, type Loop } from '#lib/loop.ts';
import { backoffMs } from '#lib/backoff.ts';
import type { Storage } from './storage/storage.ts';
import type { Removal } from './removals-store.ts';
import type { Store } from './store.ts';
import type { Uploads } from './uploads.ts';

/** The loop is also woken when something is to be removed. */
const removalSweep = { batchSize: 10, everyMs: 5_000 };
const removalTimeoutMs = 10_000;
/** After this another process may try a removal: the one that claimed it may be gone. */
const removalLeaseMs = 15_000;
/** Between two attempts at a removal. */
const backoff = { firstMs: 1_000, maxMs: 60_000, jitter: 0 };

/**
 * Removes from the store of contents what the `removals` table says nothing points to any more. What is to be looked at twice, since the
 * store may have opened it late, is looked at again after `lifetimeMs`, when any upload without activity would be removed.
 *
 * Any number of processes may do so: each claims the removals that it works on. A removal that fails waits longer each time and holds up
 * no other; while the store is unavailable, none counts as failed.
 */
export function startRemoving(options: { store: Store; storage: Storage; log: Logger; lifetimeMs: number }): Loop {
  const { store, storage, log, lifetimeMs } = options;

  /** @returns the error, if it could not be removed */
  async function remove({ storageKey }: Removal, by: string): Promise<unknown> {
    const timedOut = () => new Error(`not removed within ${removalTimeoutMs} ms`);
    try {
      await within(removalTimeoutMs, storage.remove(storageKey), timedOut);
    } catch (error) {
      return error;
    }
    await store.removed(storageKey, by, lifetimeMs);
    log.debug({ key: storageKey }, 'removed from the store');
    return undefined;
  }

  async function postpone(failed: readonly { removal: Removal; failure: unknown }[], by: string): Promise<void> {
    const [first] = failed;
    if (first === undefined) return;
    const away = await storage.ping().catch((error: unknown) => error);
    for (const { removal } of failed) {
      const pause = away === undefined ? backoffMs(backoff, removal.attempts + 1) : 0;
      await store.releaseRemoval(removal.storageKey, by, pause, away === undefined ? 1 : 0);
    }
    // The loop logs it, and waits before its next round.
    if (away !== undefined) throw away;
    const { storageKey: key, attempts } = first.removal;
    log.warn({ key, attempts: attempts + 1, failed: failed.length, err: first.failure }, 'not removed from the store');
  }

  return sweep('Removing from the store what is not needed any more', log, removalSweep, async (batchSize) => {
    const by = uuid();
    const removals = await store.holdRemovals({ by, ms: removalLeaseMs }, batchSize);
    const outcomes = await Promise.all(
      removals.map(async (removal) => ({ removal, failure: await remove(removal, by) })),
    );
    await postpone(
      outcomes.filter(({ failure }) => failure !== undefined),
      by,
    );
    return removals.length;
  });
}

/**
 * Fails uploads without activity for `lifetimeMs`. Only the store knows of chunks that clients put there directly, so it is asked first.
 */
export function startSweep(options: { store: Store; uploads: Uploads; log: Logger; lifetimeMs: number }): Loop {
  const { store, uploads, log, lifetimeMs } = options;
  const sizes = { batchSize: 100, everyMs: Math.min(60_000, lifetimeMs / 4) };
  return sweep('The sweep for uploads without activity', log, sizes, async (batchSize) => {
    const before = new Date(hubTime() - lifetimeMs);
    const idle = await store.idle(before, batchSize);
    for (const file of idle) {
      await uploads.progress(file);
      const now = await store.find(file.fileId);
      if (now === undefined || now.updatedAt >= before) continue;
      await uploads.abort(file.fileId, `Nothing was uploaded for ${lifetimeMs / 1_000} s`);
    }
    return idle.length;
  });
}

const lapsedBatch = 100;
/** How long a share outlives the messages with the file: it is recorded before them, and they are not removed at the second. */
const lapseMarginMs = 3_600_000;
const lapseEveryMs = 60_000;

/** Ends the shares of files whose messages were removed after `retentionMs`, and deletes files that are shared with no other conversation. */
export function startLapsing(options: { store: Store; log: Logger; retentionMs: number; onRemoval: () => void }): Loop {
  const { store, log, retentionMs, onRemoval } = options;
  return repeat('The end of attachments of old messages', log, async () => {
    const before = new Date(hubTime() - retentionMs - lapseMarginMs);
    const fileIds = await store.lapsed(before, lapsedBatch);
    let deleted = 0;
    for (const fileId of fileIds) if ((await store.delete(fileId, before)) === 'deleted') deleted += 1;
    if (deleted > 0) {
      log.info({ deleted }, 'Attachments of removed messages deleted');
      onRemoval();
    }
    return fileIds.length > 0 ? 0 : lapseEveryMs;
  });
}
