import { defineEntity, p } from '@mikro-orm/core';
import { OutboxEvent } from '#lib/database-outbox-entity.ts';
import type { Status } from './file.ts';

const Content = defineEntity({
  name: 'Content',
  tableName: 'contents',
  properties: {
    checksum: p.text().primary(),
    storageKey: p.text(),
    size: p.bigint('number'),
    createdAt: p.datetime(3),
  },
});

const File = defineEntity({
  name: 'FileMetadata',
  tableName: 'files',
  checks: [{ name: 'files_status_check', expression: `status in ('initiated', 'in_progress', 'completed', 'failed')` }],
  indexes: [
    { name: 'files_open_owner_index', properties: ['ownerId'], where: `status in ('initiated', 'in_progress')` },
    { name: 'files_open_index', properties: ['updatedAt'], where: `status in ('initiated', 'in_progress')` },
  ],
  properties: {
    fileId: p.uuid().primary(),
    ownerId: p.uuid(),
    filename: p.text(),
    fileSize: p.bigint('number'),
    contentType: p.text(),
    expectedChecksum: p.text().nullable(),
    chunkSize: p.integer(),
    chunkCount: p.integer(),
    status: p.text().$type<Status>(),
    error: p.text(),
    uploadId: p.text().nullable(),
    checksum: () =>
      p
        .manyToOne(Content)
        .fieldName('checksum')
        .mapToPk()
        .nullable()
        .deleteRule('no action')
        .index('files_checksum_index'),
    completingBy: p.uuid().nullable(),
    completingUntil: p.datetime(3).nullable(),
    createdAt: p.datetime(3),
    updatedAt: p.datetime(3),
  },
});

const Chunk = defineEntity({
  name: 'FileChunk',
  tableName: 'chunks',
  properties: {
    fileId: () => p.manyToOne(File).fieldName('file_id').mapToPk().primary().deleteRule('cascade'),
    chunkId: p.integer().primary(),
    size: p.bigint('number'),
    uploadedAt: p.datetime(3),
  },
});

const Share = defineEntity({
  name: 'Share',
  tableName: 'shares',
  properties: {
    fileId: () => p.manyToOne(File).fieldName('file_id').mapToPk().primary(),
    conversationId: p.uuid().primary(),
    /** When it was last sent there. */
    sharedAt: p.datetime(3).index('shares_shared_at_index'),
  },
});

const Removal = defineEntity({
  name: 'Removal',
  tableName: 'removals',
  properties: {
    storageKey: p.text().primary(),
    dueAt: p.datetime(3),
    again: p.boolean().default(false),
    heldBy: p.uuid().nullable(),
    heldUntil: p.datetime(3).nullable(),
    attempts: p.integer().default(0),
  },
});

export const entities = [Content, File, Chunk, Share, Removal, OutboxEvent];
