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
import { uploadFile, type UploadFileCode, type UploadOptions } from './upload.ts';

/* What `@chat4all/client` exports. The types of requests and answers, and enums, are in `@chat4all/client/message` and so on. */
export type { CallOptions, ClientOptions } from './caller.ts';
export { ConnectionError, isRefused, outcomeOf, RefusedError } from './errors.ts';
export type { Detail, Outcome, Problem, Reply } from './errors.ts';
export type { ChunkBody, ChunkReply, ChunkRequest, DownloadRequest } from './files.ts';
export type { UploadBegun, UploadFileCode, UploadMemory, UploadOptions, UploadProgress } from './upload.ts';
export { b64Decode, b64Encode } from './wire.ts';

/** A hub, as one user calls it: a member for each service, with a method for each RPC. */
export class Client extends Services {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    super(caller);
    this.#caller = caller;
  }

  /**
   * Uploads a file in chunks, several at once, each with its digest, until the hub has verified the whole. What passes is waited for.
   *
   * @param file a File of a page, or what `fs.openAsBlob` opens in Node: it is never held whole
   * @throws RefusedError; ConnectionError; what `signal` says; a NotReadableError if the file is changed meanwhile
   */
  uploadFile(file: Blob, options: UploadOptions = {}): Reply<CompleteUploadResponse, UploadFileCode> {
    return uploadFile(this, file, options);
  }

  /**
   * Downloads a file, or a range of it.
   *
   * @returns the answer, status 200 or 206. Its body breaks off with a TimeoutError if nothing comes for `timeout` milliseconds
   */
  downloadFile(request: DownloadRequest, options?: CallOptions): Reply<Response, DownloadFileCode> {
    return downloadFile(this.#caller, request, options);
  }

  /**
   * Uploads one chunk: may be repeated, in any order, several at once. `uploadFile` does it for a whole file.
   *
   * @param options `timeout` is for the whole chunk: an hour by default
   */
  uploadChunk(request: ChunkRequest, body: ChunkBody, options?: CallOptions): ChunkReply {
    return uploadChunk(this.#caller, request, body, options);
  }

  /** Uploads one chunk to a URL that the hub has given out. The URL is the permission: no credentials are sent. */
  putChunk(url: string, body: ChunkBody, options?: CallOptions): Reply<void, UploadSignedChunkCode> {
    return putChunk(this.#caller, url, body, options);
  }
}

/**
 * Makes a client of a hub. It keeps no connection of its own, and needs no end.
 *
 * @throws TypeError if `baseUrl` is no URL of a server
 */
export function createClient(options: ClientOptions): Client {
  return new Client(new Caller(options));
}
