import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { v4 as uuid } from 'uuid';
import { NotTried } from '#lib/breaker.ts';
import { hubDate } from '#lib/clock.ts';
import { parseDigest } from '#lib/digest.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { UploadBytes } from '#lib/rpc/methods.ts';
import {
  checked,
  checksumMismatch,
  chunksMissing,
  fileNotFound,
  otherChecksum,
  progressOf,
  requireOpen,
  requireOwner,
  requireSize,
  sizeOfChunk,
  tooManyUploads,
  uploadFailed,
  type File,
  type Limits,
  type Progress,
} from './file.ts';
import { unavailable } from './storage/failures.ts';
import type { OpenUpload, Storage } from './storage/storage.ts';
import type { NewFile, Store } from './store.ts';

export interface ArrivingChunk {
  chunkId: number;
  /** Content-Digest (RFC 9530), or empty. */
  contentDigest: string;
  /** The number of bytes that the client announces. */
  announced: number | undefined;
  bytes: UploadBytes;
}

/** The life cycle of uploads: keeps the database and the store of contents consistent. */
export interface Uploads {
  /**
   * Begins an upload, and returns what `answer` makes of it. If anything fails, `answer` included, the upload is undone.
   *
   * @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_UPLOADS`, or what `answer` throws
   */
  begin<T>(file: NewFile, answer: (begun: File) => Promise<T>): Promise<T>;
  /** Stores a chunk. @throws HubError as documented for UploadChunk */
  put(file: File, chunk: ArrivingChunk, signal: AbortSignal): Promise<Progress>;
  /** The progress of an open upload, by the store's own list. */
  progress(file: File): Promise<Progress>;
  /**
   * Completes an upload. Once begun, it goes on even if the caller goes; a repeated call gets its result.
   *
   * @param checksum SHA-256 in lower-case hex
   * @throws HubError as documented for CompleteUpload
   */
  complete(fileId: string, userId: string, checksum: string, signal: AbortSignal): Promise<File>;
  /** Aborts an open upload. @returns false if it isn't open, or is being completed */
  abort(fileId: string, reason: string): Promise<boolean>;
  /** Waits for completions in flight. */
  stop(): Promise<void>;
}

/** After this, another process may take over from one that died while it completed an upload. */
const leaseMs = 10_000;
const renewEvery = 3_000;
/** How often a call that waits for another process's completion looks whether it has ended. */
const lookEveryMs = 100;

export interface UploadsOptions {
  store: Store;
  storage: Storage;
  limits: Limits;
  log: Logger;
  /** Called when something has to be removed from the store. */
  onRemoval: () => void;
  /** Called when an upload is complete. */
  onCompletion?: () => void;
}

export function openUploads({ store, storage, limits, log, onRemoval, onCompletion }: UploadsOptions): Uploads {
  /** By file id and checksum. */
  const completing = new Map<string, Promise<void>>();
  const stopped = new AbortController();

  /** Asks the store for its chunks and records them: this is the only way to learn of chunks that were uploaded by signed URLs. */
  async function lookInto(file: File): Promise<Progress | undefined> {
    const asked = hubDate();
    const parts = file.uploadId === null ? [] : await storage.parts(uploadOf(file));
    if (parts === undefined) return undefined;
    const chunks = parts.map(({ number, size, storedAt }) => ({ chunkId: number, size, uploadedAt: storedAt }));
    await store.reconcile(file.fileId, chunks, asked);
    return progressOf(file, chunks);
  }

  async function fail(file: File, reason: string, by?: string): Promise<boolean> {
    const failed = await store.fail(file.fileId, reason, by);
    if (failed) {
      log.info({ file: file.fileId, reason }, 'upload failed');
      onRemoval();
    }
    return failed;
  }

  /** Verifies an upload, whose lease `by` holds, and completes or fails it. */
  async function verify(file: File, checksum: string, by: string): Promise<void> {
    const { fileId } = file;
    const progress = await lookInto(file);
    if (progress !== undefined && progress.missing.length > 0) throw chunksMissing(progress.missing);
    // An upload that doesn't exist any more was assembled by a process that died, unless the store has lost it.
    if (progress === undefined && (await storage.size(fileId)) !== file.fileSize) {
      await fail(file, 'The store has lost the upload', by);
      throw uploadFailed();
    }
    // Repeated even if it was assembled before: that clears leftovers.
    await storage.assemble(uploadOf(file), file.chunkCount);
    const found = await hashOf(fileId, file.fileSize);
    if (found !== checksum || (file.expectedChecksum ?? found) !== found) {
      await fail(file, `Its SHA-256 is ${found}, not the one that was said`, by);
      throw checksumMismatch();
    }
    if (!(await store.complete(fileId, by, found, await lostContent(found)))) {
      throw new HubError('ABORTED', 'UPLOAD_COMPLETING', 'The upload is being completed by somebody else: try again');
    }
    onRemoval();
    onCompletion?.();
    log.info({ file: fileId, size: file.fileSize }, 'upload completed');
  }

  /** Lets the gateway put a chunk into the store directly. @returns false if the bytes have to come here */
  async function handOver(file: File, chunkId: number, size: number, bytes: UploadBytes): Promise<boolean> {
    if (bytes.handOver === undefined) return false;
    const url = await storage.innerPartUrl?.(uploadOf(file), chunkId, size);
    if (url === undefined) return false;
    const outcome = await bytes.handOver(url);
    if (outcome === 'failed') {
      requireOpen((await store.find(file.fileId)) ?? fail404(), hubDate());
      throw unavailable(new Error('a gateway could not put a chunk'));
    }
    return outcome === 'put';
  }

  async function hashOf(key: string, size: number): Promise<string> {
    const hash = createHash('sha256');
    for await (const piece of storage.read(key, { start: 0, end: size }, stopped.signal)) hash.update(piece);
    return hash.digest('hex');
  }

  /** The key of the object that is recorded for a checksum, if the store has lost it. */
  async function lostContent(checksum: string): Promise<string | undefined> {
    const known = await store.findContent(checksum);
    if (known === undefined || (await storage.size(known.storageKey)) === known.size) return undefined;
    log.error({ checksum, key: known.storageKey }, 'The store has lost a content; what was uploaded takes its place');
    return known.storageKey;
  }

  /** Runs `verify` while renewing the lease. */
  async function verifyHeld(file: File, checksum: string, by: string): Promise<void> {
    const renewing = setInterval(() => {
      // If the lease is lost, `complete` of the store returns false.
      store.holdCompletion(file.fileId, { by, ms: leaseMs }).catch(() => {});
    }, renewEvery);
    try {
      await verify(file, checksum, by);
    } finally {
      clearInterval(renewing);
      await store.releaseCompletion(file.fileId, by).catch(() => {});
    }
  }

  return {
    async begin(file, answer) {
      if (!(await store.begin(file, limits.openUploads))) throw tooManyUploads(limits.openUploads);
      try {
        const uploadId = await storage.open(file.fileId);
        if (!(await store.opened(file.fileId, uploadId))) throw uploadFailed();
        return await answer((await store.find(file.fileId)) ?? fail404());
      } catch (error) {
        await store.forget(file.fileId, error instanceof NotTried ? 'never' : 'perhaps');
        onRemoval();
        throw error;
      }
    },

    async put(file, { chunkId, contentDigest, announced, bytes }, signal) {
      requireOpen(file, hubDate());
      const size = sizeOfChunk(file, chunkId);
      const digest = parseDigest(contentDigest);
      requireSize(size, announced);
      const handedOver = digest === undefined && announced === size && (await handOver(file, chunkId, size, bytes));
      if (!handedOver) {
        await storage
          .writePart(uploadOf(file), chunkId, size, checked(bytes, size, digest), signal)
          .catch(closedMeans(file));
      }
      const chunks = await store.recordChunk(file.fileId, { chunkId, size, uploadedAt: hubDate() });
      if (chunks === undefined) {
        onRemoval();
        return refuseClosed(file);
      }
      return progressOf(file, chunks);
    },

    async progress(file) {
      return (await lookInto(file)) ?? { receivedBytes: file.fileSize, missing: [] };
    },

    async complete(fileId, userId, checksum, signal) {
      for (;;) {
        const file = (await store.find(fileId)) ?? fail404();
        requireOwner(file, userId);
        if (file.status === 'completed') {
          if (file.checksum !== checksum) throw otherChecksum();
          return file;
        }
        if (file.status === 'failed') throw uploadFailed();
        const name = `${fileId} ${checksum}`;
        const by = uuid();
        const running = completing.get(name);
        if (running !== undefined) {
          await running;
        } else if (await store.holdCompletion(fileId, { by, ms: leaseMs })) {
          const work = verifyHeld(file, checksum, by).finally(() => completing.delete(name));
          completing.set(name, work);
          await work;
        } else {
          await sleep(lookEveryMs, undefined, { signal });
        }
      }
    },

    async abort(fileId, reason) {
      const file = (await store.find(fileId)) ?? fail404();
      return fail(file, reason);
    },

    async stop() {
      stopped.abort(new HubError('UNAVAILABLE', 'STOPPING', 'The service is stopping: try again', { retryAfter: 1 }));
      await Promise.allSettled(completing.values());
    },
  };

  /** The error for a client whose upload was closed in the store. */
  function closedMeans(file: File) {
    return async (error: unknown): Promise<never> => {
      if (error instanceof HubError && error.reason === 'UPLOAD_CLOSED') return refuseClosed(file);
      throw error;
    };
  }

  async function refuseClosed({ fileId }: File): Promise<never> {
    requireOpen((await store.find(fileId)) ?? fail404(), hubDate());
    throw uploadFailed();
  }
}

function fail404(): never {
  throw fileNotFound();
}

/** @throws HubError ABORTED `UPLOAD_FAILED` if its upload was never opened in the store */
function uploadOf({ fileId, uploadId }: File): OpenUpload {
  if (uploadId === null) throw uploadFailed();
  return { key: fileId, uploadId };
}
