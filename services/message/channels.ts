import type { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import type { Connection } from '#lib/rpc/client.ts';

const refreshEvery = 60_000;

/** The channels that are installed, as the connectors last said. */
export interface Channels {
  /** Their names; undefined until the connectors were reached once. */
  known(): readonly string[] | undefined;
  /** @throws HubError UNAVAILABLE `CHANNELS_UNKNOWN` until the connectors were reached once */
  require(): readonly string[];
  stop(): Promise<void>;
}

/** Asks the connectors again and again, and goes on with their last answer while they are away. */
export function watchChannels({
  connectors,
  log,
}: {
  connectors: Connection<typeof ConnectorsServiceService>;
  log: Logger;
}): Channels {
  let names: readonly string[] | undefined;
  const watching = repeat('The list of channels', log, async () => {
    const { channels } = await connectors.listChannels({});
    names = channels.map((channel) => channel.name);
    return refreshEvery;
  });

  return {
    known: () => names,
    require() {
      if (names !== undefined) return names;
      throw new HubError('UNAVAILABLE', 'CHANNELS_UNKNOWN', 'The channels are not known yet: try again', {
        retryAfter: 1,
      });
    },
    stop: watching.stop,
  };
}
