import { createHash } from 'node:crypto';
import { v5 as uuidOf } from 'uuid';
import {
  DeliveryAttempted,
  DeliveryEnded,
  MessageAccepted,
  MessageRejected,
  MessageRouted,
} from '#gen/chat4all/message/v1/events.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import { channelOfOutgoing, eventTypes, topics } from '#gen/events.ts';
import { deadLetterTopic, originOfDeadLetters, type Bus, type Consumer, type ReceivedEvent } from '#lib/bus/bus.ts';
import { hubTime } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, sweep, type Loop } from '#lib/loop.ts';
import { sample, sharedGauge } from '#lib/metrics.ts';
import { isUuid } from '#lib/uuid.ts';
import type { Channels } from '../messages/channels.ts';
import type { DeadLetters, DeadLetterWithValue, NewDeadLetter } from './dead-letters-store.ts';

const waiting = sharedGauge('dead_letters_waiting', 'Events that were given up and not replayed so far');

/** Shows the number of dead letters as a metric. @returns a function that ends that */
export function watchDeadLetters(letters: Pick<DeadLetters, 'count'>): () => void {
  return sample(async (tell) => tell(waiting, {}, await letters.count({ state: 'waiting' })));
}

/** Dead letters are collected for this long before they are stored. */
const recordIntervalMs = 100;
/** How often the installed channels are looked up. */
const channelsPollEveryMs = { known: 5_000, unknown: 500 };

/** The topics that are there whatever channels there are. */
const commonTopics = [
  topics.messageProcessing,
  topics.messageStatus,
  topics.messageChanges,
  topics.conversationChanges,
  topics.fileChanges,
];

/** Stores the dead letters of all topics of the hub, including those of channels that are installed later. */
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
    // Before the connectors have answered, the hub is still starting.
    if (known === undefined) return channelsPollEveryMs.unknown;
    for (const topic of [...commonTopics, ...known.map(topics.outgoing)]) {
      if (consumers.has(topic)) continue;
      const consumer = await bus.consume({
        topics: [deadLetterTopic(topic)],
        group: 'operations',
        interval: recordIntervalMs,
        batchSize: maxDeadLettersAtOnce,
        handle: (events) => letters.record(events.map(deadLetterOf)),
      });
      consumers.set(topic, consumer);
    }
    return channelsPollEveryMs.known;
  });
  return {
    async stop() {
      await starting.stop();
      await Promise.all([...consumers.values()].map((consumer) => consumer.stop()));
    },
  };
}

/** Few, since each may have 4 MiB. */
const maxDeadLettersAtOnce = 20;

/** The namespace for ids of dead letters, so that one that comes again has the same id. */
const deadLetterNamespace = '5b0f1c52-7f0e-4e0e-8f0c-0b6f0a5a9c11';

/** Reads a dead letter. Never throws, since there is no place for an unreadable one. */
export function deadLetterOf(event: ReceivedEvent): NewDeadLetter {
  const { id: eventId, type, key, requestId, topic: at, partition: on, value } = event;
  const unexplained = { topic: originOfDeadLetters(at) ?? at, partition: on, group: '', reason: '', attempts: 0 };
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

/** PostgreSQL refuses NUL in texts. */
function withoutNul(text: string): string {
  return text.replaceAll('\0', '');
}

/** The message, recipient and channel of an event, as far as they can be read. */
function subjectOf(event: ReceivedEvent, topic: string): Pick<NewDeadLetter, 'messageId' | 'recipientId' | 'channel'> {
  const channel = channelOfOutgoing(topic) ?? null;
  const uuid = (text: string) => (isUuid(text) ? text : null);
  // In its first round, the event of a message has the message's id, even if its value is unreadable.
  const deliveryIn = (report: { messageId: string; recipientId: string; channel: string }) => ({
    messageId: uuid(report.messageId),
    recipientId: uuid(report.recipientId),
    channel: withoutNul(report.channel),
  });
  const unread = { messageId: topic === topics.messageProcessing ? uuid(event.id) : null, recipientId: null, channel };
  try {
    switch (event.type) {
      case eventTypes.MessageAccepted:
        return { ...unread, messageId: uuid(MessageAccepted.decode(event.value).messageId) ?? unread.messageId };
      case eventTypes.MessageRouted:
        return { ...unread, messageId: uuid(MessageRouted.decode(event.value).messageId) };
      case eventTypes.MessageRejected:
        return { ...unread, messageId: uuid(MessageRejected.decode(event.value).messageId) };
      case eventTypes.DeliveryAttempted:
        return deliveryIn(DeliveryAttempted.decode(event.value));
      case eventTypes.DeliveryEnded:
        return deliveryIn(DeliveryEnded.decode(event.value));
      case eventTypes.DeliveryRequested: {
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

/** Publishes dead letters again unchanged, those of a topic together and in order. */
export async function publishAgain(bus: Pick<Bus, 'publish'>, letters: readonly DeadLetterWithValue[]): Promise<void> {
  for (const [topic, group] of Map.groupBy(letters, (letter) => letter.topic)) {
    await bus.publish(
      topic,
      group.map(({ eventId, eventType, key, value, requestId }) => ({
        id: eventId,
        type: eventType,
        key,
        value,
        requestId,
        isReplayed: true,
      })),
    );
  }
}

const forgettingSizes = { batchSize: 500, everyMs: 60_000 };

/** Deletes dead letters `retention` milliseconds after they failed or were last replayed. */
export function startForgetting(options: {
  letters: Pick<DeadLetters, 'forget'>;
  log: Logger;
  retention: number;
}): Loop {
  const { letters, log, retention } = options;
  return sweep('The end of old dead letters', log, forgettingSizes, async (batchSize) => {
    const forgotten = await letters.forget(new Date(hubTime() - retention), batchSize);
    if (forgotten > 0) log.info({ forgotten }, 'Dead letters deleted: their time is over');
    return forgotten;
  });
}
