import { setTimeout as wait } from 'node:timers/promises';
import { Kafka, logLevel, Partitioners, type KafkaConfig } from 'kafkajs';
import type { Logger } from '../log.ts';
import { originOfDeadLetters, type Bus, type Consumer } from './bus.ts';
import { countRequest, logTo, replaceable, retry } from './kafka-clients.ts';
import { consumeTopic, groupOf } from './kafka-consumer.ts';
import { toMessage } from './kafka-events.ts';
import { answersWithin, checkName, publisher, runs, tellOfPartitions } from './publishing.ts';

/** The bus on Kafka, through kafkajs. */
export interface KafkaBusOptions {
  brokers: readonly string[];
  /** How they are reached: in plain text and without a login, if it is empty. */
  access: Pick<KafkaConfig, 'ssl' | 'sasl'>;
  /** Of topics that are made here. */
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
/** Bytes of a message, as a topic takes it. A dead letter is the event and what is said of it, and as it is stored here it may be larger. */
const largestMessage = { event: 4 * 1024 * 1024, deadLetter: 8 * 1024 * 1024 };
const largestRequest = { events: 1_000, bytes: 1024 * 1024 };
const deadLetterRetention = 30 * 24 * 3_600_000;

/** The bus on Kafka, with what asks whether Kafka is there and takes us: what it refuses is no HubError. */
export interface KafkaBus extends Bus {
  ask(): Promise<void>;
}

/** Opens the bus on Kafka. Doesn't connect yet: whatever needs Kafka first does. */
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
  // A client of its own: a probe that is late must not cut off what the other one is doing.
  const prober = replaceable(newAdmin);
  const consumers = new Set<Consumer>();

  /**
   * One thing after the other, of those that have the admin client of kafkajs learn of topics: an answer that comes late makes it forget
   * what it has learnt meanwhile, and then it throws a TypeError.
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
    const largest = isOfDeadLetters ? largestMessage.deadLetter : largestMessage.event;
    const configEntries = [{ name: 'max.message.bytes', value: String(largest) }];
    if (isOfDeadLetters) {
      configEntries.push({ name: 'retention.ms', value: String(deadLetterRetention) });
    }
    await admin.use(limits.topic, async (client) => {
      const wanted = { topic, numPartitions: partitions, configEntries };
      await inTurn(() => client.createTopics({ topics: [wanted], waitForLeaders: false }));
      // A topic has no leaders for a moment, and a broker may not even have heard of it.
      const { topics } = await untilSettled(limits.topic, () => client.fetchTopicMetadata({ topics: [topic] }));
      tellOfPartitions(log, { topic, partitions, found: topics[0]!.partitions.length });
    });
    madeTopics.add(topic);
  }

  const publish = publisher(async (topic, events, isLate) => {
    await makeTopic(topic);
    for (const run of runs(events, largestRequest.events, largestRequest.bytes)) {
      if (isLate()) return;
      await producer.use(limits.store, (client) =>
        client.send({ topic, acks: -1, timeout: 4_000, messages: run.map(toMessage) }),
      );
    }
  });

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
        const consumer = await consumeTopic({ kafka, topic, options, partitions, publish, log });
        consumers.add(consumer);
        return consumer;
      });
      async function stop(): Promise<void> {
        for (const outcome of await Promise.allSettled(starting)) {
          if (outcome.status === 'rejected') continue;
          consumers.delete(outcome.value);
          await outcome.value.stop();
        }
      }
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
            return { partition, events: Math.max(0, Number(high) - position) };
          })
          .sort((a, b) => a.partition - b.partition);
      });
    },
    async stop() {
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      consumers.clear();
      await Promise.all([producer.close(), admin.close(), prober.close()]);
    },
  };
}

/** The error that says that Kafka refuses us (authentication or authorization), if it is among the causes: a retry changes nothing. */
function refusalIn(error: unknown): Error | undefined {
  if (!(error instanceof Error)) return undefined;
  if (/SASL|Authorization/.test(error.name)) return new Error(error.message);
  return refusalIn(error.cause);
}

/** Asks again while Kafka says that it can't tell yet: the admin client of kafkajs doesn't by itself. */
async function untilSettled<T>(limit: number, ask: () => Promise<T>): Promise<T> {
  for (const giveUp = performance.now() + limit; ; await wait(100)) {
    try {
      return await ask();
    } catch (error) {
      if (!isPassing(error) || performance.now() > giveUp) throw error;
    }
  }
}

/** Whether kafkajs says that trying again may help; when it has itself tried often enough, it says so of the cause only. */
function isPassing(error: unknown): boolean {
  const { retriable, cause } = error as { retriable?: boolean; cause?: { retriable?: boolean } };
  return retriable === true || cause?.retriable === true;
}
