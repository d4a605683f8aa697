import { hubDate } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';

/** Which conversations files were sent to. */
export function openShares(db: Database) {
  return {
    /** Records that a file is sent to a conversation. @returns false if it is not completed, or gone */
    async share(fileId: string, conversationId: string): Promise<boolean> {
      // The lock makes a concurrent deletion wait.
      const rows = await db.sql(
        `with file as (select file_id from files where file_id = $1 and status = 'completed' for share)
          insert into shares as s (file_id, conversation_id, shared_at) select file_id, $2, $3 from file
            on conflict (file_id, conversation_id) do update set shared_at = greatest(s.shared_at, excluded.shared_at)
          returning 1`,
        [fileId, conversationId, hubDate()],
      );
      return rows.length > 0;
    },

    /** The ids of the conversations that a file was sent to, in order, after `after`, `limit` at most. */
    async sharedWith(fileId: string, after: string, limit: number): Promise<string[]> {
      const rows = await db.sql<{ conversationId: string }>(
        `select conversation_id as "conversationId" from shares
          where file_id = $1 and conversation_id > $2 order by conversation_id limit $3`,
        [fileId, after, limit],
      );
      return rows.map((row) => row.conversationId);
    },

    /** The ids of files with a share from before `before`, `limit` at most. */
    async lapsed(before: Date, limit: number): Promise<string[]> {
      const rows = await db.sql<{ fileId: string }>(
        `select distinct file_id as "fileId" from (
            select file_id from shares where shared_at < $1 order by shared_at limit $2
          ) as oldest`,
        [before, limit],
      );
      return rows.map(({ fileId }) => fileId);
    },
  };
}
