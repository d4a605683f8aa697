import type { Channel, ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { beginAtZero, counter } from '#lib/metrics.ts';
import type { Connection } from '#lib/rpc/client.ts';

/** How often the connectors are asked while messages are sent, and while none are. */
const refreshEveryMs = { busy: 1_000, idle: 60_000 };
/** How long an answer about a channel's load is used. */
const loadTtlMs = 5_000;

const refusedMessages = counter('messages_refused_total', 'Messages that were refused before they were accepted', [
  'channel',
  'reason',
]);

const overloaded = 'CHANNEL_OVERLOADED';

/** The installed channels, by the connectors' last answer. */
export interface Channels {
  /** Their names; undefined until the connectors have answered once. */
  known(): readonly string[] | undefined;
  /** @throws HubError UNAVAILABLE `CHANNELS_UNKNOWN` until the connectors have answered once */
  require(): readonly string[];
  /**
   * Admits deliveries that are about to be accepted over each of some channels.
   *
   * @param maxWaitMs how long they may wait
   * @throws HubError UNAVAILABLE `CHANNEL_OVERLOADED` if they would wait longer on one of the channels; then none is counted
   */
  requireRoom(channels: readonly string[], deliveries: number, maxWaitMs: number): void;
  stop(): Promise<void>;
}

/** Polls the connectors, and uses their last answer while they are unavailable. */
export function watchChannels({
  connectors,
  log,
}: {
  connectors: Connection<typeof ConnectorsServiceService>;
  log: Logger;
}): Channels {
  let installed: readonly Channel[] | undefined;
  let askedAt = -Infinity;
  /** By channel, deliveries that were accepted since the connectors were last asked: their answer doesn't include them. */
  let admitted = new Map<string, number>();
  const watching = repeat('The list of channels', log, async () => {
    const since = performance.now();
    const before = admitted;
    admitted = new Map();
    installed = (await connectors.listChannels({})).channels;
    beginAtZero(refusedMessages, { channel: installed.map(({ name }) => name), reason: [overloaded] });
    askedAt = since;
    return before.size > 0 || admitted.size > 0 ? refreshEveryMs.busy : refreshEveryMs.idle;
  });

  function waitFor(name: string, deliveries: number): number {
    const channel = installed?.find((each) => each.name === name);
    if (channel === undefined || performance.now() - askedAt > loadTtlMs) return 0;
    const { waitMs, drainRate } = channel;
    if (waitMs === 0n || drainRate === 0) return Number(waitMs);
    return Number(waitMs) + (((admitted.get(name) ?? 0) + deliveries) / drainRate) * 1_000;
  }

  return {
    known: () => installed?.map(({ name }) => name),
    require() {
      if (installed !== undefined) return installed.map(({ name }) => name);
      throw new HubError('UNAVAILABLE', 'CHANNELS_UNKNOWN', 'The channels are not known yet: try again', {
        retryAfter: 1,
      });
    },
    requireRoom(channels, deliveries, maxWaitMs) {
      for (const channel of channels) {
        const wait = waitFor(channel, deliveries);
        if (wait <= maxWaitMs) continue;
        refusedMessages.inc({ channel, reason: overloaded });
        const message = `So much waits for ${channel} that the message would not be delivered in time: try again later`;
        throw new HubError('UNAVAILABLE', overloaded, message, { retryAfter: Math.ceil((wait - maxWaitMs) / 1_000) });
      }
      for (const channel of channels) admitted.set(channel, (admitted.get(channel) ?? 0) + deliveries);
      if (performance.now() - askedAt > refreshEveryMs.busy) watching.wake();
    },
    stop: watching.stop,
  };
}
