import { Caller, type CallOptions, type ClientOptions, type Reply } from './caller.ts';
import {
  downloadFile,
  putChunk,
  uploadChunk,
  type ChunkBody,
  type ChunkReply,
  type ChunkRequest,
  type DownloadRequest,
} from './files.ts';
import type {
  CompleteUploadResponse,
  DownloadFileCode,
  UploadSignedChunkCode,
} from './gen/chat4all/file/v1/file.pb.ts';
import { Services } from './gen/services.ts';
import { followEvents, type FollowRequest } from './follow.ts';
import type { StreamEventsResponse } from './gen/chat4all/events/v1/events.pb.ts';
import { uploadFile, type UploadFileCode, type UploadOptions } from './upload.ts';

/* The exports of `@chat4all/client`. Types of requests and responses, and enums, are in `@chat4all/client/message` and so on. */
export type { CallOptions, ClientOptions } from './caller.ts';
export { ConnectionError, isRefused, outcomeOf, RefusedError } from './errors.ts';
export type { Detail, Outcome, Problem, Reply } from './errors.ts';
export type { ChunkBody, ChunkReply, ChunkRequest, DownloadRequest } from './files.ts';
export type { FollowRequest } from './follow.ts';
export { checksumOf } from './upload.ts';
export type { UploadBegun, UploadFileCode, UploadMemory, UploadOptions, UploadProgress } from './upload.ts';
export { b64Decode, b64Encode } from './wire.ts';

/** A client of a hub for one user. Each service is a member, and each RPC a method of that. */
export class Client extends Services {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    super(caller);
    this.#caller = caller;
  }

  /**
   * Uploads a file in chunks, several at once, each with its digest, until the hub has verified the whole file. Retries transient failures.
   *
   * @param file a File of a web page, or the Blob of Node's `fs.openAsBlob`; only the chunks being sent are in memory
   * @throws RefusedError, ConnectionError, the reason of the signal, or a DOMException called NotReadableError if the file changes meanwhile
   */
  uploadFile(file: Blob, options: UploadOptions = {}): Reply<CompleteUploadResponse, UploadFileCode> {
    return uploadFile(this, file, options);
  }

  /**
   * Downloads a file, or a range of it.
   *
   * @returns the response, with status 200 or 206. Its body fails with a TimeoutError if nothing arrives for `timeout` milliseconds
   */
  downloadFile(request: DownloadRequest, options?: CallOptions): Reply<Response, DownloadFileCode> {
    return downloadFile(this.#caller, request, options);
  }

  /**
   * Uploads one chunk. Chunks may be uploaded in any order, several at once, and more than once. `uploadFile` uploads a whole file.
   *
   * @param options the timeout is for the whole chunk, and an hour by default
   */
  uploadChunk(request: ChunkRequest, body: ChunkBody, options?: CallOptions): ChunkReply {
    return uploadChunk(this.#caller, request, body, options);
  }

  /**
   * Follows the caller's events without a gap, through lost connections: from a cursor on, or from now on. Yields the events, `hello` once,
   * and `reset` where events can't be told any more: then load your state anew.
   *
   * @throws RefusedError if the hub refuses for good; the signal's reason once it is aborted
   */
  followEvents(request: FollowRequest = {}, options: CallOptions = {}): AsyncGenerator<StreamEventsResponse, void> {
    return followEvents(this, request, options);
  }

  /** Uploads one chunk to a URL that the hub has signed. No credentials are sent. */
  putChunk(url: string, body: ChunkBody, options?: CallOptions): Reply<void, UploadSignedChunkCode> {
    return putChunk(this.#caller, url, body, options);
  }
}

/**
 * Creates a client of a hub. It holds no connection, and doesn't have to be closed.
 *
 * @throws TypeError if `baseUrl` is not an http or https URL
 */
export function createClient(options: ClientOptions): Client {
  return new Client(new Caller(options));
}
