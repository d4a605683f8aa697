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

/** A chunk as it arrives. */
export interface ArrivingChunk {
  chunkId: number;
  /** Content-Digest (RFC 9530), or nothing. */
  contentDigest: string;
  /** How many bytes the client says that it will send. */
  announced: number | undefined;
  bytes: UploadBytes;
}

/** Uploads from their beginning to their end: what is recorded and what is stored, kept in step. */
export interface Uploads {
  /**
   * Begins an upload, and answers with what `answer` makes of it. If that fails, too, nothing stays of the upload.
   *
   * @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_UPLOADS`, or what `answer` throws
   */
  begin<T>(file: NewFile, answer: (begun: File) => Promise<T>): Promise<T>;
  /** Takes a chunk. @throws HubError as UploadChunk says */
  put(file: File, chunk: ArrivingChunk, signal: AbortSignal): Promise<Progress>;
  /** What is there of an open upload, as the store itself says. */
  progress(file: File): Promise<Progress>;
  /**
   * Completes an upload. Once begun it goes on, also if the caller goes: who asks again hears how it ended.
   *
   * @param checksum SHA-256 in lower-case hex
   * @throws HubError as CompleteUpload says
   */
  complete(fileId: string, userId: string, checksum: string, signal: AbortSignal): Promise<File>;
  /** Aborts an open upload. @returns false if it isn't open, or is being completed */
  abort(fileId: string, reason: string): Promise<boolean>;
  /** Waits for uploads that are being completed. */
  stop(): Promise<void>;
}

/** Milliseconds after which a process that died while it completed an upload is replaced. */
const leaseMs = 10_000;
const renewEvery = 3_000;
/** How soon a call that waits for another process's completion sees its end. */
const lookEvery = 100;

export interface UploadsOptions {
  store: Store;
  storage: Storage;
  limits: Limits;
  log: Logger;
  /** Told that something is to be removed from the store. */
  onRemoval: () => void;
}

export function openUploads({ store, storage, limits, log, onRemoval }: UploadsOptions): Uploads {
  /** By file and checksum. */
  const completing = new Map<string, Promise<void>>();
  const stopped = new AbortController();

  /** Asks the store which chunks it has, and records them: chunks uploaded by signed URLs are only found so. */
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

  /** Verifies an upload whose lease `by` has, and completes or fails it. */
  async function verify(file: File, checksum: string, by: string): Promise<void> {
    const { fileId } = file;
    const progress = await lookInto(file);
    if (progress !== undefined && progress.missing.length > 0) throw chunksMissing(progress.missing);
    // Without parts it was assembled by a process that then died, unless the store has lost it.
    if (progress === undefined && (await storage.size(fileId)) !== file.fileSize) {
      await fail(file, 'The store has lost the upload', by);
      throw uploadFailed();
    }
    // Once more then, too: what was left behind goes with it.
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
    log.info({ file: fileId, size: file.fileSize }, 'upload completed');
  }

  /** Lets a gateway put a chunk into the store by itself. @returns false if it has to come here */
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

  /** The key of what should be there under a checksum already, if it is not. */
  async function lostContent(checksum: string): Promise<string | undefined> {
    const known = await store.findContent(checksum);
    if (known === undefined || (await storage.size(known.storageKey)) === known.size) return undefined;
    log.error({ checksum, key: known.storageKey }, 'The store has lost a content; what was uploaded takes its place');
    return known.storageKey;
  }

  /** Runs `verify` while renewing the lease. */
  async function verifyHeld(file: File, checksum: string, by: string): Promise<void> {
    const renewing = setInterval(() => {
      // If the lease is lost, the completion itself is refused.
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
          await sleep(lookEvery, undefined, { signal });
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

  /** The error for a client whose upload the store has closed. */
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

/** @throws HubError ABORTED `UPLOAD_FAILED` while its upload was never opened in the store */
function uploadOf({ fileId, uploadId }: File): OpenUpload {
  if (uploadId === null) throw uploadFailed();
  return { key: fileId, uploadId };
}
