import { createHash, createHmac, timingSafeEqual, type Hash } from 'node:crypto';
import type { ExpectedDigest } from '#lib/digest.ts';
import { HubError, invalidFields } from '#lib/errors.ts';

/** The status of a file. It only moves to the right, and the last two are final. */
export type Status = 'initiated' | 'in_progress' | 'completed' | 'failed';

/** Limits of uploads, in bytes. */
export interface Limits {
  maxFileBytes: number;
  minChunkBytes: number;
  maxChunkBytes: number;
  defaultChunkBytes: number;
  openUploads: number;
}

/** How a file is divided into chunks. All but the last have the same size. */
export interface Shape {
  fileSize: number;
  chunkSize: number;
  chunkCount: number;
}

/** A file as it is stored. */
export interface File extends Shape {
  fileId: string;
  ownerId: string;
  filename: string;
  contentType: string;
  /** The SHA-256 of the file that the client announced, in lower-case hex. */
  expectedChecksum: string | null;
  status: Status;
  /** Why it failed, for people. */
  error: string;
  /** The id of the upload in the store of contents; null before it is opened. */
  uploadId: string | null;
  /** The SHA-256 of the completed file, in lower-case hex. */
  checksum: string | null;
  /** Until when a process has the lease to complete it; meanwhile it accepts no chunks. */
  completingUntil: Date | null;
  createdAt: Date;
  /** The time of the last activity. */
  updatedAt: Date;
}

/** The progress of an upload. */
export interface Progress {
  receivedBytes: number;
  /** The ids of the chunks that are missing, in order. */
  missing: number[];
}

/**
 * Divides a new file into chunks.
 *
 * @throws HubError OUT_OF_RANGE `FILE_TOO_LARGE`; INVALID_ARGUMENT that names `chunk_size`
 */
export function shapeOf(fileSize: number, chunkSize: number | undefined, limits: Limits): Shape {
  if (fileSize > limits.maxFileBytes) {
    throw new HubError('OUT_OF_RANGE', 'FILE_TOO_LARGE', `A file may have at most ${limits.maxFileBytes} bytes`, {
      fields: [{ field: 'file_size', description: `must be at most ${limits.maxFileBytes}` }],
    });
  }
  if (chunkSize !== undefined && (chunkSize < limits.minChunkBytes || chunkSize > limits.maxChunkBytes)) {
    throw invalidFields([
      { field: 'chunk_size', description: `must be from ${limits.minChunkBytes} to ${limits.maxChunkBytes} bytes` },
    ]);
  }
  const size = chunkSize ?? limits.defaultChunkBytes;
  return { fileSize, chunkSize: size, chunkCount: Math.ceil(fileSize / size) };
}

/**
 * The size of a chunk.
 *
 * @throws HubError INVALID_ARGUMENT that names `chunk_id` if there is no such chunk
 */
export function sizeOfChunk({ fileSize, chunkSize, chunkCount }: Shape, chunkId: number): number {
  if (chunkId >= chunkCount) {
    const range = chunkCount === 0 ? 'the file has no chunks' : `must be from 0 to ${chunkCount - 1}`;
    throw invalidFields([{ field: 'chunk_id', description: range }]);
  }
  return Math.min(chunkSize, fileSize - chunkId * chunkSize);
}

/** The progress with these chunks. Those of a wrong size don't count. */
export function progressOf(shape: Shape, chunks: readonly { chunkId: number; size: number }[]): Progress {
  const there = new Set(
    chunks
      .filter(({ chunkId, size }) => chunkId < shape.chunkCount && size === sizeOfChunk(shape, chunkId))
      .map(({ chunkId }) => chunkId),
  );
  const missing: number[] = [];
  let receivedBytes = 0;
  for (let chunkId = 0; chunkId < shape.chunkCount; chunkId++) {
    if (there.has(chunkId)) receivedBytes += sizeOfChunk(shape, chunkId);
    else missing.push(chunkId);
  }
  return { receivedBytes, missing };
}

/** @throws HubError PERMISSION_DENIED `NOT_THE_OWNER` */
export function requireOwner(file: File, userId: string): void {
  if (file.ownerId === userId) return;
  throw new HubError('PERMISSION_DENIED', 'NOT_THE_OWNER', 'Access denied: the file is not yours');
}

/** @throws HubError ABORTED `FILE_COMPLETED`, `UPLOAD_FAILED` or `UPLOAD_COMPLETING` if a file accepts no chunks now */
export function requireOpen(file: Pick<File, 'status' | 'completingUntil'>, now: Date): void {
  if (file.status === 'completed') throw new HubError('ABORTED', 'FILE_COMPLETED', 'The file is completed already');
  if (file.status === 'failed') throw uploadFailed();
  if (file.completingUntil !== null && file.completingUntil > now) {
    throw new HubError('ABORTED', 'UPLOAD_COMPLETING', 'The upload is being completed: it takes no chunks any more');
  }
}

/** @throws HubError ABORTED `FILE_NOT_COMPLETED` */
export function requireCompleted(file: File): asserts file is File & { checksum: string } {
  if (file.status === 'completed' && file.checksum !== null) return;
  throw new HubError('ABORTED', 'FILE_NOT_COMPLETED', 'The file is not completed');
}

export function fileNotFound(): HubError {
  return new HubError('NOT_FOUND', 'FILE_NOT_FOUND', 'File not found');
}

export function notAReader(): HubError {
  return new HubError('PERMISSION_DENIED', 'NOT_A_READER', 'Access denied: the file was not sent to you');
}

export function uploadFailed(): HubError {
  return new HubError('ABORTED', 'UPLOAD_FAILED', 'The upload has failed or was aborted: begin a new one');
}

export function tooManyUploads(limit: number): HubError {
  return new HubError(
    'RESOURCE_EXHAUSTED',
    'TOO_MANY_UPLOADS',
    `You have ${limit} open uploads: complete or delete one of them first`,
    { retryAfter: 60 },
  );
}

/** The maximum number of ids that an error names. */
const namedChunks = 20;

export function chunksMissing(missing: readonly number[]): HubError {
  const some = missing.slice(0, namedChunks).join(', ');
  const more = missing.length > namedChunks ? ` and ${missing.length - namedChunks} more` : '';
  return new HubError('INVALID_ARGUMENT', 'CHUNKS_MISSING', `These chunks are missing: ${some}${more}`);
}

export function checksumMismatch(): HubError {
  return new HubError(
    'INVALID_ARGUMENT',
    'CHECKSUM_MISMATCH',
    'What was uploaded has another SHA-256 than was said: the upload has failed, begin a new one',
    { fields: [{ field: 'checksum', description: 'is not the SHA-256 of what was uploaded' }] },
  );
}

export function otherChecksum(): HubError {
  return new HubError('ABORTED', 'FILE_COMPLETED', 'The file is completed already, with another checksum');
}

function sizeMismatch(expected: number, what: string): HubError {
  const message = `The chunk must have ${expected} bytes, but ${what}`;
  return new HubError('INVALID_ARGUMENT', 'CHUNK_SIZE_MISMATCH', message);
}

/** @throws HubError INVALID_ARGUMENT `CHUNK_SIZE_MISMATCH` if the client announces another number of bytes */
export function requireSize(expected: number, announced: number | undefined): void {
  if (announced !== undefined && announced !== expected) throw sizeMismatch(expected, `${announced} were announced`);
}

/**
 * Passes bytes on, and checks their number and digest before it passes on the last piece. So a store that accepts only whole chunks never
 * stores a wrong one.
 *
 * @throws HubError INVALID_ARGUMENT `CHUNK_SIZE_MISMATCH` or `CHUNK_DIGEST_MISMATCH`
 */
export async function* checked(
  bytes: AsyncIterable<Uint8Array>,
  size: number,
  expected: ExpectedDigest | undefined,
): AsyncGenerator<Uint8Array> {
  const hash: Hash | undefined = expected && createHash(expected.algorithm);
  let received = 0;
  let lastPiece: Uint8Array | undefined;
  for await (const piece of bytes) {
    received += piece.length;
    if (received > size) throw sizeMismatch(size, 'more were sent');
    hash?.update(piece);
    // The last piece is held back until nothing follows; as a copy, since its source may reuse the memory.
    if (received < size) yield piece;
    else if (piece.length > 0) lastPiece = Buffer.from(piece);
  }
  if (lastPiece === undefined) throw sizeMismatch(size, `${received} were sent`);
  if (expected !== undefined && hash?.digest().equals(expected.digest) === false) {
    throw new HubError('INVALID_ARGUMENT', 'CHUNK_DIGEST_MISMATCH', 'The chunk has another digest than was said');
  }
  yield lastPiece;
}

/** The signed parts of a URL for a chunk, as text. */
export interface UrlClaims {
  fileId: string;
  chunkId: string;
  /** Seconds since 1970. */
  expires: string;
}

/** Signs a URL, which permits to put one chunk. */
export function signatureOf(claims: UrlClaims, key: Buffer): Buffer {
  const text = ['PUT chunk', claims.fileId, claims.chunkId, claims.expires].join('\n');
  return createHmac('sha256', key).update(text).digest();
}

/** @throws HubError PERMISSION_DENIED `SIGNATURE_INVALID`, whatever is wrong */
export function requireSignature(claims: UrlClaims, signature: string, keys: readonly Buffer[], now: Date): void {
  const given = Buffer.from(signature, 'base64url');
  const matches = keys.some((key) => {
    const right = signatureOf(claims, key);
    // Another base64 spelling of the same bytes is refused as well: it is a changed URL.
    return given.length === right.length && timingSafeEqual(given, right) && right.toString('base64url') === signature;
  });
  if (matches && Number(claims.expires) * 1_000 > now.getTime()) return;
  throw new HubError(
    'PERMISSION_DENIED',
    'SIGNATURE_INVALID',
    'Access denied: this upload URL is incomplete, was changed or has expired',
  );
}

/**
 * The requested bytes; `end` is exclusive. A header that is no single range of bytes is ignored (RFC 9110, 14.2).
 *
 * @throws HubError OUT_OF_RANGE `RANGE_NOT_SATISFIABLE`
 */
export function rangeOf(text: string, size: number): { start: number; end: number; isPart: boolean } {
  const [, first, last] = /^bytes=\s*(\d*)-(\d*)\s*$/i.exec(text) ?? [];
  if (first === undefined || last === undefined || first + last === '') return { start: 0, end: size, isPart: false };
  const isSuffix = first === '';
  const start = isSuffix ? Math.max(0, size - Number(last)) : Number(first);
  const end = isSuffix || last === '' ? size : Math.min(size, Number(last) + 1);
  if (start < end) return { start, end, isPart: true };
  throw new HubError(
    'OUT_OF_RANGE',
    'RANGE_NOT_SATISFIABLE',
    `The range lies outside of the ${size} bytes of the file`,
  );
}
