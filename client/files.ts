/* The RPCs whose bodies are bytes and no JSON, which the generator has no form for. They are never held whole. */

import { fetchReq, pathValue, query, send, Silence, type InitReq } from './fetch.ts';
import type { UploadChunkResponse } from './gen/chat4all/file/v1/file.pb.ts';

/** Bytes to send. A stream needs Node, or a browser that sends streams, which so far is only Chromium over HTTP/2. */
export type ChunkBody = Blob | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;

export interface ChunkRequest {
  /** UUID of the file. */
  file_id: string;
  /** Which chunk, counted from 0. */
  chunk_id: number;
  /** The chunk's digest as RFC 9530 has it: `sha-256=:<base64>:`. What doesn't match is not stored. */
  content_digest?: string;
}

/** What a chunk on a slow line may take, in milliseconds: nobody sees how far it has come. */
const chunkTimeout = 3_600_000;

/**
 * Uploads one chunk: may be repeated, in any order, several at once.
 *
 * @param initReq its `timeout` is for the whole chunk here: an hour by default
 * @throws RefusedError, or what fetch throws
 */
export function uploadChunk(
  { file_id, chunk_id, content_digest }: ChunkRequest,
  body: ChunkBody,
  initReq: InitReq = {},
): Promise<UploadChunkResponse> {
  const headers = bytesHeaders(initReq.headers, content_digest);
  const init = { timeout: chunkTimeout, ...initReq, headers, ...bytes('PATCH', body) };
  return fetchReq(`/v1/files/upload${query({ file_id, chunk_id }, [])}`, init);
}

/**
 * Uploads one chunk to a URL that the hub has given out. The URL is the permission: of `initReq` nothing is sent.
 *
 * @throws RefusedError, or what fetch throws
 */
export async function putChunk(
  url: string,
  body: ChunkBody,
  { timeout = chunkTimeout, signal, fetch }: Pick<InitReq, 'timeout' | 'signal' | 'fetch'> = {},
): Promise<void> {
  const init = { timeout, ...(signal != null && { signal }), ...(fetch && { fetch }), ...bytes('PUT', body) };
  const silence = new Silence(init);
  try {
    const response = await send(url, { ...init, headers: bytesHeaders() }, silence);
    await response.body?.cancel();
  } finally {
    silence.pause();
  }
}

export interface DownloadRequest {
  /** UUID of the file. */
  file_id: string;
  /** The bytes that are wanted: `bytes=0-499`, `bytes=500-`, `bytes=-500`. */
  range?: string;
  /** The `etag` of an earlier answer: if the content is another one, all of it comes. */
  if_range?: string;
}

/**
 * Downloads a file, or a range of it.
 *
 * @returns the answer, status 200 or 206. Its body breaks off with a TimeoutError if nothing comes for `timeout` milliseconds
 * @throws RefusedError, or what fetch throws
 */
export async function downloadFile(request: DownloadRequest, initReq: InitReq = {}): Promise<Response> {
  const headers = new Headers(initReq.headers);
  if (request.range !== undefined) headers.set('range', request.range);
  if (request.if_range !== undefined) headers.set('if-range', request.if_range);
  const silence = new Silence(initReq);
  try {
    const path = `/v1/files/${pathValue(request, 'file_id')}/content`;
    const response = await send(path, { ...initReq, method: 'GET', headers }, silence);
    const { status, statusText } = response;
    return new Response(watched(response, silence), { status, statusText, headers: response.headers });
  } catch (error) {
    silence.pause();
    throw error;
  }
}

/** The bytes of an answer. Only while they are waited for, it matters that nothing comes. */
function watched(response: Response, silence: Silence): ReadableStream<Uint8Array<ArrayBuffer>> {
  silence.pause();
  const reader = response.body?.getReader();
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        silence.restart();
        try {
          const piece = await reader?.read();
          if (piece === undefined || piece.done) controller.close();
          else controller.enqueue(piece.value as Uint8Array<ArrayBuffer>);
        } finally {
          silence.pause();
        }
      },
      cancel: (reason) => reader?.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}

function bytesHeaders(given?: InitReq['headers'], digest?: string): Headers {
  const headers = new Headers(given);
  headers.set('content-type', 'application/octet-stream');
  if (digest !== undefined) headers.set('content-digest', digest);
  return headers;
}

function bytes(method: string, body: ChunkBody): { method: string; body: ChunkBody; duplex?: 'half' } {
  return body instanceof ReadableStream ? { method, body, duplex: 'half' } : { method, body };
}
