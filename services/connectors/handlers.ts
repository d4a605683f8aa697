import type { ConnectorsServiceService, SimulationServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Connector } from './connector.ts';
import { noLoad, type Loads } from './load.ts';
import type { Simulation } from './provider.ts';
import type { ProviderRecords } from './provider-records.ts';
import type { Store } from './store.ts';
import { effectMessageOf, profileMessageOf, profileOf } from './wire.ts';

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

const defaultLimit = 50;

export function simulationHandlers({
  simulation,
  records,
  channels,
  log,
}: {
  simulation: Simulation;
  records: Pick<ProviderRecords, 'listEffects'>;
  /** Those that are simulated. */
  channels: readonly string[];
  log: Logger;
}): Handlers<typeof SimulationServiceService> {
  function requireSimulated(channel: string): void {
    if (channels.includes(channel)) return;
    throw new HubError('NOT_FOUND', 'CHANNEL_NOT_FOUND', 'There is no simulated channel of that name');
  }

  return {
    async getProfile({ channel }) {
      requireSimulated(channel);
      return { profile: profileMessageOf(await simulation.profileOf(channel)) };
    },

    async setProfile({ channel, profile }, { caller }: UserCall) {
      requireSimulated(channel);
      const next = profileOf(profile!);
      await simulation.setProfile(channel, next);
      log.info({ channel, profile: next, by: caller.userId }, 'a network behaves as an administrator says');
      return { profile: profileMessageOf(next) };
    },

    async resetProfile({ channel }, { caller }: UserCall) {
      requireSimulated(channel);
      const profile = await simulation.resetProfile(channel);
      log.info({ channel, by: caller.userId }, 'a network behaves as it is configured');
      return { profile: profileMessageOf(profile) };
    },

    async listEffects({ channel, messageId, after = 0n, limit = defaultLimit, offset }) {
      const filter = {
        ...(channel !== '' && { channel }),
        ...(messageId !== '' && { messageId }),
        after,
      };
      const [effects, total] = await records.listEffects(filter, { limit, offset });
      return { effects: effects.map(effectMessageOf), total: BigInt(total), limit, offset };
    },
  };
}
