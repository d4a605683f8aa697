import { randomBytes, randomUUID } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import { HubError } from '#lib/errors.ts';
import type { Bytes, OpenUpload, Storage } from '../storage.ts';

/** A store that can be opened several times. */
export interface Engine {
  /** Opens the store once more, as another process would. */
  open(): Promise<Storage>;
  /** Names of everything that the store has under a key: objects, uploads, parts, and leftovers. */
  remains(key: string): Promise<string[]>;
}

/** Registers a test, unless the store is known not to do what its title says. */
export type Check = (title: string, run: (t: ExecutionContext) => Promise<void>) => void;

export const mebibyte = 1024 * 1024;
export const never = new AbortController().signal;

export async function open(t: ExecutionContext, engine: Engine): Promise<Storage> {
  const storage = await engine.open();
  t.teardown(() => storage.close());
  return storage;
}

export async function begin(t: ExecutionContext, storage: Storage): Promise<OpenUpload> {
  const key = randomUUID();
  t.teardown(() => storage.remove(key));
  return { key, uploadId: await storage.open(key) };
}

/** Stores an object of these parts. @returns its key */
export async function stored(t: ExecutionContext, storage: Storage, contents: readonly Buffer[]): Promise<string> {
  const upload = await begin(t, storage);
  for (const [number, content] of contents.entries()) await write(storage, upload, number, content);
  await storage.assemble(upload, contents.length);
  return upload.key;
}

/** No two are alike, and the last is the smallest. */
export function someSize(storage: Storage, index: number): number {
  return storage.minPartBytes + 700_001 - index * 100_003;
}

export function someParts(storage: Storage, count: number): Buffer[] {
  return Array.from({ length: count }, (_, index) => randomBytes(someSize(storage, index)));
}

export async function write(storage: Storage, upload: OpenUpload, number: number, content: Buffer): Promise<void> {
  await storage.writePart(upload, number, content.byteLength, inPieces(content), never);
}

/** Writes part 0, and does something else when it is half written. */
export async function writeAround(storage: Storage, upload: OpenUpload, content: Buffer, work: () => Promise<void>) {
  const half = Math.floor(content.byteLength / 2);
  async function* source(): Bytes {
    yield* inPieces(content.subarray(0, half));
    await work();
    yield* inPieces(content.subarray(half));
  }
  await storage.writePart(upload, 0, content.byteLength, source(), never);
}

/** The content in pieces of many sizes, each of which is overwritten once the next one is asked for, as a source may. */
export async function* inPieces(content: Buffer): Bytes {
  const buffer = Buffer.alloc(256 * 1024);
  for (let start = 0, turn = 0; start < content.byteLength; turn++) {
    const size = content.copy(buffer, 0, start, start + Math.min(buffer.byteLength, 1 + turn * 50_000));
    yield buffer.subarray(0, size);
    buffer.fill(0);
    start += size;
  }
}

export async function readAll(
  storage: Storage,
  key: string,
  start: number,
  end: number,
  signal = never,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of storage.read(key, { start, end }, signal)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

export async function isClosed(t: ExecutionContext, work: Promise<void>): Promise<void> {
  const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError });
  t.like(error, { kind: 'ABORTED', reason: 'UPLOAD_CLOSED' });
}
