import { randomUUID } from 'node:crypto';
import { FileCompleted } from '#gen/chat4all/file/v1/events.ts';
import { eventTypes, topics } from '#gen/events.ts';
import { currentContext } from '#lib/context.ts';
import type { OutboxEvent } from '#lib/database-outbox.ts';
import {
  FileStatus,
  type CompleteUploadResponse,
  type GetFileResponse,
  type InitiateUploadResponse,
} from '#gen/chat4all/file/v1/file.ts';
import type { File, Progress, Status } from './file.ts';
import { encode } from '#lib/encode.ts';

const statuses: Record<Status, FileStatus> = {
  initiated: FileStatus.FILE_STATUS_INITIATED,
  in_progress: FileStatus.FILE_STATUS_IN_PROGRESS,
  completed: FileStatus.FILE_STATUS_COMPLETED,
  failed: FileStatus.FILE_STATUS_FAILED,
};

export interface ShownFile {
  file: File;
  /** Milliseconds without activity after which an upload is aborted. */
  lifetime: number;
  /** URL of the gateway, without a slash at the end. */
  origin: string;
}

function expiry({ file, lifetime }: ShownFile): Date | undefined {
  return isOpen(file) ? new Date(file.updatedAt.getTime() + lifetime) : undefined;
}

export function isOpen({ status }: Pick<File, 'status'>): boolean {
  return status === 'initiated' || status === 'in_progress';
}

function downloadUrl({ file, origin }: ShownFile): string {
  return `${origin}/v1/files/${file.fileId}/content`;
}

export function initiated(shown: ShownFile, uploadUrl: string | undefined): InitiateUploadResponse {
  const { fileId, chunkSize, chunkCount, status } = shown.file;
  return { fileId, uploadUrl, chunkSize, chunkCount, expiresAt: expiry(shown), status: statuses[status] };
}

export function completed(shown: ShownFile): CompleteUploadResponse {
  const { fileId, status, filename, fileSize, checksum } = shown.file;
  return {
    fileId,
    status: statuses[status],
    filename,
    fileSize: BigInt(fileSize),
    checksum: checksum ?? '',
    downloadUrl: downloadUrl(shown),
  };
}

export function described(shown: ShownFile, { missing, receivedBytes }: Progress): GetFileResponse {
  const { file } = shown;
  return {
    fileId: file.fileId,
    ownerId: file.ownerId,
    filename: file.filename,
    fileSize: BigInt(file.fileSize),
    contentType: file.contentType,
    checksum: file.checksum ?? '',
    status: statuses[file.status],
    error: file.error,
    chunkSize: file.chunkSize,
    chunkCount: file.chunkCount,
    missingChunks: missing,
    receivedBytes: BigInt(receivedBytes),
    createdAt: file.createdAt,
    updatedAt: file.updatedAt,
    expiresAt: expiry(shown),
    downloadUrl: file.status === 'completed' ? downloadUrl(shown) : undefined,
  };
}

/** That the upload of a file is complete. */
export function completedEvent(file: {
  fileId: string;
  ownerId: string;
  filename: string;
  /** Bytes. */
  size: bigint;
  contentType: string;
  at: Date;
}): OutboxEvent {
  const { fileId, size, ...about } = file;
  return {
    topic: topics.fileChanges,
    id: randomUUID(),
    type: eventTypes.FileCompleted,
    key: fileId,
    value: encode(FileCompleted, { fileId, fileSize: size, ...about }),
    requestId: currentContext()?.requestId ?? fileId,
  };
}
