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
import { passes, pause, waitAfter } from './retries.ts';
import { beginSha256 } from './sha256.ts';
import { b64Encode } from './wire.ts';

/** Why `uploadFile` may be refused. */
export type UploadFileCode = InitiateUploadCode | UploadChunkCode | CompleteUploadCode;

/** How far an upload has come. */
export interface UploadProgress {
  /** What goes on: chunks are sent, or the hub verifies the whole. */
  phase: 'uploading' | 'verifying';
  /** Bytes that the hub has stored. */
  done: number;
  /** Bytes of the file. */
  total: number;
}

/** An upload that was begun, or is gone on with. */
export interface UploadBegun {
  file_id: string;
  chunk_count: number;
  /** How many chunks are still to be uploaded. */
  missing: number;
  /** Whether it was begun before. */
  isResumed: boolean;
  /** Why the upload of this file that was begun before is not gone on with, if there was one. */
  abandoned?: string | undefined;
}

/** Where uploads that are not complete are remembered, such as `localStorage`. What is kept there is no secret. */
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
  /** What the file is called; the File's own name by default. */
  filename?: string;
  /** Its media type; that of the Blob by default. */
  contentType?: string;
  /** Bytes of a chunk; chosen by the hub by default. */
  chunkSize?: number | undefined;
  /** How many chunks are under way at once; 4 by default. */
  parallel?: number;
  /** Whether the chunks go to the hub's store itself, by URLs that the hub signs. */
  direct?: boolean;
  /** With it, an upload that was broken off goes on where it was, also after a crash, when the same file is uploaded again. */
  memory?: UploadMemory;
  /** Milliseconds that a hub, or a network, which is away is waited for; five minutes by default. */
  patience?: number;
  onBegin?(begun: UploadBegun): void;
  /** Told after each chunk. */
  onProgress?(progress: UploadProgress): void;
  /** Told why something is done again, and in how many milliseconds. */
  onRetry?(error: Error, wait: number): void;
  /** Stops the upload, which can be gone on with. */
  signal?: AbortSignal | undefined;
}

const usualPatience = 300_000;
/** How often chunks that the hub misses in the end are uploaded again. */
const mostRounds = 3;
/** Milliseconds that a chunk may take: a minute, and as long as a line takes that is hardly of use. */
const chunkTimeout = (bytes: number) => 60_000 + bytes / 32;
const hashedAtOnce = 4 * 2 ** 20;

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
  /** Aborted when the upload has ended, or its caller gives up. */
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
    // All of the file is read for it, while the chunks are under way.
    const checksum = this.#hash();
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
          // The store may have lost some.
          if (!isRefused(error, 'CHUNKS_MISSING') || round === mostRounds) throw error;
        }
      }
    } catch (error) {
      await this.#forgetIfLost(error, file_id);
      throw error;
    }
  }

  /** Finds the upload that was begun before, or begins one. @returns its file's id */
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

  /** An upload that can go on, or else why it can't. */
  async #lookUp(file_id: string): Promise<GetFileResponse | string> {
    try {
      const found = await this.#patiently(() => this.#client.file.getFile({ file_id }, this.#once()));
      if (found.status === 'failed') return `The upload that was begun before has failed (${found.error})`;
      return found.file_size === this.#file.size ? found : 'The upload that was begun before is of another file';
    } catch (error) {
      // It is gone, or it is somebody else's.
      if (!(error instanceof RefusedError) || (error.status !== 403 && error.status !== 404)) throw error;
      return 'The upload that was begun before is gone';
    }
  }

  /** Uploads the chunks that are missing, several at once. Nothing is under way any more when it has ended. */
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
      // A new URL for each try: the last may have expired.
      const { upload_url } = await this.#client.file.getChunkUploadUrl({ file_id, chunk_id }, this.#once());
      await this.#client.putChunk(upload_url, chunk, options);
      return;
    }
    const bytes = new Uint8Array(await chunk.arrayBuffer());
    const content_digest = `sha-256=:${b64Encode(await digestOf(bytes))}:`;
    await this.#client.uploadChunk({ file_id, chunk_id, content_digest }, bytes, options);
  }

  async #hash(): Promise<string> {
    const hash = beginSha256();
    for (let at = 0; at < this.#file.size; at += hashedAtOnce) {
      hash.update(new Uint8Array(await this.#file.slice(at, at + hashedAtOnce).arrayBuffer()));
      this.#signal.throwIfAborted();
    }
    return [...hash.digest()].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  }

  /** An upload that can't be completed any more is not to be gone on with, nor to count as one of the user's open ones. */
  async #forgetIfLost(error: unknown, file_id: string): Promise<void> {
    const hasChanged = error instanceof DOMException && error.name === 'NotReadableError';
    if (!hasChanged && !isRefused(error, 'CHECKSUM_MISMATCH', 'UPLOAD_FAILED', 'FILE_NOT_FOUND')) return;
    await this.#options.memory?.removeItem(this.#key);
    if (!hasChanged) return;
    try {
      await this.#client.file.deleteFile({ file_id });
    } catch {
      // The hub sweeps it some day.
    }
  }

  /** Does something again and again while it fails for reasons that pass. */
  async #patiently<Result>(attempt: () => Promise<Result>): Promise<Result> {
    const { patience = usualPatience, onRetry } = this.#options;
    let giveUp: number | undefined;
    for (let failures = 1; ; failures += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (this.#signal.aborted || !isPassing(error)) throw error;
        const wait = waitAfter(error, failures);
        giveUp ??= performance.now() + patience;
        if (performance.now() + wait > giveUp) throw error;
        onRetry?.(error as Error, wait);
        await pause(wait, this.#signal);
      }
    }
  }

  /** Repetitions are ours. */
  #once() {
    return { signal: this.#signal, retries: 0 };
  }

  #tell(phase: UploadProgress['phase'], done: number): void {
    this.#options.onProgress?.({ phase, done, total: this.#file.size });
  }
}

/** Also bytes that were garbled on their way, or came too slowly, are sent again. */
function isPassing(error: unknown): boolean {
  const isLate = error instanceof DOMException && error.name === 'TimeoutError';
  return passes(error) || isLate || isRefused(error, 'UPLOAD_COMPLETING', 'CHUNK_DIGEST_MISMATCH', 'REQUEST_TIMEOUT');
}

/** Browsers have the Web Crypto API only on pages that came safely. */
async function digestOf(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const { subtle } = globalThis.crypto as Partial<typeof globalThis.crypto>;
  if (subtle !== undefined) return new Uint8Array(await subtle.digest('SHA-256', bytes));
  const hash = beginSha256();
  hash.update(bytes);
  return hash.digest();
}
