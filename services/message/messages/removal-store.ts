import type { Database } from '#lib/database.ts';

/** Removes messages at the end of their retention. */
export function openRemoval(database: Database) {
  return {
    /**
     * Removes at most `limit` ended messages that were accepted before `moment`, oldest first, with all their data. Open ones stay.
     *
     * @returns how many were removed
     */
    async remove(moment: Date, limit: number): Promise<number> {
      const [row] = await database.sql<{ removed: bigint }>(
        `with old as (
          select message_id, conversation_id, seq from messages
            where created_at < $1 and status in ('delivered', 'failed')
            order by created_at limit $2 for update skip locked
        ), heads as (
          update conversation_heads h set first_seq = greatest(h.first_seq, o.last + 1)
            from (select conversation_id, max(seq) as last from old group by conversation_id) as o
            where h.conversation_id = o.conversation_id
        ), ledger as (
          delete from deliveries d using old where d.message_id = old.message_id
        ), history as (
          delete from status_changes h using old where h.message_id = old.message_id
        ), event as (
          -- Of one that ended before the bus could be told of it.
          delete from outbox o using old where o.message_id = old.message_id
        ), removed as (
          delete from messages m using old where m.message_id = old.message_id
        ), noted as (
          insert into removals as r (name, before) select 'messages', $1 where exists (select from old)
            on conflict (name) do update set before = greatest(r.before, excluded.before)
        )
        select count(*) as removed from old`,
        [moment, limit],
      );
      return Number(row!.removed);
    },
  };
}
