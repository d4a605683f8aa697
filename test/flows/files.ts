import { createCipheriv, createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import type {
  CompleteUploadResponse,
  GetChunkUploadUrlResponse,
  GetFileResponse,
  InitiateUploadResponse,
  UploadChunkResponse,
} from '../../client/gen/chat4all/file/v1/file.pb.ts';
import { exchange, readWhole, type Call } from '../rest.ts';
import type { Person } from './meshes.ts';

export const mebibyte = 1024 ** 2;

/** Bytes that look random, always the same for a seed: any of them can be had without those before. */
export interface Content {
  size: number;
  /** From byte `start` up to byte `end`, exclusive; all by default. */
  bytes(start?: number, end?: number): Buffer;
  /** The same, a MiB at a time, each in a buffer of its own. */
  pieces(start?: number, end?: number): Generator<Buffer>;
  /** SHA-256 of all, in hex. */
  sha256(): Promise<string>;
}

const blockSize = 16;

export function contentOf(seed: string, size: number): Content {
  const key = createHash('sha256').update(seed).digest().subarray(0, blockSize);

  /** The key stream of a cipher in counter mode begins anywhere. */
  function* pieces(start = 0, end = size): Generator<Buffer> {
    const counter = Buffer.alloc(blockSize);
    counter.writeBigUInt64BE(BigInt(Math.floor(start / blockSize)), 8);
    const cipher = createCipheriv('aes-128-ctr', key, counter);
    cipher.update(Buffer.alloc(start % blockSize));
    const zeros = Buffer.alloc(Math.min(mebibyte, end - start));
    for (let at = start; at < end; at += mebibyte) yield cipher.update(zeros.subarray(0, end - at));
  }

  let sha256: Promise<string> | undefined;
  return {
    size,
    pieces,
    bytes: (start, end) => Buffer.concat([...pieces(start, end)]),
    sha256: () => (sha256 ??= hashOf(pieces())),
  };
}

async function hashOf(pieces: Iterable<Buffer>): Promise<string> {
  const hash = createHash('sha256');
  for (const piece of pieces) {
    hash.update(piece);
    // The mesh may be in this process.
    await turn();
  }
  return hash.digest('hex');
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** As RFC 9530 writes it. */
export function contentDigest(bytes: Uint8Array): string {
  return `sha-256=:${createHash('sha256').update(bytes).digest('base64')}:`;
}

/** SHA-256 of nothing. */
export const emptyChecksum = sha256Of(Buffer.alloc(0));

export type Initiated = InitiateUploadResponse;
export type Completed = CompleteUploadResponse;
export type FileDetails = GetFileResponse;
/** What a chunk is answered; asked with JSON, with a URL for it. */
export type ChunkAnswer = UploadChunkResponse & Partial<GetChunkUploadUrlResponse>;

/** An upload that was begun, with what is to be uploaded. */
export interface Upload extends Initiated {
  owner: Person;
  content: Content;
}

export interface UploadOptions {
  filename?: string;
  contentType?: string;
  chunkSize?: number;
  /** What the beginning says of the whole. */
  checksum?: string;
  /** Chunks that are under way at once; 3 by default. */
  parallel?: number;
}

/** Whole uploads may take their time. Milliseconds. */
const chunkTimeout = 120_000;

/** Begins an upload. */
export async function initiate(owner: Person, content: Content, options: UploadOptions = {}): Promise<Upload> {
  const { filename = 'file.bin', contentType, chunkSize, checksum } = options;
  const begun = await owner.rest.client.file.initiateUpload({
    filename,
    file_size: content.size,
    content_type: contentType,
    chunk_size: chunkSize,
    checksum,
  });
  return { ...begun, owner, content };
}

export function chunkPath(fileId: string, chunkId: number | string): string {
  return `/v1/files/upload?file_id=${fileId}&chunk_id=${chunkId}`;
}

/** Where a chunk is in its file. */
export function rangeOf({ chunk_size: size, content }: Upload, chunkId: number): [start: number, end: number] {
  return [chunkId * size, Math.min((chunkId + 1) * size, content.size)];
}

/** The bytes of a chunk. */
export function chunkOf(upload: Upload, chunkId: number): Buffer {
  return upload.content.bytes(...rangeOf(upload, chunkId));
}

/** Whatever comes back for a chunk, whose bytes are made as they are sent. */
export async function tryChunk(upload: Upload, chunkId: number, signal?: AbortSignal) {
  const [start, end] = rangeOf(upload, chunkId);
  return upload.owner.rest.call('PATCH', chunkPath(upload.file_id, chunkId), {
    body: upload.content.pieces(start, end),
    headers: { 'content-length': String(end - start), 'content-type': 'application/octet-stream' },
    timeout: chunkTimeout,
    ...(signal !== undefined && { signal }),
  });
}

/** Uploads a chunk. */
export async function sendChunk(upload: Upload, chunkId: number): Promise<ChunkAnswer> {
  const { status, body } = await tryChunk(upload, chunkId);
  if (status !== 200) throw new Error(`Chunk ${chunkId}: ${status} ${JSON.stringify(body)}`);
  return body as ChunkAnswer;
}

/** Uploads these chunks, some at a time. */
export async function sendChunks(upload: Upload, chunkIds: readonly number[], parallel = 3): Promise<void> {
  const left = [...chunkIds];
  const send = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) await sendChunk(upload, next);
  };
  await Promise.all(Array.from({ length: parallel }, send));
}

export function everyChunk({ chunk_count: count }: Pick<Initiated, 'chunk_count'>): number[] {
  return Array.from({ length: count }, (_, chunkId) => chunkId);
}

export async function complete({ owner, file_id, content }: Upload): Promise<Completed> {
  const json = { file_id, checksum: await content.sha256() };
  const { status, body } = await owner.rest.call('POST', '/v1/files/complete', { json, timeout: chunkTimeout });
  if (status !== 200) throw new Error(`POST /v1/files/complete: ${status} ${JSON.stringify(body)}`);
  return body as Completed;
}

/** Uploads a file from its beginning to its end. */
export async function uploadFile(owner: Person, content: Content, options: UploadOptions = {}): Promise<Completed> {
  const upload = await initiate(owner, content, options);
  await sendChunks(upload, everyChunk(upload), options.parallel);
  return complete(upload);
}

export function detailsOf(reader: Person, fileId: string): Promise<FileDetails> {
  return reader.rest.client.file.getFile({ file_id: fileId });
}

/** What a client does after an interruption: asks what is missing, uploads that, completes. */
export async function resume(upload: Upload): Promise<Completed> {
  await sendChunks(upload, (await detailsOf(upload.owner, upload.file_id)).missing_chunks);
  return complete(upload);
}

/** A download that was read to its end. */
export interface Downloaded {
  status: number;
  headers: Headers;
  length: number;
  sha256: string;
}

/** Downloads a file without ever holding it. */
export async function download(reader: Person, fileId: string, call: Call = {}): Promise<Downloaded> {
  const answer = await reader.rest.raw('GET', `/v1/files/${fileId}/content`, { timeout: chunkTimeout, ...call });
  const hash = createHash('sha256');
  let length = 0;
  for await (const piece of answer.body as AsyncIterable<Buffer>) {
    hash.update(piece);
    length += piece.length;
  }
  const { status, headers } = answer;
  return { status, headers, length, sha256: hash.digest('hex') };
}

/** A download, or an answer without a body, with all its bytes. */
export async function readContent(
  reader: Person,
  fileId: string,
  headers: Record<string, string> = {},
  method = 'GET',
) {
  const answer = await reader.rest.raw(method, `/v1/files/${fileId}/content`, { headers });
  return { status: answer.status, headers: answer.headers, bytes: await readWhole(answer.body) };
}

/**
 * PUTs to a URL as somebody without a token. MinIO resets the connection of who still sends what it has refused, so the body
 * waits until it is asked for.
 */
export async function put(url: string, body: Call['body'], headers: Record<string, string> = {}) {
  const expecting = { expect: '100-continue', ...headers };
  const answer = await exchange('PUT', url, { body, headers: expecting, timeout: chunkTimeout });
  return { status: answer.status, headers: answer.headers, text: (await readWhole(answer.body)).toString() };
}

/** A chunk that is on its way, and not all of it. */
export interface PartOfChunk {
  /** The answer; undefined if the connection was cut without one. */
  ended: Promise<{ status: number; headers: Headers; body: unknown } | undefined>;
  /** Cuts the connection. */
  cut(): void;
  /** Sends the rest. */
  finish(): void;
}

/**
 * Sends a chunk but for its last bytes, and returns once the others have left this process.
 *
 * @param heldBack how many bytes; by default the second half
 */
export async function sendPartly(
  upload: Upload,
  chunkId: number,
  { heldBack, headers = {} }: { heldBack?: number; headers?: Record<string, string> } = {},
): Promise<PartOfChunk> {
  const [start, end] = rangeOf(upload, chunkId);
  const middle = heldBack === undefined ? Math.floor((start + end) / 2) : end - heldBack;
  const [left, goOn] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  async function* pieces() {
    yield* upload.content.pieces(start, middle);
    left.resolve();
    await goOn.promise;
    yield* upload.content.pieces(middle, end);
  }
  const cut = new AbortController();
  const answer = upload.owner.rest.raw('PATCH', chunkPath(upload.file_id, chunkId), {
    body: pieces(),
    headers: { 'content-length': String(end - start), ...headers },
    timeout: chunkTimeout,
    signal: cut.signal,
  });
  const ended = (async () => {
    try {
      const { status, headers, body } = await answer;
      return { status, headers, body: JSON.parse((await readWhole(body)).toString()) as unknown };
    } catch {
      return undefined;
    }
  })();
  await Promise.race([left.promise, ended]);
  return { ended, cut: () => cut.abort(), finish: () => goOn.resolve() };
}
