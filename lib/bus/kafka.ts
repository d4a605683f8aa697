import { setTimeout as wait } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners, type KafkaConfig } from 'kafkajs';
import type { Logger } from '../log.ts';
import { originOfDeadLetters, type Bus, type Consumer } from './bus.ts';
import { countRequest, logTo, replaceable, retry } from './kafka-clients.ts';
import { consumeTopic, groupOf } from './kafka-consumer.ts';
import { toMessage } from './kafka-events.ts';
import { answersWithin, checkName, publisher, runs, warnOfPartitions } from './publishing.ts';

/** The bus on Kafka, through kafkajs. */
export interface KafkaBusOptions {
  brokers: readonly string[];
  /** TLS and login; empty for plain text without a login. */
  access: Pick<KafkaConfig, 'ssl' | 'sasl'>;
  /** The number of partitions of topics that are created here. */
  partitions: number;
  clientId: string;
  log: Logger;
}

/** Milliseconds. */
const limits = {
  store: 4_500,
  topic: 9_000,
  probe: 2_000,
  admin: 5_000,
  consume: 10_000,
};
/** `max.message.bytes` of topics. A dead letter is the event plus its reason, so its limit is larger. */
const maxMessageBytes = { event: 4 * 1024 * 1024, deadLetter: 8 * 1024 * 1024 };
const maxRequest = { events: 1_000, bytes: 1024 * 1024 };
const deadLetterRetention = 30 * 24 * 3_600_000;

/** The bus on Kafka, with a check for the start of a process. A refusal by Kafka is not a HubError. */
export interface KafkaBus extends Bus {
  ask(): Promise<void>;
}

/** Opens the bus on Kafka. The first use connects. */
export function openKafkaBus({ brokers, access, partitions, clientId, log }: KafkaBusOptions): KafkaBus {
  const kafka = new Kafka({
    clientId,
    brokers: [...brokers],
    ...access,
    connectionTimeout: 1_500,
    requestTimeout: 5_000,
    retry,
    logLevel: logLevel.WARN,
    logCreator: logTo(log),
  });
  const producer = replaceable(() => {
    const client = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
      retry,
    });
    client.on('producer.network.request', countRequest);
    return client;
  });
  const newAdmin = () => {
    const client = kafka.admin({ retry });
    client.on('admin.network.request', countRequest);
    return client;
  };
  const admin = replaceable(newAdmin);
  // A client of its own: a probe that times out must not disconnect the other client.
  const prober = replaceable(newAdmin);
  /** Also those that are only about to begin. */
  const consumers = new Set<Promise<Consumer>>();

  /**
   * Requests that make the admin client of kafkajs load metadata of topics run one after the other: a late answer would overwrite newer
   * metadata, and kafkajs then throws a TypeError.
   */
  let lastTurn: Promise<unknown> = Promise.resolve();
  function inTurn<T>(ask: () => Promise<T>): Promise<T> {
    const turn = lastTurn.then(ask);
    lastTurn = turn.catch(() => {});
    return turn;
  }

  const madeTopics = new Set<string>();
  async function makeTopic(topic: string): Promise<void> {
    if (madeTopics.has(topic)) return;
    const isOfDeadLetters = originOfDeadLetters(topic) !== undefined;
    const largest = isOfDeadLetters ? maxMessageBytes.deadLetter : maxMessageBytes.event;
    const configEntries = [{ name: 'max.message.bytes', value: String(largest) }];
    if (isOfDeadLetters) {
      configEntries.push({ name: 'retention.ms', value: String(deadLetterRetention) });
    }
    await admin.use(limits.topic, async (client) => {
      const wanted = { topic, numPartitions: partitions, configEntries };
      await inTurn(() => client.createTopics({ topics: [wanted], waitForLeaders: false }));
      // A new topic has no leaders for a moment, and a broker may not know it yet.
      const { topics } = await untilSettled(limits.topic, () => client.fetchTopicMetadata({ topics: [topic] }));
      warnOfPartitions(log, { topic, partitions, found: topics[0]!.partitions.length });
    });
    madeTopics.add(topic);
  }

  const publish = publisher(async (topic, events, isLate) => {
    await makeTopic(topic);
    for (const run of runs(events, maxRequest.events, maxRequest.bytes)) {
      if (isLate()) return;
      await producer.use(limits.store, (client) =>
        client.send({ topic, acks: -1, timeout: 4_000, messages: run.map(toMessage) }),
      );
    }
  });

  async function stopAll(some: readonly Promise<Consumer>[]): Promise<void> {
    for (const each of some) consumers.delete(each);
    // One that has not begun has nothing to stop.
    await Promise.all(some.map((each) => each.then((consumer) => consumer.stop()).catch(() => {})));
  }

  async function describe(limit: number): Promise<void> {
    await prober.use(limit, async (client) => {
      const { brokers: alive } = await client.describeCluster();
      if (alive.length === 0) throw new Error('no broker is there');
    });
  }

  return {
    publish,
    async ask() {
      try {
        await describe(limits.admin);
      } catch (error) {
        throw refusalIn(error) ?? error;
      }
    },
    async consume(options) {
      checkName('group', options.group);
      options.topics.forEach((topic) => checkName('topic', topic));
      const starting = options.topics.map(async (topic) => {
        await makeTopic(topic);
        return consumeTopic({ kafka, topic, options, partitions, publish, log });
      });
      for (const each of starting) consumers.add(each);
      const stop = () => stopAll(starting);
      try {
        await answersWithin(limits.consume, Promise.all(starting));
      } catch (error) {
        void stop();
        throw error;
      }
      return { stop };
    },
    probe: () => describe(limits.probe),
    async lag(topic, group) {
      checkName('topic', topic);
      checkName('group', group);
      await makeTopic(topic);
      return admin.use(limits.admin, async (client) => {
        // A new topic has no leaders for a moment, and a new or moving group no coordinator.
        const ends = await inTurn(() => untilSettled(limits.admin, () => client.fetchTopicOffsets(topic)));
        const [committed] = await untilSettled(limits.admin, () =>
          client.fetchOffsets({ groupId: groupOf(topic, group), topics: [topic] }),
        );
        const positions = new Map(committed?.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
        return ends
          .map(({ partition, high, low }) => {
            const position = Math.max(positions.get(partition) ?? 0, Number(low));
            return { partition, events: Math.max(0, Number(high) - position), next: position };
          })
          .sort((a, b) => a.partition - b.partition);
      });
    },
    async stop() {
      await stopAll([...consumers]);
      await Promise.all([producer.close(), admin.close(), prober.close()]);
    },
  };
}

/** Finds an authentication or authorization error among the causes: retrying is of no use then. */
function refusalIn(error: unknown): Error | undefined {
  if (!(error instanceof Error)) return undefined;
  if (/SASL|Authorization/.test(error.name)) return new Error(error.message);
  return refusalIn(error.cause);
}

/** Retries while Kafka's answer is a retriable error, which the admin client of kafkajs doesn't do by itself. */
async function untilSettled<T>(limit: number, ask: () => Promise<T>): Promise<T> {
  for (const giveUp = performance.now() + limit; ; await wait(100)) {
    try {
      return await ask();
    } catch (error) {
      if (!isRetriable(error) || performance.now() > giveUp) throw error;
    }
  }
}

/** Whether kafkajs calls an error retriable; once it has exhausted its own retries, only the cause is marked so. */
function isRetriable(error: unknown): boolean {
  const { retriable, cause } = error as { retriable?: boolean; cause?: { retriable?: boolean } };
  return retriable === true || cause?.retriable === true;
}
