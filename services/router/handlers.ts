import type { RouterServiceService } from '#gen/chat4all/router/v1/router.ts';
import { topics } from '#gen/events.ts';
import { HubError } from '#lib/errors.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import { copiesOf } from './router.ts';
import type { Store } from './store.ts';

export function handlers(store: Store): Handlers<typeof RouterServiceService> {
  return {
    async getRoute({ messageId }) {
      const route = await store.find(messageId);
      if (route === undefined) {
        throw new HubError('NOT_FOUND', 'ROUTE_NOT_FOUND', 'Nothing was decided for this message so far');
      }
      return {
        messageId: route.messageId,
        conversationId: route.conversationId,
        routedAt: route.routedAt,
        rejectedReason: route.rejectedReason ?? '',
        deliveries: copiesOf(route).map((copy) => ({ ...copy, topic: topics.outgoing(copy.channel) })),
      };
    },
  };
}
