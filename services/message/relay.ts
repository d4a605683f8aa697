import { v4 as uuid, v5 as uuidOf } from 'uuid';
import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import type { Bus, BusEvent } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { askedGauge } from '#lib/metrics.ts';
import type { Lease, Outbox, OutboxEntry } from './outbox.ts';
import { payloadOf, priorityOf } from './wire.ts';

/** The relay is asked to look by `wake` after each commit; this is how soon it finds what another process has accepted. */
const pollEvery = 100;
const batchSize = 500;
/**
 * The shortest time from one look into the outbox to the next. What comes after a quiet moment goes at once; while more
 * comes, it goes in batches, and so does everything behind the relay.
 */
const lookInterval = 20;
/** A relay that has stopped, or hangs, is replaced after this: before the outbox is so far behind that sends are refused. */
const leaseLength = 2_000;
const superviseEvery = 500;
/** An outbox that is this far behind means that the bus takes nothing: no more is accepted. */
const longestWait = 3_000;

const waiting = askedGauge('outbox_events', 'Accepted messages that the bus has not been told of');
const waitingFor = askedGauge('outbox_age_seconds', 'How long the oldest of these has been waiting');

/** Brings what was accepted to the bus, and tells whether the bus can take more. */
export interface Relay {
  /** Looks into the outbox at once: to be called after a commit. */
  wake(): void;
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

  const supervising = repeat('The lease of the relay', log, async () => {
    try {
      lease = await outbox.holdLease(owner, leaseLength);
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
    const entries = await outbox.unpublished(batchSize);
    if (entries.length === 0) return pollEvery;
    await bus.publish('message_processing', entries.map(eventOf));
    await outbox.published(
      entries.map((entry) => entry.id),
      held,
    );
    return entries.length === batchSize ? 0 : pollEvery;
  });

  const unwatch = [
    waiting.ask(async (tell) => tell({}, (await outbox.backlog()).events)),
    waitingFor.ask(async (tell) => tell({}, (await outbox.backlog()).age / 1_000)),
  ];

  return {
    wake() {
      gathering ??= setTimeout(
        () => {
          gathering = undefined;
          relaying.wake();
        },
        Math.max(0, lookInterval - (performance.now() - lookedAt)),
      );
    },
    requireBus() {
      if (unavailable !== undefined) throw unavailable;
    },
    async stop() {
      for (const end of unwatch) end();
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

/** Ids of events about a replay are made in here from the message's id and the round. */
const replayNamespace = '3d6c1f0e-52a1-4c0b-9a53-1a3a1c0f6d2b';

function eventOf({ message, only, requestId }: OutboxEntry): BusEvent {
  const { messageId, replay } = message;
  return {
    // Each round is an event of its own: the bus leaves out of a batch what it has seen acknowledged.
    id: replay === 0 ? messageId : uuidOf(`${messageId}/${replay}`, replayNamespace),
    type: 'chat4all.message.v1.MessageAccepted',
    key: message.conversationId,
    requestId,
    value: MessageAccepted.encode({
      messageId,
      conversationId: message.conversationId,
      seq: BigInt(message.seq),
      senderId: message.senderId,
      recipientIds: message.recipientIds,
      channels: message.channels,
      payload: payloadOf(message.content),
      priority: priorityOf(message.priority),
      acceptedAt: message.createdAt,
      deliverBy: message.deliverBy,
      replay,
      only: [...only],
    }).finish(),
  };
}
