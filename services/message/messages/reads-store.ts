import type { Database } from '#lib/database.ts';
import { addToOutbox } from '#lib/database-outbox.ts';
import { readEvent } from './wire.ts';

/** Up to which position somebody has read a conversation. */
export interface ReadPosition {
  userId: string;
  seq: number;
  at: Date;
}

export type Reads = ReturnType<typeof openReads>;

/** How far members have read. */
export function openReads(database: Database) {
  return {
    /** Moves the position of a reader on, never back. @returns where it is then, and whether it has moved */
    async moveOn(
      conversationId: string,
      { userId, seq, at }: ReadPosition,
      requestId: string,
    ): Promise<{ seq: number; isNew: boolean }> {
      return database.transaction(async (transaction) => {
        const [moved] = await transaction.sql(
          `insert into reads as r (conversation_id, user_id, seq, at) values ($1, $2, $3, $4)
            on conflict (conversation_id, user_id) do update set seq = excluded.seq, at = excluded.at where r.seq < excluded.seq
            returning 1`,
          [conversationId, userId, seq, at],
        );
        if (moved !== undefined) {
          addToOutbox(transaction, [readEvent(conversationId, { userId, seq, at }, requestId)]);
          return { seq, isNew: true };
        }
        const [known] = await transaction.sql<{ seq: bigint }>(
          'select seq from reads where conversation_id = $1 and user_id = $2',
          [conversationId, userId],
        );
        return { seq: Number(known!.seq), isNew: false };
      });
    },

    /** The positions of those who have said how far they have read: one for each at most. */
    async of(conversationId: string): Promise<ReadPosition[]> {
      const rows = await database.sql<{ user_id: string; seq: bigint; at: Date }>(
        'select user_id, seq, at from reads where conversation_id = $1',
        [conversationId],
      );
      return rows.map(({ user_id: userId, seq, at }) => ({ userId, seq: Number(seq), at }));
    },
  };
}
