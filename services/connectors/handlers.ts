import type { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Connector } from './connector.ts';
import { noLoad, type Loads } from './load.ts';
import type { Store } from './store.ts';

export function handlers({
  connectors,
  store,
  loads,
}: {
  connectors: readonly Connector[];
  store: Pick<Store, 'listEnded'>;
  loads: Pick<Loads, 'now'>;
}): Handlers<typeof ConnectorsServiceService> {
  return {
    async listChannels() {
      const now = await loads.now();
      const channels = connectors.map(({ name, title }) => {
        const { backlog, drainRate, wait } = now.get(name) ?? noLoad;
        return { name, title, backlog: BigInt(backlog), drainRate, waitMs: BigInt(Math.round(wait)) };
      });
      return { channels };
    },

    async listAttempts({ messageId }) {
      return { attempts: await store.listEnded(messageId) };
    },
  };
}
