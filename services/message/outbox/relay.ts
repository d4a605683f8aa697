import { v4 as uuid } from 'uuid';
import { topics } from '#gen/events.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { sample, sharedGauge } from '#lib/metrics.ts';
import type { Lease, Outbox } from './store.ts';

/** Milliseconds. Behind the wake-ups: how soon the relay finds what it was not told of. */
const pollEvery = 1_000;
const batchSize = 500;
/**
 * The shortest time from one look into the outbox to the next. What comes after a quiet moment goes at once; while more
 * comes, it goes in batches, and so does everything behind the relay.
 */
const lookInterval = 50;
/** A relay that has stopped, or hangs, is replaced after this: before the outbox is so far behind that sends are refused. */
const leaseLength = 2_000;
const renewEvery = 1_000;
const superviseEvery = 500;
/** An outbox that is this far behind means that the bus takes nothing: no more is accepted. */
const longestWait = 3_000;
/** A relay that could not publish for so long lets go of its lease, and leaves it to others for a while: they may reach the bus. */
const handOver = { after: 3_000, rest: 3_000 };

const waiting = sharedGauge('outbox_events', 'Accepted messages that the bus has not been told of');
const waitingFor = sharedGauge('outbox_age_seconds', 'How long the oldest of these has been waiting');

/** Brings what was accepted to the bus, and tells whether the bus can take more. */
export interface Relay {
  /** Has the outbox looked into at once, by whoever relays: to be called after a commit. */
  wake(): void;
  /** Looks into the outbox, if this is who relays: to be called when another process has told of something there. */
  told(): void;
  /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` while the bus doesn't take events */
  requireBus(): void;
  stop(): Promise<void>;
}

/**
 * Starts to empty the outbox into `message_processing`. One process does it at a time, the one that has the lease, so
 * that the order of a conversation is kept; every process watches how far behind it is.
 *
 * A relay that lost its lease while it was frozen may publish some events once more: whoever consumes knows them already.
 */
export function startRelay({ outbox, bus, log }: { outbox: Outbox; bus: Bus; log: Logger }): Relay {
  const owner = uuid();
  let lease: Lease | undefined;
  let unavailable: HubError | undefined;
  let gathering: NodeJS.Timeout | undefined;
  let lookedAt = 0;
  /** Of the first publication that failed since the last that didn't. */
  let failingSince: number | undefined;
  let resting = 0;
  let renewed = 0;

  const supervising = repeat('The lease of the relay', log, async () => {
    try {
      const now = performance.now();
      if (now < resting) lease = undefined;
      else if (lease === undefined || now - renewed >= renewEvery) {
        const held = lease;
        lease = await outbox.holdLease(owner, leaseLength);
        renewed = now;
        // There may be what the last holder has left.
        if (held === undefined && lease !== undefined) relaying.wake();
      }
      const [age] = await Promise.all([outbox.age(), bus.probe()]);
      unavailable = age > longestWait ? busUnavailable(`the oldest event has waited for ${age} ms`) : undefined;
    } catch (error) {
      unavailable = busUnavailable(error);
      throw error;
    }
    return superviseEvery;
  });

  const relaying = repeat('The relay', log, async () => {
    if (lease === undefined) return pollEvery;
    const held = lease;
    lookedAt = performance.now();
    const { entries, more } = await outbox.unpublished(batchSize);
    if (entries.length === 0) return pollEvery;
    const began = performance.now();
    try {
      await bus.publish(
        topics.messageProcessing,
        entries.map(({ event }) => event),
      );
      failingSince = undefined;
    } catch (error) {
      failingSince ??= began;
      if (performance.now() - failingSince >= handOver.after) await leaveToOthers();
      throw error;
    }
    await outbox.published(
      entries.map((entry) => entry.id),
      held,
    );
    return more ? 0 : pollEvery;
  });

  function wake(): void {
    gathering ??= setTimeout(
      () => {
        gathering = undefined;
        if (lease !== undefined) return relaying.wake();
        // It is relayed by another process, which doesn't know of it.
        lookedAt = performance.now();
        outbox.tell().catch(() => {});
      },
      Math.max(0, lookInterval - (performance.now() - lookedAt)),
    );
  }

  async function leaveToOthers(): Promise<void> {
    resting = performance.now() + handOver.rest;
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
    told() {
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
