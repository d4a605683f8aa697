import type { CallOptions } from './caller.ts';
import type { ChunkBody, ChunkReply, ChunkRequest } from './files.ts';
import type {
  CompleteUploadCode,
  CompleteUploadResponse,
  FileService,
  GetFileResponse,
  InitiateUploadCode,
  UploadChunkCode,
} from './gen/chat4all/file/v1/file.pb.ts';
import { isRefused, RefusedError } from './errors.ts';
import { isTransient, pause, waitAfter } from './retries.ts';
import { beginSha256 } from './sha256.ts';
import { b64Encode } from './wire.ts';

/** The error codes that `uploadFile` may have. */
export type UploadFileCode = InitiateUploadCode | UploadChunkCode | CompleteUploadCode;

/** How far an upload has come. */
export interface UploadProgress {
  /** Whether chunks are being sent, or the hub verifies the file. */
  phase: 'uploading' | 'verifying';
  /** Bytes that are uploaded. */
  done: number;
  /** Bytes of the file. */
  total: number;
}

/** An upload that has been started or resumed. */
export interface UploadBegun {
  file_id: string;
  chunk_count: number;
  /** How many chunks are still to be uploaded. */
  missing: number;
  /** Whether it was started earlier. */
  isResumed: boolean;
  /** Why an earlier upload of the file could not be resumed, if there was one. */
  abandoned?: string | undefined;
}

/** Where unfinished uploads are remembered, such as `localStorage`. Nothing in it is secret. */
export interface UploadMemory {
  getItem(key: string): string | null | Promise<string | null>;
  setItem(key: string, value: string): void | Promise<void>;
  removeItem(key: string): void | Promise<void>;
}

/** What of a client it takes to upload a file. */
export interface UploadCalls {
  readonly file: FileService;
  uploadChunk(request: ChunkRequest, body: ChunkBody, options?: CallOptions): ChunkReply;
  putChunk(url: string, body: ChunkBody, options?: CallOptions): Promise<void>;
}

/** How a file is uploaded. */
export interface UploadOptions {
  /** The name of the file; by default the name of the File. */
  filename?: string;
  /** Its media type; by default the type of the Blob. */
  contentType?: string;
  /** Bytes of a chunk; chosen by the hub by default. */
  chunkSize?: number | undefined;
  /** How many chunks are sent at once; 4 by default. Each is in memory meanwhile. */
  parallel?: number;
  /** Whether to send the chunks directly to the hub's store, to URLs that the hub signs. */
  direct?: boolean;
  /** Lets an interrupted upload resume when the same file is uploaded again, even after a crash. */
  memory?: UploadMemory;
  /** Computes the checksum of the file; `checksumOf` by default, which a page may also run in a worker. */
  checksum?(file: Blob, signal: AbortSignal): Promise<string>;
  /** Milliseconds for which transient failures are retried; five minutes by default. */
  patience?: number;
  onBegin?(begun: UploadBegun): void;
  /** Called after each chunk. */
  onProgress?(progress: UploadProgress): void;
  /** Called before a retry, with its reason and the milliseconds until then. */
  onRetry?(error: Error, wait: number): void;
  /** Stops the upload, which can be resumed. */
  signal?: AbortSignal | undefined;
}

const usualPatience = 300_000;
/** How often to upload the chunks that are missing in the end. */
const mostRounds = 3;
/** The timeout for a chunk in milliseconds: a minute, and the time it takes at 32 kB/s. */
const chunkTimeout = (bytes: number) => 60_000 + bytes / 32;
/** Bytes: a page can do something else after each of them, some milliseconds later. */
const hashedAtOnce = 2 ** 20;

/** Uploads a file: `Client.uploadFile`. */
export async function uploadFile(
  client: UploadCalls,
  file: Blob,
  options: UploadOptions,
): Promise<CompleteUploadResponse> {
  const filename = options.filename ?? (file as Partial<File>).name;
  if (filename === undefined) throw new TypeError('filename must be given for a Blob, which has no name');
  const upload = new Upload(client, file, { ...options, filename });
  try {
    return await upload.run();
  } finally {
    upload.stop();
  }
}

class Upload {
  readonly #client: UploadCalls;
  readonly #file: Blob;
  readonly #options: UploadOptions & { filename: string };
  readonly #stop = new AbortController();
  /** Aborted when the upload has ended, and by the caller's own signal. */
  readonly #signal: AbortSignal;
  readonly #key: string;

  constructor(client: UploadCalls, file: Blob, options: UploadOptions & { filename: string }) {
    const { signal } = this.#stop;
    this.#client = client;
    this.#file = file;
    this.#options = options;
    this.#signal = options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
    this.#key = ['chat4all upload', options.filename, file.size, (file as Partial<File>).lastModified ?? ''].join(' ');
  }

  stop(): void {
    this.#stop.abort();
  }

  async run(): Promise<CompleteUploadResponse> {
    this.#signal.throwIfAborted();
    // Reads the whole file while the chunks are being sent.
    const { checksum: compute = checksumOf } = this.#options;
    const checksum = compute(this.#file, this.#signal);
    checksum.catch(() => {});
    const file_id = await this.#begin();
    try {
      for (let round = 1; ; round += 1) {
        const details = await this.#patiently(() => this.#client.file.getFile({ file_id }, this.#once()));
        await this.#transfer(details);
        this.#tell('verifying', this.#file.size);
        const request = { file_id, checksum: await checksum };
        try {
          const completed = await this.#patiently(() => this.#client.file.completeUpload(request, this.#once()));
          await this.#options.memory?.removeItem(this.#key);
          return completed;
        } catch (error) {
          // The store may have lost chunks in a crash.
          if (!isRefused(error, 'CHUNKS_MISSING') || round === mostRounds) throw error;
        }
      }
    } catch (error) {
      await this.#forgetIfLost(error, file_id);
      throw error;
    }
  }

  /** Resumes an earlier upload of the file, or starts one. @returns the id of the file */
  async #begin(): Promise<string> {
    const { memory, filename, contentType = this.#file.type, chunkSize, onBegin } = this.#options;
    const begun = (await memory?.getItem(this.#key)) ?? undefined;
    const earlier = begun === undefined ? undefined : await this.#lookUp(begun);
    if (typeof earlier === 'object') {
      const { file_id, chunk_count, missing_chunks } = earlier;
      onBegin?.({ file_id, chunk_count, missing: missing_chunks.length, isResumed: true });
      return file_id;
    }
    const file_size = this.#file.size;
    const { file_id, chunk_count } = await this.#client.file.initiateUpload(
      { filename, file_size, content_type: contentType, chunk_size: chunkSize ?? null },
      { signal: this.#signal },
    );
    await memory?.setItem(this.#key, file_id);
    onBegin?.({ file_id, chunk_count, missing: chunk_count, isResumed: false, abandoned: earlier });
    return file_id;
  }

  /** An earlier upload, or the reason why it can't be resumed. */
  async #lookUp(file_id: string): Promise<GetFileResponse | string> {
    try {
      const found = await this.#patiently(() => this.#client.file.getFile({ file_id }, this.#once()));
      if (found.status === 'failed') return `The earlier upload has failed (${found.error})`;
      return found.file_size === this.#file.size ? found : 'The earlier upload is of another file';
    } catch (error) {
      // It doesn't exist any more, or belongs to another user.
      if (!(error instanceof RefusedError) || (error.status !== 403 && error.status !== 404)) throw error;
      return 'The earlier upload does not exist any more';
    }
  }

  /** Uploads the missing chunks, several at once. None is being sent any more when it returns or throws. */
  async #transfer({ file_id, chunk_size, missing_chunks, received_bytes }: GetFileResponse): Promise<void> {
    let done = received_bytes;
    this.#tell('uploading', done);
    const queue = missing_chunks.values();
    const work = async () => {
      for (const chunk_id of queue) {
        const chunk = this.#file.slice(chunk_id * chunk_size, (chunk_id + 1) * chunk_size);
        await this.#patiently(() => this.#send(file_id, chunk_id, chunk));
        this.#tell('uploading', (done += chunk.size));
      }
    };
    const workers = Array.from({ length: this.#options.parallel ?? 4 }, work);
    try {
      await Promise.all(workers);
    } catch (error) {
      this.stop();
      throw error;
    } finally {
      await Promise.allSettled(workers);
    }
  }

  async #send(file_id: string, chunk_id: number, chunk: Blob): Promise<void> {
    const options = { ...this.#once(), timeout: chunkTimeout(chunk.size) };
    if (this.#options.direct === true) {
      // A new URL for each attempt, since the last one may have expired.
      const { upload_url } = await this.#client.file.getChunkUploadUrl({ file_id, chunk_id }, this.#once());
      await this.#client.putChunk(upload_url, chunk, options);
      return;
    }
    const bytes = new Uint8Array(await chunk.arrayBuffer());
    const content_digest = `sha-256=:${b64Encode(await digestOf(bytes))}:`;
    await this.#client.uploadChunk({ file_id, chunk_id, content_digest }, bytes, options);
  }

  /** Forgets an upload that can't be completed any more, and ends it, since each user may have only so many open ones. */
  async #forgetIfLost(error: unknown, file_id: string): Promise<void> {
    const hasChanged = error instanceof DOMException && error.name === 'NotReadableError';
    if (!hasChanged && !isRefused(error, 'CHECKSUM_MISMATCH', 'UPLOAD_FAILED', 'FILE_NOT_FOUND')) return;
    await this.#options.memory?.removeItem(this.#key);
    if (!hasChanged) return;
    try {
      await this.#client.file.deleteFile({ file_id });
    } catch {
      // The hub ends idle uploads by itself.
    }
  }

  /** Makes an attempt, and retries transient failures for as long as `patience` says. */
  async #patiently<Result>(attempt: () => Promise<Result>): Promise<Result> {
    const { patience = usualPatience, onRetry } = this.#options;
    let giveUp: number | undefined;
    for (let failures = 1; ; failures += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (this.#signal.aborted || !maySucceed(error)) throw error;
        const wait = waitAfter(error, failures);
        giveUp ??= performance.now() + patience;
        if (performance.now() + wait > giveUp) throw error;
        onRetry?.(error as Error, wait);
        await pause(wait, this.#signal);
      }
    }
  }

  /** The options of calls that `#patiently` retries. */
  #once() {
    return { signal: this.#signal, retries: 0 };
  }

  #tell(phase: UploadProgress['phase'], done: number): void {
    this.#options.onProgress?.({ phase, done, total: this.#file.size });
  }
}

/**
 * The SHA-256 of a file in hexadecimal digits. It is read bit by bit, never held whole.
 *
 * @throws the reason of the signal, or a DOMException called NotReadableError if the file changes meanwhile
 */
export async function checksumOf(file: Blob, signal?: AbortSignal): Promise<string> {
  const hash = beginSha256();
  for (let at = 0; at < file.size; at += hashedAtOnce) {
    hash.update(new Uint8Array(await file.slice(at, at + hashedAtOnce).arrayBuffer()));
    signal?.throwIfAborted();
  }
  return [...hash.digest()].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Whether an attempt may succeed later. That includes chunks that were damaged on the way, or arrived too slowly. */
function maySucceed(error: unknown): boolean {
  const isLate = error instanceof DOMException && error.name === 'TimeoutError';
  return (
    isTransient(error) || isLate || isRefused(error, 'UPLOAD_COMPLETING', 'CHUNK_DIGEST_MISMATCH', 'REQUEST_TIMEOUT')
  );
}

/** SHA-256. Browsers have the Web Crypto API only in secure contexts (https, or localhost). */
async function digestOf(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const { subtle } = globalThis.crypto as Partial<typeof globalThis.crypto>;
  if (subtle !== undefined) return new Uint8Array(await subtle.digest('SHA-256', bytes));
  const hash = beginSha256();
  hash.update(bytes);
  return hash.digest();
}
