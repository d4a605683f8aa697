import type { Caller, CallOptions, Reply } from './caller.ts';
import type { UploadChunkCode, UploadChunkResponse } from './gen/chat4all/file/v1/file.pb.ts';
import { toHttp } from './wire.ts';

/** The RPCs whose bodies are bytes instead of JSON. */

/** Bytes to send. A stream needs Node, or a browser that sends streams, which so far is only Chromium over HTTP/2. */
export type ChunkBody = Blob | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;

/** Which chunk. */
export interface ChunkRequest {
  /** UUID of the file. */
  file_id: string;
  /** Which chunk, counted from 0. */
  chunk_id: number;
  /** The chunk's digest as RFC 9530 has it: `sha-256=:<base64>:`. A chunk that doesn't match is refused. */
  content_digest?: string;
}

/** Milliseconds for a chunk on a slow line: `fetch` doesn't tell how much of a body has been sent. */
const chunkTimeout = 3_600_000;

/** Uploads one chunk: `Client.uploadChunk`. */
export async function uploadChunk(
  caller: Caller,
  { file_id, chunk_id, content_digest }: ChunkRequest,
  body: ChunkBody,
  options: CallOptions = {},
): Promise<UploadChunkResponse> {
  const { path } = toHttp({ verb: 'PATCH', path: '/v1/files/upload' }, { file_id, chunk_id });
  const headers = bytesHeaders(content_digest);
  const request = { verb: 'PATCH', path, body, headers, isRepeatable: !(body instanceof ReadableStream) };
  const response = await caller.send(request, { timeout: chunkTimeout, ...options });
  return (await response.json()) as UploadChunkResponse;
}

/** Uploads one chunk to a URL that the hub has given out: `Client.putChunk`. */
export async function putChunk(
  caller: Caller,
  url: string,
  body: ChunkBody,
  { headers: _, ...options }: CallOptions = {},
): Promise<void> {
  const isRepeatable = !(body instanceof ReadableStream);
  const request = { verb: 'PUT', path: url, body, headers: bytesHeaders(), isPublic: true, isRepeatable };
  const response = await caller.send(request, { timeout: chunkTimeout, ...options });
  await response.body?.cancel();
}

/** What to download. */
export interface DownloadRequest {
  /** UUID of the file. */
  file_id: string;
  /** The bytes that are wanted: `bytes=0-499`, `bytes=500-`, `bytes=-500`. */
  range?: string;
  /** The `etag` of an earlier answer: if the content is another one, all of it comes. */
  if_range?: string;
}

/** Downloads a file, or a range of it: `Client.downloadFile`. */
export function downloadFile(
  caller: Caller,
  { file_id, range, if_range }: DownloadRequest,
  options: CallOptions = {},
): Promise<Response> {
  const headers = new Headers();
  if (range !== undefined) headers.set('range', range);
  if (if_range !== undefined) headers.set('if-range', if_range);
  const { path } = toHttp({ verb: 'GET', path: '/v1/files/{file_id}/content' }, { file_id });
  return caller.send({ verb: 'GET', path, headers, isRepeatable: true }, options);
}

/** The response to a chunk, with the error codes that it may have. */
export type ChunkReply = Reply<UploadChunkResponse, UploadChunkCode>;

function bytesHeaders(digest?: string): Headers {
  const headers = new Headers({ 'content-type': 'application/octet-stream' });
  if (digest !== undefined) headers.set('content-digest', digest);
  return headers;
}
