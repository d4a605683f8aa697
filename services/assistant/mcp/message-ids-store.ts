import { v5 as namedUuid } from 'uuid';
import type { Database } from '#lib/database.ts';

/**
 * Names the message that a call of the assistant sends, by the id of that call (UUID version 5): a call that is made once more sends
 * nothing new. The namespace is this hub's own secret, since whoever could tell the name before might take it.
 */
export function openMessageIds(db: Database): (callId: string) => Promise<string> {
  let namespace: string | undefined;
  return async (callId) => {
    if (namespace === undefined) {
      const [found] = await db.sql<{ id: string }>('select id from message_namespaces limit 1');
      namespace = found!.id;
    }
    return namedUuid(callId, namespace);
  };
}
