import type { AccountRecordServiceService } from '#gen/chat4all/account/v1/account.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Store } from '../store.ts';

export function openAccountRecordHandlers({ store }: { store: Store }): Handlers<AccountRecordServiceService> {
  return {
    async countUsers() {
      return { total: await store.countUsers() };
    },

    async recordChanges({ subscriptions, auditEvents }) {
      if (subscriptions.length > 0) await store.recordSubscriptions(subscriptions);
      if (auditEvents.length > 0) {
        // The rules in the proto have seen to the moment of each.
        await store.recordAuditEvents(auditEvents.map((event) => ({ ...event, at: event.at as Date })));
      }
      return {};
    },
  };
}
