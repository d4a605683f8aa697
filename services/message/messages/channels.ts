import type { Channel, ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { beginAtZero, counter } from '#lib/metrics.ts';
import type { Connection } from '#lib/rpc/client.ts';

/** Milliseconds between two looks while messages are sent, and while none are. */
const refreshEvery = { busy: 1_000, idle: 60_000 };
/** Milliseconds after which what was said of a channel's load says nothing any more. */
const loadLasts = 5_000;

const refusedMessages = counter('messages_refused_total', 'Messages that were refused before they were accepted', [
  'channel',
  'reason',
]);

const overloaded = 'CHANNEL_OVERLOADED';

/** The channels that are installed, as the connectors last said. */
export interface Channels {
  /** Their names; undefined until the connectors were reached once. */
  known(): readonly string[] | undefined;
  /** @throws HubError UNAVAILABLE `CHANNELS_UNKNOWN` until the connectors were reached once */
  require(): readonly string[];
  /**
   * Counts deliveries over each of some channels that are about to be accepted.
   *
   * @param patience milliseconds that they may wait
   * @throws HubError UNAVAILABLE `CHANNEL_OVERLOADED` if one of the channels has so much to do that they would wait longer; then none is
   *   counted
   */
  requireRoom(channels: readonly string[], deliveries: number, patience: number): void;
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
  let installed: readonly Channel[] | undefined;
  let asked = -Infinity;
  /** By channel, deliveries that were let in since the connectors were last asked: they can't know of them. */
  let letIn = new Map<string, number>();
  const watching = repeat('The list of channels', log, async () => {
    const since = performance.now();
    const before = letIn;
    letIn = new Map();
    installed = (await connectors.listChannels({})).channels;
    beginAtZero(refusedMessages, { channel: installed.map(({ name }) => name), reason: [overloaded] });
    asked = since;
    return before.size > 0 || letIn.size > 0 ? refreshEvery.busy : refreshEvery.idle;
  });

  function waitFor(name: string, deliveries: number): number {
    const channel = installed?.find((each) => each.name === name);
    if (channel === undefined || performance.now() - asked > loadLasts) return 0;
    const { waitMs, drainRate } = channel;
    if (waitMs === 0n || drainRate === 0) return Number(waitMs);
    return Number(waitMs) + (((letIn.get(name) ?? 0) + deliveries) / drainRate) * 1_000;
  }

  return {
    known: () => installed?.map(({ name }) => name),
    require() {
      if (installed !== undefined) return installed.map(({ name }) => name);
      throw new HubError('UNAVAILABLE', 'CHANNELS_UNKNOWN', 'The channels are not known yet: try again', {
        retryAfter: 1,
      });
    },
    requireRoom(channels, deliveries, patience) {
      for (const channel of channels) {
        const wait = waitFor(channel, deliveries);
        if (wait <= patience) continue;
        refusedMessages.inc({ channel, reason: overloaded });
        const message = `So much waits for ${channel} that the message would not be delivered in time: try again later`;
        throw new HubError('UNAVAILABLE', overloaded, message, { retryAfter: Math.ceil((wait - patience) / 1_000) });
      }
      for (const channel of channels) letIn.set(channel, (letIn.get(channel) ?? 0) + deliveries);
      if (performance.now() - asked > refreshEvery.busy) watching.wake();
    },
    stop: watching.stop,
  };
}
