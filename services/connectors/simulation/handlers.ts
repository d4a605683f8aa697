import type { SimulationServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Simulation } from './provider.ts';
import type { SimulationStore } from './store.ts';
import { effectMessageOf, profileMessageOf, profileOf } from './wire.ts';

const defaultLimit = 50;

export function handlers({
  simulation,
  store,
  channels,
  log,
}: {
  simulation: Simulation;
  store: Pick<SimulationStore, 'listEffects'>;
  /** The channels that are simulated. */
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
      const [effects, total] = await store.listEffects(filter, { limit, offset });
      return { effects: effects.map(effectMessageOf), total: BigInt(total), limit, offset };
    },
  };
}
