import { Refusal, type Hub } from './hub.ts';
import type { Memory, Upload, UploadKey } from './memory.ts';
import type { Progress } from './progress.ts';
import { SourceError, type Source } from './source.ts';
import { transfer } from './transfer.ts';

/** A file as the hub describes it. */
interface UploadedFile {
  file_id: string;
  status: 'initiated' | 'in_progress' | 'completed' | 'failed';
  error: string;
  checksum: string;
  chunk_size: number;
  chunk_count: number;
  missing_chunks: number[];
  received_bytes: number;
  download_url: string | null;
}

export interface UploadOptions {
  hub: Hub;
  source: Source;
  memory: Memory;
  key: UploadKey;
  progress: Progress;
  /** Bytes; undefined leaves it to the hub. */
  chunkSize: number | undefined;
  parallel: number;
  direct: boolean;
}

/** Of a file of 2 GiB all is read once more. Milliseconds. */
const completeIdle = 330_000;
/** How often chunks that the hub misses in the end are uploaded again. */
const mostRounds = 3;

/**
 * Uploads a file, or what of it isn't there yet, until the hub has verified it.
 *
 * @returns what was remembered of it, and the file as the hub has it now
 * @throws Refusal, ConnectionError, SourceError
 */
export async function uploadFile(options: UploadOptions): Promise<{ upload: Upload; file: UploadedFile }> {
  const { hub, source, progress } = options;
  const upload = (await resume(options)) ?? (await begin(options));
  try {
    for (let round = 1; ; round++) {
      const file = await hub.call<UploadedFile>('GET', `/v1/files/${upload.fileId}`);
      if (file.status === 'completed') return { upload, file };
      progress.begin('Uploading', source.size, file.received_bytes);
      const { chunk_size: chunkSize, missing_chunks: missing } = file;
      await transfer({ ...options, fileId: upload.fileId, chunkSize, missing });
      progress.end();
      await source.requireUnchanged();
      try {
        const { fileId: file_id, checksum } = upload;
        progress.note('Waiting until the hub has verified it');
        await hub.call('POST', '/v1/files/complete', { json: { file_id, checksum }, idle: completeIdle });
      } catch (error) {
        // The store may have lost some.
        if (!isRefusal(error, 'CHUNKS_MISSING') || round === mostRounds) throw error;
        progress.note(error.message);
      }
    }
  } catch (error) {
    await giveUpIfLost(error as Error, options, upload);
    throw error;
  }
}

/** An upload that can't be completed any more is not to be gone on with. */
async function giveUpIfLost(error: Error, { hub, memory, key }: UploadOptions, upload: Upload): Promise<void> {
  const hasChanged = error instanceof SourceError;
  if (!hasChanged && !isRefusal(error, 'CHECKSUM_MISMATCH', 'UPLOAD_FAILED', 'FILE_NOT_FOUND')) return;
  await memory.forget(key);
  if (hasChanged) await discard(hub, upload);
}

/** The upload of this file that was begun before, if it can go on or is complete. */
async function resume(options: UploadOptions): Promise<Upload | undefined> {
  const { hub, source, memory, key, progress } = options;
  const upload = await memory.find(key);
  if (upload === undefined) return undefined;
  const file = await lookUp(hub, upload);
  const isOpen = file?.status === 'initiated' || file?.status === 'in_progress';
  const hasChanged = upload.size !== source.size || upload.mtime !== source.mtime;
  const obstacle = hasChanged
    ? 'The file was changed since its upload was begun'
    : file === undefined
      ? 'The upload that was begun before is gone'
      : file.status === 'failed'
        ? `The upload that was begun before has failed (${file.error})`
        : undefined;
  if (obstacle !== undefined) {
    progress.note(`${obstacle}: beginning anew`);
    await memory.forget(key);
    if (isOpen) await discard(hub, upload);
    return undefined;
  }
  const there = (file?.chunk_count ?? 0) - (file?.missing_chunks.length ?? 0);
  progress.note(
    isOpen
      ? `Going on with the upload that was begun before: ${there} of ${file.chunk_count} chunks are there`
      : 'It was uploaded before',
  );
  return upload;
}

/** The file as the hub has it; undefined if it has none, or it is somebody else's by now. */
async function lookUp(hub: Hub, { fileId }: Upload): Promise<UploadedFile | undefined> {
  try {
    return await hub.call<UploadedFile>('GET', `/v1/files/${fileId}`);
  } catch (error) {
    if (error instanceof Refusal && (error.status === 403 || error.status === 404)) return undefined;
    throw error;
  }
}

/** Ends an upload, as far as that is possible: else it would count as one of the user's open ones for a day. */
async function discard(hub: Hub, { fileId }: Upload): Promise<void> {
  await hub.once('DELETE', `/v1/files/${fileId}`).catch(() => {});
}

async function begin({ hub, source, memory, key, progress, chunkSize }: UploadOptions): Promise<Upload> {
  progress.begin('Hashing', source.size);
  const checksum = await source.hash((count) => progress.add(count));
  progress.end();
  await source.requireUnchanged();
  const { size, mtime } = source;
  const json = { filename: source.name, file_size: size, checksum, chunk_size: chunkSize };
  const { file_id: fileId } = await hub.call<{ file_id: string }>('POST', '/v1/files/initiate', { json });
  const upload = { ...key, size, mtime, checksum, fileId, messages: {}, begunAt: Date.now() };
  await memory.keep(upload);
  return upload;
}

function isRefusal(error: unknown, ...codes: string[]): error is Refusal {
  return error instanceof Refusal && codes.includes(error.code);
}
