import { defineEntity, p } from '@mikro-orm/core';
import type { Database, DatabaseDefinition } from '#lib/database.ts';
import type { Route } from './router.ts';

const RouteEntity = defineEntity({
  name: 'Route',
  tableName: 'routes',
  properties: {
    messageId: p.uuid().primary(),
    conversationId: p.uuid(),
    recipientIds: p.array().columnType('uuid[]'),
    channels: p.array(),
    routedAt: p.datetime(3),
    rejectedReason: p.text().nullable(),
  },
});

export const database: DatabaseDefinition = {
  schema: 'router',
  entities: [RouteEntity],
  migrations: async () => [{ name: '0001-routes', class: (await import('./migrations/0001-routes.ts')).Routes }],
};

export type Store = ReturnType<typeof openStore>;

/** The queries of the router. */
export function openStore(db: Database) {
  return {
    /**
     * Records decisions, at most one for each message. The first one for a message stands.
     *
     * @returns the one that stands, for each message
     */
    async record(decisions: readonly Route[]): Promise<Map<string, Route>> {
      // An update that changes nothing, so that a decision of earlier comes back as well, also one committed just now.
      const standing = await db.sql<Route>(
        `insert into routes (message_id, conversation_id, recipient_ids, channels, routed_at, rejected_reason)
         select "messageId", "conversationId", "recipientIds", channels, "routedAt", "rejectedReason"
           from json_to_recordset($1) as decision ("messageId" uuid, "conversationId" uuid, "recipientIds" uuid[],
                                                   channels text[], "routedAt" timestamptz, "rejectedReason" text)
          order by "messageId"
         on conflict (message_id) do update set message_id = excluded.message_id
         returning message_id as "messageId", conversation_id as "conversationId", recipient_ids::text[] as "recipientIds",
                   channels, routed_at as "routedAt", rejected_reason as "rejectedReason"`,
        [JSON.stringify(decisions)],
      );
      return new Map(standing.map((route) => [route.messageId, route]));
    },

    async find(messageId: string): Promise<Route | undefined> {
      const found = await db.entities((em) => em.findOne(RouteEntity, { messageId }));
      return (found as Route | null) ?? undefined;
    },
  };
}
