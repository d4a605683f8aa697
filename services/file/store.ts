import { hubDate } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { addToOutbox } from '#lib/database-outbox.ts';
import type { File, Status } from './file.ts';
import { openRemovals, remove, type Lease } from './removals-store.ts';
import { openShares } from './shares-store.ts';
import { completedEvent } from './wire.ts';

/** A new file. */
export type NewFile = Omit<File, 'status' | 'error' | 'uploadId' | 'checksum' | 'completingUntil' | 'updatedAt'>;

export interface Chunk {
  chunkId: number;
  /** Bytes. */
  size: number;
  uploadedAt: Date;
}

export type Store = ReturnType<typeof openStore>;

/**
 * An upload that is not opened after this belongs to a process that died, and doesn't count as open. It is swept like any upload without
 * activity.
 */
const unopened = `interval '1 minute'`;
const open = `status in ('initiated', 'in_progress')`;
const columns = `file_id as "fileId", owner_id as "ownerId", filename, file_size::float8 as "fileSize",
  content_type as "contentType", expected_checksum as "expectedChecksum", chunk_size as "chunkSize",
  chunk_count as "chunkCount", status, error, upload_id as "uploadId", checksum, completing_until as "completingUntil",
  created_at as "createdAt", updated_at as "updatedAt"`;

/**
 * The queries of the file service. Contents that become useless are recorded in `removals` in the same transaction, so that nothing is left
 * behind however this process ends.
 *
 * A file's own upload is stored under the file's id. Files with the same content share one object, that of the first of them.
 */
export function openStore(db: Database) {
  return {
    ...openRemovals(db),
    ...openShares(db),

    /** Inserts a new file, unless its owner has `limit` open uploads. @returns false if that is so */
    async begin(file: NewFile, limit: number): Promise<boolean> {
      return db.transaction(async ({ sql }) => {
        // Serialises the concurrent uploads of an owner, so that the count is right.
        await sql('select pg_advisory_xact_lock(hashtextextended($1, 0))', [file.ownerId]);
        const begun = await sql(
          `insert into files (file_id, owner_id, filename, file_size, content_type, expected_checksum, chunk_size,
              chunk_count, status, error, created_at, updated_at)
            select $1, $2, $3, $4, $5, $6, $7, $8, 'initiated', '', $9, $9
              where (select count(*) from files where owner_id = $2 and ${open}
                and (upload_id is not null or created_at > now() - ${unopened})) < $10
            returning 1`,
          [
            file.fileId,
            file.ownerId,
            file.filename,
            file.fileSize,
            file.contentType,
            file.expectedChecksum,
            file.chunkSize,
            file.chunkCount,
            file.createdAt,
            limit,
          ],
        );
        return begun.length > 0;
      });
    },

    /** Records that the upload was opened in the store. @returns false if the file is not open any more */
    async opened(fileId: string, uploadId: string): Promise<boolean> {
      const rows = await db.sql(`update files set upload_id = $2 where file_id = $1 and ${open} returning 1`, [
        fileId,
        uploadId,
      ]);
      return rows.length > 0;
    },

    /**
     * Deletes a file whose upload could not be opened. A store that was disconnected or frozen may open it after the removal has looked, so
     * the removal looks twice.
     *
     * @param isOpened `never` if the request was certainly not sent: then there is nothing to remove
     */
    async forget(fileId: string, isOpened: 'perhaps' | 'never'): Promise<void> {
      await db.transaction(async (transaction) => {
        await transaction.sql('delete from files where file_id = $1', [fileId]);
        if (isOpened === 'perhaps') await remove(transaction, [fileId], 'twice');
      });
    },

    async find(fileId: string): Promise<File | undefined> {
      const [found] = await db.sql<File>(`select ${columns} from files where file_id = $1`, [fileId]);
      return found;
    },

    async chunks(fileId: string): Promise<Chunk[]> {
      return chunksOf(db, fileId);
    },

    /**
     * Records that the store has a chunk.
     *
     * @returns all recorded chunks; undefined if the file is not open any more: then the stored chunk is removed again
     */
    async recordChunk(fileId: string, chunk: Chunk): Promise<Chunk[] | undefined> {
      return db.transaction(async (transaction) => {
        const touched = await transaction.sql(
          `update files set status = 'in_progress', updated_at = greatest(updated_at, $2)
            where file_id = $1 and ${open} returning 1`,
          [fileId, chunk.uploadedAt],
        );
        if (touched.length === 0) {
          const [used] = await transaction.sql('select from contents where storage_key = $1', [fileId]);
          if (used === undefined) await remove(transaction, [fileId]);
          return undefined;
        }
        await putChunks(transaction, fileId, [chunk]);
        return chunksOf(transaction, fileId);
      });
    },

    /** Replaces the recorded chunks by those that the store listed at `asked`, if the file is open. */
    async reconcile(fileId: string, chunks: readonly Chunk[], asked: Date): Promise<void> {
      await db.transaction(async (transaction) => {
        const latest = new Date(Math.max(0, ...chunks.map((chunk) => chunk.uploadedAt.getTime())));
        const touched = await transaction.sql(
          `update files set status = case when $3 then 'in_progress' else status end,
              updated_at = greatest(updated_at, $2)
            where file_id = $1 and ${open} returning 1`,
          [fileId, latest, chunks.length > 0],
        );
        if (touched.length === 0) return;
        const there = chunks.map((chunk) => chunk.chunkId);
        await transaction.sql(
          'delete from chunks where file_id = $1 and uploaded_at < $3 and chunk_id <> all($2::int[])',
          [fileId, there, asked],
        );
        await putChunks(transaction, fileId, chunks);
      });
    },

    /** Acquires or renews the lease to complete an upload. @returns false while another process has it, or the upload isn't open */
    async holdCompletion(fileId: string, lease: Lease): Promise<boolean> {
      const rows = await db.sql(
        `update files set completing_by = $2, completing_until = now() + $3 * interval '1 millisecond'
          where file_id = $1 and ${open}
            and (completing_by = $2 or completing_until is null or completing_until < now())
          returning 1`,
        [fileId, lease.by, lease.ms],
      );
      return rows.length > 0;
    },

    async releaseCompletion(fileId: string, by: string): Promise<void> {
      await db.sql(
        `update files set completing_by = null, completing_until = null where file_id = $1 and completing_by = $2`,
        [fileId, by],
      );
    },

    /** The content with a checksum, if there is one. */
    async findContent(checksum: string): Promise<{ storageKey: string; size: number } | undefined> {
      const [found] = await db.sql<{ storageKey: string; size: number }>(
        `select storage_key as "storageKey", size::float8 as size from contents where checksum = $1`,
        [checksum],
      );
      return found;
    },

    /**
     * Completes a verified file. If another file has the same content, they share its object, and this file's own is removed.
     *
     * @param lost the key of the object that is recorded for this checksum but is not in the store any more: this file's own replaces it
     *   for all files
     * @returns false if `by` has lost the lease to complete it
     */
    async complete(fileId: string, by: string, checksum: string, lost: string | undefined): Promise<boolean> {
      return db.transaction(async (transaction) => {
        const { sql } = transaction;
        const mine = await sql<{ size: bigint; ownerId: string; filename: string; contentType: string }>(
          `select file_size as size, owner_id as "ownerId", filename, content_type as "contentType" from files where file_id = $1 and completing_by = $2 and ${open} for update`,
          [fileId, by],
        );
        if (mine.length === 0) return false;
        const now = hubDate();
        // An update even if nothing changes, so that the row is locked against deletion and returned.
        const [content] = await sql<{ storageKey: string }>(
          `insert into contents as c (checksum, storage_key, size, created_at) values ($1, $2, $3, $4)
            on conflict (checksum) do update
              set storage_key = case when c.storage_key = $5 then excluded.storage_key else c.storage_key end
            returning storage_key as "storageKey"`,
          [checksum, fileId, mine[0]?.size, now, lost ?? null],
        );
        if (content?.storageKey !== fileId) await remove(transaction, [fileId]);
        await sql(
          `update files set status = 'completed', checksum = $2, completing_by = null, completing_until = null,
              upload_id = null, updated_at = $3
            where file_id = $1`,
          [fileId, checksum, now],
        );
        await sql('delete from chunks where file_id = $1', [fileId]);
        addToOutbox(transaction, [completedEvent({ fileId, ...mine[0]!, at: now })]);
        return true;
      });
    },

    /**
     * Fails an open upload and removes what was stored of it.
     *
     * @param by the process that completes it; without it, only an upload that no process is completing is failed
     * @returns whether it was open
     */
    async fail(fileId: string, error: string, by?: string): Promise<boolean> {
      return db.transaction(async (transaction) => {
        const failed = await transaction.sql(
          `update files set status = 'failed', error = $2, completing_by = null, completing_until = null, upload_id = null,
              updated_at = $4
            where file_id = $1 and ${open}
              and (completing_by = $3 or completing_until is null or completing_until < now())
            returning 1`,
          [fileId, error, by ?? null, hubDate()],
        );
        if (failed.length === 0) return false;
        await transaction.sql('delete from chunks where file_id = $1', [fileId]);
        await remove(transaction, [fileId]);
        return true;
      });
    },

    /**
     * Deletes a completed or failed file that was not sent.
     *
     * @param lapsed shares from before this moment are ended first
     * @returns why it can't be deleted, or `deleted`
     */
    async delete(fileId: string, lapsed?: Date): Promise<'deleted' | 'sent' | 'open'> {
      return db.transaction(async (transaction) => {
        const { sql } = transaction;
        const [file] = await sql<{ status: Status; checksum: string | null }>(
          'select status, checksum from files where file_id = $1 for update',
          [fileId],
        );
        if (file === undefined) return 'deleted';
        if (file.status !== 'completed' && file.status !== 'failed') return 'open';
        if (lapsed !== undefined)
          await sql('delete from shares where file_id = $1 and shared_at < $2', [fileId, lapsed]);
        const sent = await sql('select from shares where file_id = $1 limit 1', [fileId]);
        if (sent.length > 0) return 'sent';
        if (file.checksum !== null) await sql('select from contents where checksum = $1 for update', [file.checksum]);
        await sql('delete from files where file_id = $1', [fileId]);
        const unused = await sql<{ storageKey: string }>(
          `delete from contents where checksum = $1 and not exists (select from files where checksum = $1)
            returning storage_key as "storageKey"`,
          [file.checksum],
        );
        await remove(
          transaction,
          unused.map(({ storageKey }) => storageKey),
        );
        return 'deleted';
      });
    },

    /** Open uploads without activity since `before`, the oldest first. */
    async idle(before: Date, limit: number): Promise<File[]> {
      return db.sql<File>(
        `select ${columns} from files where ${open} and updated_at < $1
          and (completing_until is null or completing_until < now())
          order by updated_at limit $2`,
        [before, limit],
      );
    },
  };
}

function chunksOf({ sql }: SqlTransaction, fileId: string): Promise<Chunk[]> {
  return sql<Chunk>(
    `select chunk_id as "chunkId", size::float8 as size, uploaded_at as "uploadedAt" from chunks
      where file_id = $1 order by chunk_id`,
    [fileId],
  );
}

async function putChunks({ sql }: SqlTransaction, fileId: string, chunks: readonly Chunk[]): Promise<void> {
  await sql(
    `insert into chunks (file_id, chunk_id, size, uploaded_at)
      select $1, * from unnest($2::int[], $3::bigint[], $4::timestamptz[])
      on conflict (file_id, chunk_id) do update set size = excluded.size, uploaded_at = excluded.uploaded_at`,
    [
      fileId,
      chunks.map((chunk) => chunk.chunkId),
      chunks.map((chunk) => chunk.size),
      chunks.map((chunk) => chunk.uploadedAt),
    ],
  );
}
