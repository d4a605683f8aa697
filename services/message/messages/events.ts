import { DeliveryAttempted, DeliveryEnded, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import { eventTypes, groups, topics } from '#gen/events.ts';
import type { Bus, Consumer, Lag, ReceivedEvent } from '#lib/bus/bus.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import { isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep, type Loop } from '#lib/loop.ts';
import { ageHistogram, counter } from '#lib/metrics.ts';
import type { Report } from '../message.ts';
import type { Relay } from '../outbox/relay.ts';
import type { Store } from './store.ts';

/**
 * A message has at least two reports; one transaction for both is half the work. Under load there are thousands a second, and each statement
 * of a transaction waits for the other work of the process: so a transaction applies many reports.
 */
const reportRounds = { interval: 100, batchSize: 1_000 };

const endedMessages = counter('messages_ended_total', 'Messages that were delivered or failed, replays included', {
  status: ['delivered', 'failed'],
});
const endedAge = ageHistogram(
  'message_ended_age_seconds',
  'From the acceptance of a message to the record that it was delivered or has failed, without replays',
  ['status'],
);
for (const status of ['delivered', 'failed']) endedAge.zero({ status });
const expiredMessages = counter('messages_expired_total', 'Messages that failed because their time was over');

export interface SettlingOptions {
  store: Store;
  /** Publishes what has changed. */
  relay: Pick<Relay, 'wake'>;
  log: Logger;
}

/** Applies the reports of router and connectors on `message_status`. */
export function consumeReports({ bus, store, relay, log }: SettlingOptions & { bus: Bus }): Promise<Consumer> {
  return bus.consume({
    topics: [topics.messageStatus],
    group: groups.message,
    ...reportRounds,
    async handle(events) {
      const reports = events.map(reportOf);
      const { unknown, ended } = await store.applyReports(
        new Map(
          [...Map.groupBy(reports, ({ messageId }) => messageId)].map(([messageId, group]) => [
            messageId,
            group.map(({ report }) => report),
          ]),
        ),
      );
      relay.wake();
      for (const { status, acceptedAt, replay } of ended) {
        endedMessages.inc({ status });
        if (replay === 0) endedAge.observe({ status }, (hubTime() - acceptedAt.getTime()) / 1_000);
      }
      if (unknown.length > 0) log.error({ unknown }, 'Reports of messages that were never accepted here');
    },
  });
}

/** @throws Error for an event that doesn't belong on the topic: it goes to the dead letters */
function reportOf({ type, value }: ReceivedEvent): { messageId: string; report: Report } {
  switch (type) {
    case eventTypes.MessageRouted: {
      const { messageId, at, replay } = MessageRouted.decode(value);
      return { messageId, report: { kind: 'routed', at: at ?? hubDate(), replay } };
    }
    case eventTypes.MessageRejected: {
      const { messageId, at, reason, replay } = MessageRejected.decode(value);
      return { messageId, report: { kind: 'rejected', at: at ?? hubDate(), reason, replay } };
    }
    case eventTypes.DeliveryAttempted: {
      const { messageId, at = hubDate(), nextAttemptAt = null, ...attempt } = DeliveryAttempted.decode(value);
      return { messageId, report: { kind: 'attempted', at, nextAttemptAt, ...attempt } };
    }
    case eventTypes.DeliveryEnded: {
      const { messageId, recipientId, channel, status, attempts, error, at, replay } = DeliveryEnded.decode(value);
      const delivered = status === MessageStatus.MESSAGE_STATUS_DELIVERED;
      return {
        messageId,
        report: { kind: 'ended', at: at ?? hubDate(), replay, recipientId, channel, delivered, attempts, error },
      };
    }
    default:
      throw new Error(`Not a report of a message's status: ${type}`);
  }
}

/** The minimum pause; shorter for short deadlines, so that they are enforced in time. */
const sweepEveryMs = 250;
const sweepBatch = 500;
/** The tolerated difference between the clocks of processes. */
const maxClockSkewMs = 10_000;
/** How soon the sweep looks again whether the reports that it waits for have been applied. */
const lookAgainMs = 100;
const defaultStallTimeoutMs = 30_000;

export interface SweepOptions extends Omit<SettlingOptions, 'relay'> {
  bus: Pick<Bus, 'lag'>;
  relay: Pick<Relay, 'wake' | 'requireBus'>;
  /** Milliseconds from the acceptance of a message. */
  deadline: number;
  /** Milliseconds without an applied report after which the reports that are left are not waited for any more. */
  stallTimeout?: number;
}

/**
 * Makes a function that returns a moment up to which deadlines may be enforced: all reports that were on the bus at that moment have been
 * applied. As long as they have not, it returns undefined; a later call looks again.
 *
 * While the bus is unavailable, nobody can know what is on it, and the function returns the current time. Once no report has been applied
 * for `stallTimeout`, those that are left are not waited for.
 */
function watchReports({ bus, relay, log, stallTimeout = defaultStallTimeoutMs }: SweepOptions) {
  let awaited: { at: Date; ends: ReadonlyMap<number, number>; left: number; movedAt: number } | undefined;

  return async (): Promise<Date | undefined> => {
    const now = hubDate();
    let lags: Lag[];
    try {
      relay.requireBus();
      lags = await bus.lag(topics.messageStatus, groups.message);
    } catch (error) {
      if (!isTransient(error)) throw error;
      awaited = undefined;
      return now;
    }
    awaited ??= {
      at: now,
      ends: new Map(lags.map(({ partition, next, events }) => [partition, next + events])),
      left: Infinity,
      movedAt: performance.now(),
    };
    const { at, ends } = awaited;
    const left = lags.reduce((sum, { partition, next }) => sum + Math.max(0, (ends.get(partition) ?? 0) - next), 0);
    if (left < awaited.left) Object.assign(awaited, { left, movedAt: performance.now() });
    const isStalled = performance.now() - awaited.movedAt > stallTimeout;
    if (left > 0 && !isStalled) return undefined;
    if (left > 0) log.warn({ reports: left }, 'Reports are not applied: messages fail at their deadline without them');
    awaited = undefined;
    return at;
  };
}

/**
 * Fails open deliveries at the deadline of their message, so that every message ends. What the reports say that are on the bus by then comes
 * first: after a standstill of this service they tell of messages that were delivered meanwhile.
 */
export function startSweep(options: SweepOptions): Loop {
  const { store, relay, log, deadline } = options;
  const minPauseMs = Math.min(sweepEveryMs, deadline / 40);
  // A message that is accepted during the pause expires later than that.
  const maxPauseMs = deadline / 4;
  const reason = `Not delivered within ${deadline / 1000} s`;
  // The previous version, which may run until this one starts, doesn't add its messages to `open_messages`.
  let adopted = false;
  const appliedUpTo = watchReports(options);
  return repeat('The sweep for messages whose time is over', log, async () => {
    if (!adopted) await store.adoptOpen(deadline + maxClockSkewMs);
    adopted = true;
    const early = ((await store.nextExpiry())?.getTime() ?? Infinity) - hubTime();
    if (early > 0) return Math.min(Math.max(early, minPauseMs), maxPauseMs);
    const upTo = await appliedUpTo();
    if (upTo === undefined) return lookAgainMs;
    const expired = await store.expire(upTo, reason, sweepBatch);
    if (expired > 0) {
      relay.wake();
      log.warn({ expired }, 'Messages failed at their deadline');
      expiredMessages.inc(expired);
      endedMessages.inc({ status: 'failed' }, expired);
    }
    return expired === sweepBatch ? 0 : minPauseMs;
  });
}

const removalSizes = { batchSize: 500, everyMs: 60_000, pauseMs: 100 };

/** Removes messages `retention` milliseconds after their acceptance, some hundred at a time. */
export function startRemoval(options: { store: Pick<Store, 'remove'>; log: Logger; retention: number }): Loop {
  const { store, log, retention } = options;
  return sweep('The end of old messages', log, removalSizes, async (batchSize) => {
    const removed = await store.remove(new Date(hubTime() - retention), batchSize);
    if (removed > 0) log.info({ removed }, 'Messages removed: their time is over');
    return removed;
  });
}
