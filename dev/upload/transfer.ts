import { successOf, type Hub } from './hub.ts';
import { send } from './http.ts';
import type { Progress } from './progress.ts';
import type { Source } from './source.ts';

export interface TransferOptions {
  hub: Hub;
  source: Source;
  fileId: string;
  /** Bytes of each chunk but the last. */
  chunkSize: number;
  /** The chunks to upload, by id. */
  missing: readonly number[];
  /** How many chunks are under way at once. */
  parallel: number;
  /** Whether chunks go to URLs of the store itself, instead of through the gateway. */
  direct: boolean;
  progress: Progress;
}

/** A chunk that has arrived may still have to be made durable. Milliseconds. */
const chunkIdle = 120_000;

/**
 * Uploads chunks, each again and again while that fails for reasons that pass.
 *
 * @throws Refusal, ConnectionError, SourceError; nothing is under way any more then
 */
export async function transfer(options: TransferOptions): Promise<void> {
  const stop = new AbortController();
  const queue = options.missing.values();
  const work = async () => {
    for (const chunkId of queue) {
      stop.signal.throwIfAborted();
      await options.hub.patiently(() => uploadChunk(chunkId, options, stop.signal), stop.signal);
    }
  };
  const workers = Array.from({ length: options.parallel }, work);
  try {
    await Promise.all(workers);
  } finally {
    stop.abort();
    await Promise.allSettled(workers);
  }
}

async function uploadChunk(chunkId: number, options: TransferOptions, signal: AbortSignal): Promise<void> {
  const { hub, source, fileId, chunkSize, direct, progress } = options;
  const start = chunkId * chunkSize;
  const end = Math.min(start + chunkSize, source.size);
  const path = `/v1/files/upload?file_id=${fileId}&chunk_id=${chunkId}`;
  let sent = 0;
  const read = () =>
    source.read(start, end).on('data', (piece: Buffer) => {
      sent += piece.length;
      progress.add(piece.length);
    });
  const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': end - start };

  await source.requireUnchanged();
  try {
    if (direct) {
      // A new one for each attempt: the last may have expired.
      const { upload_url: url } = await hub.once<{ upload_url: string }>('PATCH', path, { json: {}, signal });
      const body = read();
      successOf(await send({ method: 'PUT', url: new URL(url), headers, body, idle: chunkIdle, signal }));
    } else {
      const digest = { 'Content-Digest': await source.digest(start, end) };
      await hub.once('PATCH', path, { headers: { ...headers, ...digest }, body: read(), idle: chunkIdle, signal });
    }
  } catch (error) {
    progress.add(-sent);
    await source.requireUnchanged();
    throw error;
  }
}
