import type { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Connector } from './connector.ts';
import type { Store } from './store.ts';

export function handlers({
  connectors,
  store,
}: {
  connectors: readonly Connector[];
  store: Pick<Store, 'listEnded'>;
}): Handlers<typeof ConnectorsServiceService> {
  const channels = connectors.map(({ name, title }) => ({ name, title }));
  return {
    async listChannels() {
      return { channels };
    },

    async listAttempts({ messageId }) {
      return { attempts: await store.listEnded(messageId) };
    },
  };
}
