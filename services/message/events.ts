import { createHash } from 'node:crypto';
import { v5 as uuidOf } from 'uuid';
import {
  DeliveryAttempted,
  DeliveryEnded,
  MessageAccepted,
  MessageRejected,
  MessageRouted,
} from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import { deadLetterTopic, type Bus, type Consumer, type ReceivedEvent } from '#lib/bus/bus.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
import { counter } from '#lib/metrics.ts';
import type { Channels } from './channels.ts';
import type { DeadLetters, NewDeadLetter } from './dead-letters.ts';
import type { Report } from './message.ts';
import type { Store } from './store.ts';

/** Milliseconds. A message has at least two reports, and one transaction for both is half the work. */
const reportInterval = 100;

const endedMessages = counter('messages_ended_total', 'Messages that were delivered or failed, replays included', {
  status: ['delivered', 'failed'],
});
const expiredMessages = counter('messages_expired_total', 'Messages that failed because their time was over');

/** Applies what router and connectors report on `message_status`. */
export function consumeReports({ bus, store, log }: { bus: Bus; store: Store; log: Logger }): Promise<Consumer> {
  return bus.consume({
    topics: ['message_status'],
    group: 'message',
    interval: reportInterval,
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
      for (const status of ended) endedMessages.inc({ status });
      if (unknown.length > 0) log.error({ unknown }, 'Reports of messages that were never accepted here');
    },
  });
}

/** @throws Error for an event that is none of those that belong on the topic: it goes to the dead letters */
function reportOf({ type, value }: ReceivedEvent): { messageId: string; report: Report } {
  switch (type) {
    case 'chat4all.message.v1.MessageRouted': {
      const { messageId, at, replay } = MessageRouted.decode(value);
      return { messageId, report: { kind: 'routed', at: at ?? hubDate(), replay } };
    }
    case 'chat4all.message.v1.MessageRejected': {
      const { messageId, at, reason, replay } = MessageRejected.decode(value);
      return { messageId, report: { kind: 'rejected', at: at ?? hubDate(), reason, replay } };
    }
    case 'chat4all.message.v1.DeliveryAttempted': {
      const { messageId, at = hubDate(), nextAttemptAt = null, ...attempt } = DeliveryAttempted.decode(value);
      return { messageId, report: { kind: 'attempted', at, nextAttemptAt, ...attempt } };
    }
    case 'chat4all.message.v1.DeliveryEnded': {
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

/** The shortest pause in milliseconds; shorter for short deadlines, so that the end comes in time. */
const sweepEvery = 250;
const sweepBatch = 500;
/** Milliseconds that the clocks of processes may differ by. */
const clocksDiffer = 10_000;

/** Fails what is still open when its time is over, so that every message ends. */
export function startSweep({ store, log, deadline }: { store: Store; log: Logger; deadline: number }): Loop {
  const shortest = Math.min(sweepEvery, deadline / 40);
  // What is accepted during a pause is open for longer than that.
  const longest = deadline / 4;
  const reason = `Not delivered within ${deadline / 1000} s`;
  // An earlier version, which ran until this one began, doesn't list what it accepts as open.
  let adopted = false;
  return repeat('The sweep for messages whose time is over', log, async () => {
    if (!adopted) await store.adoptOpen(deadline + clocksDiffer);
    adopted = true;
    const expired = await store.expire(hubDate(), reason, sweepBatch);
    if (expired > 0) {
      log.warn({ expired }, 'Messages failed at their deadline');
      expiredMessages.inc(expired);
      endedMessages.inc({ status: 'failed' }, expired);
    }
    if (expired === sweepBatch) return 0;
    const next = (await store.nextExpiry())?.getTime() ?? Infinity;
    return Math.min(Math.max(next - hubTime(), shortest), longest);
  });
}

/** Milliseconds: a channel that is installed while this runs is heard of by then. */
const lookForChannelsEvery = { known: 5_000, unknown: 500 };

/** Keeps what is given up on any topic of the hub, those of channels that are installed later included. */
export function startDeadLetters(options: {
  bus: Bus;
  letters: Pick<DeadLetters, 'record'>;
  channels: Pick<Channels, 'known'>;
  log: Logger;
}): { stop(): Promise<void> } {
  const { bus, letters, channels, log } = options;
  const consumers = new Map<string, Consumer>();
  const starting = repeat('The consumers of dead letters', log, async () => {
    const known = channels.known();
    // Until the connectors are there everything is just starting, and has better things to do.
    if (known === undefined) return lookForChannelsEvery.unknown;
    for (const topic of ['message_processing', 'message_status', ...known.map(outgoingTopic)]) {
      if (consumers.has(topic)) continue;
      const consumer = await bus.consume({
        topics: [deadLetterTopic(topic)],
        group: 'operations',
        interval: reportInterval,
        batchSize: deadLetterBatch,
        handle: (events) => letters.record(events.map(deadLetterOf)),
      });
      consumers.set(topic, consumer);
    }
    return lookForChannelsEvery.known;
  });
  return {
    async stop() {
      await starting.stop();
      await Promise.all([...consumers.values()].map((consumer) => consumer.stop()));
    },
  };
}

/** Few: each may have 4 MiB. */
const deadLetterBatch = 20;

function outgoingTopic(channel: string): string {
  return `${channel}_outgoing`;
}

/** Ids of dead letters are made in here, so that the same one has the same id when it comes again. */
const deadLetterNamespace = '5b0f1c52-7f0e-4e0e-8f0c-0b6f0a5a9c11';

/** What there is to know of a dead letter. Never throws: there is nowhere to put one that can't be kept. */
export function deadLetterOf(event: ReceivedEvent): NewDeadLetter {
  const { id: eventId, type, key, requestId, topic: at, partition: on, value } = event;
  const unexplained = { topic: at.replace(/\.dead_letters$/, ''), partition: on, group: '', reason: '', attempts: 0 };
  const { topic, partition, group, reason, attempts, failedAt } = { failedAt: 0, ...unexplained, ...event.deadLetter };
  const digest = createHash('sha256').update(value).digest('base64');
  const identity = [topic, partition, group, eventId, failedAt, digest].join('/');
  return {
    id: uuidOf(identity, deadLetterNamespace),
    topic,
    partition,
    group,
    reason: withoutNul(reason),
    attempts,
    failedAt: new Date(failedAt || hubTime()),
    eventId: withoutNul(eventId),
    eventType: withoutNul(type),
    key: withoutNul(key),
    requestId: withoutNul(requestId),
    value: Buffer.from(value),
    ...subjectOf(event, topic),
  };
}

/** PostgreSQL takes none in a text. */
function withoutNul(text: string): string {
  return text.replaceAll('\0', '');
}

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Which message, recipient and channel an event is about, as far as it can be told. */
function subjectOf(event: ReceivedEvent, topic: string): Pick<NewDeadLetter, 'messageId' | 'recipientId' | 'channel'> {
  const channel = /^(.*)_outgoing$/.exec(topic)?.[1] ?? null;
  const uuid = (text: string) => (uuidPattern.test(text) ? text : null);
  // The event of a message that is routed for the first time has its id, whatever else can be read of it.
  const deliveryIn = (report: { messageId: string; recipientId: string; channel: string }) => ({
    messageId: uuid(report.messageId),
    recipientId: uuid(report.recipientId),
    channel: withoutNul(report.channel),
  });
  const unread = { messageId: topic === 'message_processing' ? uuid(event.id) : null, recipientId: null, channel };
  try {
    switch (event.type) {
      case 'chat4all.message.v1.MessageAccepted':
        return { ...unread, messageId: uuid(MessageAccepted.decode(event.value).messageId) ?? unread.messageId };
      case 'chat4all.message.v1.MessageRouted':
        return { ...unread, messageId: uuid(MessageRouted.decode(event.value).messageId) };
      case 'chat4all.message.v1.MessageRejected':
        return { ...unread, messageId: uuid(MessageRejected.decode(event.value).messageId) };
      case 'chat4all.message.v1.DeliveryAttempted':
        return deliveryIn(DeliveryAttempted.decode(event.value));
      case 'chat4all.message.v1.DeliveryEnded':
        return deliveryIn(DeliveryEnded.decode(event.value));
      case 'chat4all.router.v1.DeliveryRequested': {
        const { messageId, recipientId } = DeliveryRequested.decode(event.value);
        return { messageId: uuid(messageId), recipientId: uuid(recipientId), channel };
      }
      default:
        return unread;
    }
  } catch {
    return unread;
  }
}

/** Milliseconds between two looks for dead letters that are old enough to go. */
const forgetEvery = 60_000;
const forgetBatch = 500;

/** Deletes dead letters `retention` milliseconds after they were given up or last replayed. */
export function startForgetting(options: {
  letters: Pick<DeadLetters, 'forget'>;
  log: Logger;
  retention: number;
}): Loop {
  const { letters, log, retention } = options;
  return repeat('The end of old dead letters', log, async () => {
    const forgotten = await letters.forget(new Date(hubTime() - retention), forgetBatch);
    if (forgotten > 0) log.info({ forgotten }, 'Dead letters deleted: their time is over');
    return forgotten === forgetBatch ? 0 : forgetEvery;
  });
}

/** Milliseconds between two looks for messages that are old enough to go. */
const removeEvery = 60_000;
const removeBatch = 500;

/** Removes messages `retention` milliseconds after they were accepted, some hundred at a time. */
export function startRemoval(options: { store: Pick<Store, 'remove'>; log: Logger; retention: number }): Loop {
  const { store, log, retention } = options;
  return repeat('The end of old messages', log, async () => {
    const removed = await store.remove(new Date(hubTime() - retention), removeBatch);
    if (removed > 0) log.info({ removed }, 'Messages removed: their time is over');
    return removed === removeBatch ? 100 : removeEvery;
  });
}
