import { createHash, createHmac, timingSafeEqual, type Hash } from 'node:crypto';
import type { ExpectedDigest } from '#lib/digest.ts';
import { HubError, invalidFields } from '#lib/errors.ts';

/** How far a file has come; it only moves to the right, and the last two are ends. */
export type Status = 'initiated' | 'in_progress' | 'completed' | 'failed';

/** What may be uploaded. Sizes in bytes. */
export interface Limits {
  largestFile: number;
  smallestChunk: number;
  largestChunk: number;
  /** Size of the chunks where the client doesn't say. */
  usualChunk: number;
  openUploads: number;
}

/** How a file is cut. All chunks but the last have the same size. */
export interface Shape {
  fileSize: number;
  chunkSize: number;
  chunkCount: number;
}

/** A file as it is kept. */
export interface File extends Shape {
  fileId: string;
  ownerId: string;
  filename: string;
  contentType: string;
  /** What the client said of the whole at the beginning: SHA-256 in lower-case hex. */
  expectedChecksum: string | null;
  status: Status;
  /** Why it failed, for people. */
  error: string;
  /** The upload in the store; null while there is none so far. */
  uploadId: string | null;
  /** SHA-256 of the whole in lower-case hex, once it is completed. */
  checksum: string | null;
  /** Until then a process verifies it, and it takes no chunks. */
  completingUntil: Date | null;
  createdAt: Date;
  /** When something happened to it last. */
  updatedAt: Date;
}

/** What of an upload is there. */
export interface Progress {
  receivedBytes: number;
  /** The ids of the chunks that are missing, in order. */
  missing: number[];
}

/**
 * How a new file is cut.
 *
 * @throws HubError OUT_OF_RANGE `FILE_TOO_LARGE`; INVALID_ARGUMENT that names `chunk_size`
 */
export function shapeOf(fileSize: number, chunkSize: number | undefined, limits: Limits): Shape {
  if (fileSize > limits.largestFile) {
    throw new HubError('OUT_OF_RANGE', 'FILE_TOO_LARGE', `A file may have at most ${limits.largestFile} bytes`, {
      fields: [{ field: 'file_size', description: `must be at most ${limits.largestFile}` }],
    });
  }
  if (chunkSize !== undefined && (chunkSize < limits.smallestChunk || chunkSize > limits.largestChunk)) {
    throw invalidFields([
      { field: 'chunk_size', description: `must be from ${limits.smallestChunk} to ${limits.largestChunk} bytes` },
    ]);
  }
  const size = chunkSize ?? limits.usualChunk;
  return { fileSize, chunkSize: size, chunkCount: Math.ceil(fileSize / size) };
}

/**
 * The bytes that a chunk has in its place.
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

/** What is there and what is missing. Chunks of a wrong size don't count. */
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

/** @throws HubError ABORTED `FILE_COMPLETED`, `UPLOAD_FAILED` or `UPLOAD_COMPLETING` if a file takes no chunks now */
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

/** How many ids an error names. */
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

/** @throws HubError INVALID_ARGUMENT `CHUNK_SIZE_MISMATCH` if the client says that it will send another number of bytes */
export function requireSize(expected: number, announced: number | undefined): void {
  if (announced !== undefined && announced !== expected) throw sizeMismatch(expected, `${announced} were announced`);
}

/**
 * Passes bytes on. Before the last piece it throws unless there are exactly as many bytes as expected and they have the digest, so that a
 * store that takes only whole chunks never takes a wrong one.
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
  let heldBack: Uint8Array | undefined;
  for await (const piece of bytes) {
    received += piece.length;
    if (received > size) throw sizeMismatch(size, 'more were sent');
    hash?.update(piece);
    // The last piece is held back, as a copy since its source may reuse it, until it is known that nothing follows.
    if (received < size) yield piece;
    else if (piece.length > 0) heldBack = Buffer.from(piece);
  }
  if (heldBack === undefined) throw sizeMismatch(size, `${received} were sent`);
  if (expected !== undefined && hash?.digest().equals(expected.digest) === false) {
    throw new HubError('INVALID_ARGUMENT', 'CHUNK_DIGEST_MISMATCH', 'The chunk has another digest than was said');
  }
  yield heldBack;
}

/** What a URL for a chunk says, as text. */
export interface UrlClaims {
  fileId: string;
  chunkId: string;
  /** Seconds since 1970. */
  expires: string;
}

/** What makes a URL a permission to put one chunk: nobody can make it who doesn't have the key. */
export function signatureOf(claims: UrlClaims, key: Buffer): Buffer {
  const text = ['PUT chunk', claims.fileId, claims.chunkId, claims.expires].join('\n');
  return createHmac('sha256', key).update(text).digest();
}

/** @throws HubError PERMISSION_DENIED `SIGNATURE_INVALID`, whatever it is that is wrong */
export function requireSignature(claims: UrlClaims, signature: string, keys: readonly Buffer[], now: Date): void {
  const given = Buffer.from(signature, 'base64url');
  const matches = keys.some((key) => {
    const right = signatureOf(claims, key);
    // A second spelling of the same bytes is a changed URL, too.
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
 * Which bytes are wanted; `end` is exclusive. What is no single range of bytes means all of them (RFC 9110, 14.2).
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
