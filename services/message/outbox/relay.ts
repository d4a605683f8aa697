import { v4 as uuid } from 'uuid';
import { topics } from '#gen/events.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { sample, sharedGauge } from '#lib/metrics.ts';
import type { Lease, Outbox, OutboxEntry } from './store.ts';

/** How soon the relay finds what no wake-up told it of. */
const pollEveryMs = 1_000;
const batchSize = 500;
/**
 * The shortest time from one look into the outbox to the next. What comes after a quiet moment goes at once; while more
 * comes, it goes in batches, and so does everything behind the relay.
 */
const minLookIntervalMs = 50;
/** A relay that hangs is replaced after this: sooner than its outbox is so old that messages are refused. */
const leaseMs = 2_000;
const renewEveryMs = 1_000;
const superviseEveryMs = 500;
/** Above this age of its oldest event, messages are refused: the bus takes nothing. */
const maxOutboxAgeMs = 3_000;
/** A relay that can't publish for this long releases its lease and leaves it to the others for a while: they may reach the bus. */
const giveUpLease = { afterMs: 3_000, restMs: 3_000 };

const waiting = sharedGauge('outbox_events', 'Accepted messages that the bus has not been told of');
const waitingFor = sharedGauge('outbox_age_seconds', 'How long the oldest of these has been waiting');

/** Publishes accepted messages, and knows whether the bus can take more. */
export interface Relay {
  /** To be called after a commit: has the process that relays read the outbox at once. */
  wake(): void;
  /** To be called when another process has put something into the outbox: reads it, if this process is the one that relays. */
  notified(): void;
  /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` while the bus doesn't take events */
  requireBus(): void;
  stop(): Promise<void>;
}

/**
 * Starts to empty the outbox: acceptances go to `message_processing`, and all of it goes to `message_changes`. One process does it at a time, the one that has the lease, so
 * that the order of a conversation is kept; every process watches how far behind it is.
 *
 * A relay that lost its lease while it was frozen may publish some events twice: consumers recognise them.
 */
export function startRelay({ outbox, bus, log }: { outbox: Outbox; bus: Bus; log: Logger }): Relay {
  const owner = uuid();
  let lease: Lease | undefined;
  let unavailable: HubError | undefined;
  let gathering: NodeJS.Timeout | undefined;
  let lookedAt = 0;
  /** When the first publication failed since the last successful one. */
  let failingSince: number | undefined;
  let resting = 0;
  let renewed = 0;

  const supervising = repeat('The lease of the relay', log, async () => {
    try {
      const now = performance.now();
      if (now < resting) lease = undefined;
      else if (lease === undefined || now - renewed >= renewEveryMs) {
        const current = lease;
        lease = await outbox.holdLease(owner, leaseMs);
        renewed = now;
        // The last holder may have left something in the outbox.
        if (current === undefined && lease !== undefined) relaying.wake();
      }
      const [age] = await Promise.all([outbox.age(), bus.probe()]);
      unavailable = age > maxOutboxAgeMs ? busUnavailable(`the oldest event has waited for ${age} ms`) : undefined;
    } catch (error) {
      unavailable = busUnavailable(error);
      throw error;
    }
    return superviseEveryMs;
  });

  const relaying = repeat('The relay', log, async () => {
    if (lease === undefined) return pollEveryMs;
    const current = lease;
    lookedAt = performance.now();
    const { entries, more } = await outbox.unpublished(batchSize);
    if (entries.length === 0) return pollEveryMs;
    const began = performance.now();
    try {
      const accepted = entries.filter(({ kind }) => kind === 'accepted');
      const publish = (topic: string, some: readonly OutboxEntry[]) =>
        some.length === 0
          ? undefined
          : bus.publish(
              topic,
              some.map(({ event }) => event),
            );
      await Promise.all([publish(topics.messageProcessing, accepted), publish(topics.messageChanges, entries)]);
      failingSince = undefined;
    } catch (error) {
      failingSince ??= began;
      if (performance.now() - failingSince >= giveUpLease.afterMs) await leaveToOthers();
      throw error;
    }
    await outbox.published(entries, current);
    return more ? 0 : pollEveryMs;
  });

  function wake(): void {
    gathering ??= setTimeout(
      () => {
        gathering = undefined;
        if (lease !== undefined) return relaying.wake();
        // Another process relays, and doesn't know of the new event yet.
        lookedAt = performance.now();
        outbox.notify().catch(() => {});
      },
      Math.max(0, minLookIntervalMs - (performance.now() - lookedAt)),
    );
  }

  async function leaveToOthers(): Promise<void> {
    resting = performance.now() + giveUpLease.restMs;
    failingSince = undefined;
    lease = undefined;
    await outbox.releaseLease(owner);
  }

  const unwatch = sample(async (tell) => {
    const { events, age } = await outbox.backlog();
    tell(waiting, {}, events);
    tell(waitingFor, {}, age / 1_000);
  });

  return {
    wake,
    notified() {
      if (lease !== undefined) wake();
    },
    requireBus() {
      if (unavailable !== undefined) throw unavailable;
    },
    async stop() {
      unwatch();
      clearTimeout(gathering);
      await Promise.all([supervising.stop(), relaying.stop()]);
      if (lease !== undefined) await outbox.releaseLease(owner).catch(() => {});
    },
  };
}

function busUnavailable(cause: unknown): HubError {
  return new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'Messages can not be delivered at the moment: try again', {
    retryAfter: 2,
    cause,
  });
}
