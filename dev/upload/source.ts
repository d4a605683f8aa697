import { createHash } from 'node:crypto';
import { createReadStream, read as readFrom } from 'node:fs';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Readable } from 'node:stream';

/** A file that is uploaded: opened once, so that it stays the same one also if another takes its name. */
export interface Source extends AsyncDisposable {
  /** Absolute. */
  path: string;
  name: string;
  size: number;
  /** When it was last changed, in nanoseconds since 1970. */
  mtime: string;
  /** SHA-256 of the whole in hex. @param onBytes told how many bytes were read, piece by piece */
  hash(onBytes: (count: number) => void): Promise<string>;
  /** The digest of the bytes from `start` up to `end`, exclusive, as Content-Digest has it (RFC 9530). */
  digest(start: number, end: number): Promise<string>;
  /** The bytes from `start` up to `end`, exclusive. */
  read(start: number, end: number): Readable;
  /** @throws SourceError if the file isn't any more what it was when it was opened */
  requireUnchanged(): Promise<void>;
}

/** What is wrong with the file, for people. */
export class SourceError extends Error {
  override name = 'SourceError';
}

const pieceSize = 256 * 1024;

/** @throws SourceError if there is no such file, or it can't be read */
export async function openSource(file: string): Promise<Source> {
  const handle = await open(file).catch((error: NodeJS.ErrnoException) => {
    const reasons: Record<string, string> = { ENOENT: 'there is no such file', EACCES: 'you may not read it' };
    throw new SourceError(`${file}: ${reasons[error.code ?? ''] ?? error.message}`, { cause: error });
  });
  const look = () => handle.stat({ bigint: true });
  const stat = await look();
  if (!stat.isFile()) {
    await handle.close();
    throw new SourceError(`${file}: only a file can be uploaded`);
  }
  const size = Number(stat.size);

  // Several of them read at once, and none of them is to close the file when it is destroyed.
  const shared = { read: readFrom, close: (_fd: number, done: (error?: null) => void) => done() };
  const read = (start: number, end: number): Readable =>
    createReadStream('', { fd: handle.fd, fs: shared, start, end: end - 1, highWaterMark: pieceSize });

  async function hashOf(start: number, end: number, onBytes: (count: number) => void): Promise<Buffer> {
    const hash = createHash('sha256');
    if (start === end) return hash.digest();
    await pipeline(read(start, end), async (pieces: AsyncIterable<Buffer>) => {
      for await (const piece of pieces) {
        hash.update(piece);
        onBytes(piece.length);
      }
    });
    return hash.digest();
  }

  return {
    path: path.resolve(file),
    name: path.basename(file),
    size,
    mtime: String(stat.mtimeNs),
    read,
    hash: async (onBytes) => (await hashOf(0, size, onBytes)).toString('hex'),
    digest: async (start, end) => `sha-256=:${(await hashOf(start, end, () => {})).toString('base64')}:`,
    async requireUnchanged() {
      const now = await look();
      if (now.size === stat.size && now.mtimeNs === stat.mtimeNs) return;
      throw new SourceError(`${file} was changed while it was uploaded: begin again once nobody writes to it`);
    },
    [Symbol.asyncDispose]: () => handle.close(),
  };
}
