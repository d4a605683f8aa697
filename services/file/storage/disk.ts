import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, open, readdir, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { within } from '#lib/deadline.ts';
import { checkKey, contentMissing, partMissing, unavailable, uploadClosed } from './failures.ts';
import { openInnerServer } from './inner-server.ts';
import { exactly } from './pieces.ts';
import type { Storage, StoredPart } from './storage.ts';

const readBytes = 128 * 1024;
const pingTimeoutMs = 2_000;

/** Errors of a file system that is unavailable, full, broken or not writable: an operator can mend them while the process runs. */
const unavailableCodes = new Set(
  'EACCES EBUSY EDQUOT EFBIG EIO EMFILE ENFILE ENODEV ENOSPC ENOTDIR ENXIO EPERM EROFS ESTALE ETIMEDOUT'.split(' '),
);

function codeOf(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
}

/** Awaits an operation of the file system, and turns such errors into `STORE_UNAVAILABLE`. */
async function onDisk<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw unavailableCodes.has(codeOf(error) ?? '') ? unavailable(error) : error;
  }
}

/**
 * Keeps contents in a folder of this machine:
 *
 *     uploads/<key>/parts/<number>    a part of an open upload
 *     uploads/<key>/<uuid>            a part that is being written
 *     objects/<key>/<number>          an object: the folder of its parts, moved here as a whole; nothing is copied
 *     removed/<key>.<uuid>/           what is being deleted
 *
 * To move a folder is atomic, and a process that still writes to the old path finds nothing there: so an upload closes for all processes at
 * once. What a killed process leaves behind is outside of `parts`, and is deleted when the upload is assembled or removed.
 *
 * The folders are created at the first use. Once they have existed, a store without them is unavailable rather than empty.
 */
export function openDiskStorage({ folder }: { folder: string }): Storage {
  const uploads = path.resolve(folder, 'uploads');
  const objects = path.resolve(folder, 'objects');
  const removed = path.resolve(folder, 'removed');
  let made: Promise<void> | undefined;

  async function makeFolders(): Promise<void> {
    for (const each of [uploads, objects, removed]) await mkdir(each, { recursive: true });
    await sync(path.dirname(uploads));
  }

  /** Creates the folders at the first use. */
  async function ready(): Promise<void> {
    made ??= makeFolders();
    try {
      await onDisk(made);
    } catch (error) {
      made = undefined;
      throw unavailable(error);
    }
  }

  /** Whether an error means that the file doesn't exist, rather than that the whole store is unavailable. */
  async function isAbsent(error: unknown): Promise<boolean> {
    if (codeOf(error) !== 'ENOENT') return false;
    try {
      for (const each of [uploads, objects, removed]) await stat(each);
      return true;
    } catch (away) {
      throw unavailable(away);
    }
  }

  /** Awaits an operation of the file system. @returns undefined if the file or folder doesn't exist */
  async function ifThere<T>(work: Promise<T>): Promise<T | undefined> {
    try {
      return await onDisk(work);
    } catch (error) {
      if (await isAbsent(error)) return undefined;
      throw error;
    }
  }

  async function partsIn(place: string): Promise<StoredPart[]> {
    const names = await readdir(place);
    const parts = names.map(async (name): Promise<StoredPart> => {
      const { size, mtime } = await stat(path.join(place, name));
      return { number: Number(name), size, storedAt: mtime };
    });
    return (await Promise.all(parts)).toSorted((one, other) => one.number - other.number);
  }

  /** The parts of an object; undefined if there is none. */
  async function partsOfObject(key: string): Promise<StoredPart[] | undefined> {
    const parts = await ifThere(partsIn(path.join(objects, key)));
    const wrong = parts?.findIndex((part, index) => part.number !== index) ?? -1;
    if (wrong !== -1) throw partMissing(key, wrong);
    return parts;
  }

  /** Moves a folder away, to be deleted. @returns whether it existed */
  async function moveAway(place: string): Promise<boolean> {
    const away = rename(place, path.join(removed, `${path.basename(place)}.${randomUUID()}`));
    return (await ifThere(away.then(() => true))) ?? false;
  }

  /** Deletes what was moved away under a key, also by a process that was killed. */
  async function deleteMovedAway(key: string): Promise<void> {
    const names = (await onDisk(readdir(removed))).filter((name) => name.startsWith(`${key}.`));
    for (const name of names) await onDisk(rm(path.join(removed, name), { recursive: true, force: true }));
  }

  const storage: Storage = {
    minPartBytes: 1,

    async open(key) {
      checkKey(key);
      await ready();
      const parts = path.join(uploads, key, 'parts');
      // The root folder is not created again: without it the store is unavailable.
      for (const each of [path.dirname(parts), parts]) {
        if ((await ifThere(makeFolder(each))) === undefined) throw unavailable(new Error(`${uploads} is not there`));
      }
      await onDisk(sync(path.dirname(parts)));
      await onDisk(sync(uploads));
      return key;
    },

    async writePart({ key }, number, size, bytes, signal) {
      checkKey(key);
      await ready();
      const parts = path.join(uploads, key, 'parts');
      const temporary = path.join(uploads, key, randomUUID());
      // Opened first, so that it can be synced even if the upload is assembled right after the rename.
      await using place = await ifThere(open(parts));
      await using file = place && (await ifThere(open(temporary, 'wx')));
      if (place === undefined || file === undefined) throw uploadClosed();
      try {
        for await (const piece of exactly(bytes, size, signal)) await onDisk(writeWhole(file, piece));
        await onDisk(file.sync());
        signal.throwIfAborted();
        const moved = await ifThere(rename(temporary, path.join(parts, String(number))).then(() => true));
        if (moved === undefined) throw uploadClosed();
      } catch (error) {
        // If this fails, the file is deleted with the upload.
        await rm(temporary, { force: true }).catch(() => {});
        throw error;
      }
      await onDisk(place.sync());
    },

    async parts({ key }) {
      checkKey(key);
      await ready();
      return ifThere(partsIn(path.join(uploads, key, 'parts')));
    },

    async assemble({ key }, count) {
      checkKey(key);
      await ready();
      const [upload, object] = [path.join(uploads, key), path.join(objects, key)];
      const parts = await ifThere(partsIn(path.join(upload, 'parts')));
      if (parts !== undefined) {
        for (let number = 0; number < count; number++) {
          if (parts[number]?.number !== number) throw partMissing(key, number);
        }
        for (const { number } of parts.slice(count)) {
          await onDisk(rm(path.join(upload, 'parts', String(number)), { force: true }));
        }
        await ifThere(rename(path.join(upload, 'parts'), object));
      }
      if ((await ifThere(stat(object))) === undefined) throw uploadClosed();
      await onDisk(sync(objects));
      await ifThere(sync(upload));
      await moveAway(upload);
      await deleteMovedAway(key);
    },

    async size(key) {
      checkKey(key);
      await ready();
      return (await partsOfObject(key))?.reduce((sum, { size }) => sum + size, 0);
    },

    async *read(key, { start, end }, signal) {
      checkKey(key);
      await ready();
      const parts = (await partsOfObject(key)) ?? [];
      const there = parts.length > 0 || (await ifThere(stat(path.join(objects, key)))) !== undefined;
      if (!there || parts.reduce((sum, { size }) => sum + size, 0) < end) throw contentMissing();
      // One buffer for all pieces: a piece is no longer used when the next one is requested.
      const buffer = Buffer.allocUnsafeSlow(Math.max(0, Math.min(readBytes, end - start)));
      let offset = 0;
      for (const { number, size } of parts) {
        const [from, to] = [Math.max(start - offset, 0), Math.min(end - offset, size)];
        offset += size;
        if (from >= to) continue;
        await using file = await ifThere(open(path.join(objects, key, String(number))));
        if (file === undefined) throw contentMissing();
        for (let position = from; position < to;) {
          signal.throwIfAborted();
          const { bytesRead } = await onDisk(
            file.read(buffer, 0, Math.min(buffer.byteLength, to - position), position),
          );
          if (bytesRead === 0) throw contentMissing();
          position += bytesRead;
          yield buffer.subarray(0, bytesRead);
        }
      }
      signal.throwIfAborted();
    },

    async remove(key) {
      checkKey(key);
      await ready();
      // The upload first, so that no process can assemble an object from it afterwards.
      for (const place of [path.join(uploads, key), path.join(objects, key)]) {
        if (await moveAway(place)) await onDisk(sync(path.dirname(place)));
      }
      await deleteMovedAway(key);
    },

    async ping() {
      const answer = ready().then(() =>
        Promise.all([uploads, objects, removed].map((each) => access(each, constants.W_OK | constants.X_OK))),
      );
      try {
        await within(pingTimeoutMs, answer, () => new Error(`no answer within ${pingTimeoutMs} ms`));
      } catch (error) {
        throw unavailable(error);
      }
    },

    innerUrl: (key) => inner.urlOf(key),

    close: () => inner.close(),
  };
  const inner = openInnerServer(storage);
  return storage;
}

/** @returns true, also if it existed already */
async function makeFolder(place: string): Promise<true> {
  try {
    await mkdir(place);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
  }
  return true;
}

/** Makes the entries of a folder durable. */
async function sync(place: string): Promise<void> {
  await using handle = await open(place);
  await handle.sync();
}

async function writeWhole(file: FileHandle, piece: Uint8Array): Promise<void> {
  for (let written = 0; written < piece.byteLength;) {
    written += (await file.write(piece, written)).bytesWritten;
  }
}
