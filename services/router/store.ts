import type { Database } from '#lib/database.ts';
import type { Route } from './router.ts';

export type Store = ReturnType<typeof openStore>;

/** The queries of the router. */
export function openStore(db: Database) {
  return {
    /**
     * Records decisions, at most one for each round of a message. The first one for a round stands.
     *
     * @returns the decisions that stand, by `keyOf`
     */
    async record(decisions: readonly Route[]): Promise<Map<string, Route>> {
      // An update that changes nothing, so that earlier decisions are returned as well, also ones that were committed just now.
      const recorded = await db.sql<Route>(
        `insert into routes (message_id, replay, conversation_id, recipient_ids, channels, routed_at, rejected_reason, targets)
         select "messageId", replay, "conversationId", "recipientIds", channels, "routedAt", "rejectedReason", targets
           from json_to_recordset($1) as decision ("messageId" uuid, replay int, "conversationId" uuid,
                                                   "recipientIds" uuid[], channels text[], "routedAt" timestamptz,
                                                   "rejectedReason" text, targets jsonb)
          order by "messageId", replay
         on conflict (message_id, replay) do update set message_id = excluded.message_id
         returning message_id as "messageId", replay, conversation_id as "conversationId",
                   recipient_ids::text[] as "recipientIds", channels, routed_at as "routedAt",
                   rejected_reason as "rejectedReason", targets`,
        [JSON.stringify(decisions)],
      );
      return new Map(recorded.map((route) => [keyOf(route), route]));
    },

    /** The decision for the last round of a message. */
    async find(messageId: string): Promise<Route | undefined> {
      const { Route: entity } = await import('./entities.ts');
      const found = await db.entities((em) => em.findOne(entity, { messageId }, { orderBy: { replay: 'desc' } }));
      return (found as Route | null) ?? undefined;
    },
  };
}

/** The key of a decision: one round of a message. */
export function keyOf({ messageId, replay }: { messageId: string; replay: number }): string {
  return `${messageId}/${replay}`;
}
