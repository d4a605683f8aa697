import { signal } from '@preact/signals';
import type { UploadMemory } from '#client';
import { wordsFor } from '../shell/errors.ts';
import { newId } from '../shell/ids.ts';
import { client, nameOfMine } from '../shell/session.ts';
import { kept } from '../shell/storage.ts';
import { checksumInWorker } from './checksums.ts';
import { send } from './outbox.ts';

/**
 * Files on their way to the hub. A file whose upload is complete is sent as a message. After a reload the browser does not give the file back:
 * the upload goes on once the same file is chosen again.
 */

export interface Upload {
  id: string;
  conversation: string;
  channels: readonly string[];
  name: string;
  size: number;
  lastModified: number;
  /** `paused`: by its user, or since the page was loaded anew; `failed`: see `reason`. */
  state: 'uploading' | 'verifying' | 'paused' | 'failed';
  /** Bytes that the hub has. */
  done: number;
  reason?: string;
}

export const uploads = signal<readonly Upload[]>([]);

/** What can't be kept: the files themselves, and what stops their uploads. */
const files = new Map<string, File>();
const stops = new Map<string, AbortController>();

/** Connections at once: with the stream of events, the browser's six are then not all taken. */
const parallel = 3;

const keptName = (id: string) => nameOfMine(`upload.${id}`);

const keptFileName = (id: string) => nameOfMine(`uploaded.${id}`);

/** Where the client remembers the id that an upload has at the hub. Each has a memory of its own, so its key says nothing more. */
function memoryOf(id: string): UploadMemory {
  return {
    getItem: () => (kept.get(keptFileName(id)) as string | undefined) ?? null,
    setItem: (_key, value) => kept.set(keptFileName(id), value),
    removeItem: () => kept.set(keptFileName(id), undefined),
  };
}

/** Uploads a file, and sends it. One that was begun before a reload goes on. */
export function upload(conversation: string, channels: readonly string[], file: File): void {
  const { name, size, lastModified } = file;
  const earlier = uploads
    .peek()
    .find((each) => each.conversation === conversation && isFileOf(each, file) && !files.has(each.id));
  const entry: Upload = earlier ?? {
    id: newId(),
    conversation,
    channels,
    name,
    size,
    lastModified,
    state: 'paused',
    done: 0,
  };
  if (earlier === undefined) uploads.value = [...uploads.peek(), entry];
  kept.set(keptName(entry.id), entry);
  files.set(entry.id, file);
  resume(entry.id);
}

/** Whether it is the file that an upload was begun with. */
export function isFileOf(upload: Upload, { name, size, lastModified }: File): boolean {
  return upload.name === name && upload.size === size && upload.lastModified === lastModified;
}

/** Whether an upload can go on without its file being chosen again. */
export function hasFile(id: string): boolean {
  return files.has(id);
}

export function pause(id: string): void {
  stops.get(id)?.abort();
  change(id, { state: 'paused' });
}

export function resume(id: string): void {
  const file = files.get(id);
  if (file === undefined || stops.has(id)) return;
  const stop = new AbortController();
  stops.set(id, stop);
  change(id, { state: 'uploading', reason: undefined });
  void run(id, file, stop.signal).finally(() => stops.delete(id));
}

/** Ends an upload, and forgets it here and at the hub. */
export function cancel(id: string): void {
  stops.get(id)?.abort();
  const file_id = kept.get(keptFileName(id)) as string | undefined;
  forget(id);
  // The hub ends idle uploads by itself.
  if (file_id !== undefined) client.file.deleteFile({ file_id }).catch(() => {});
}

/** Finds uploads that a reload has interrupted. */
export function startUploads(): void {
  uploads.value = kept
    .names(nameOfMine('upload.'))
    .map((name) => ({ ...(kept.get(name) as Upload), state: 'paused', done: 0 }));
}

async function run(id: string, file: File, signal: AbortSignal): Promise<void> {
  try {
    const { file_id, filename, file_size } = await client.uploadFile(file, {
      memory: memoryOf(id),
      parallel,
      signal,
      checksum: checksumInWorker,
      contentType: file.type || 'application/octet-stream',
      onProgress: ({ phase, done }) => change(id, { state: phase, done }),
    });
    const { conversation, channels } = uploads.peek().find((each) => each.id === id)!;
    forget(id);
    const payload = { type: 'file', file_id } as const;
    send({ conversation_id: conversation, channels: [...channels], payload }, { name: filename, size: file_size });
  } catch (error) {
    if (!signal.aborted) change(id, { state: 'failed', reason: wordsFor(error) });
  }
}

function forget(id: string): void {
  uploads.value = uploads.peek().filter((each) => each.id !== id);
  kept.set(keptName(id), undefined);
  kept.set(keptFileName(id), undefined);
  files.delete(id);
}

function change(id: string, changes: { [Name in keyof Upload]?: Upload[Name] | undefined }): void {
  uploads.value = uploads.peek().map((each) => (each.id === id ? ({ ...each, ...changes } as Upload) : each));
}
