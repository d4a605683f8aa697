import {
  Kafka,
  logLevel,
  PartitionAssigners,
  Partitioners,
  type Broker,
  type Cluster,
  type Consumer as KafkaConsumer,
  type EachBatchPayload,
  type KafkaConfig,
  type KafkaMessage,
  type logCreator,
} from 'kafkajs';
import { setTimeout as wait } from 'node:timers/promises';
import type { Logger } from '../log.ts';
import type { Bus, BusEvent, Consumer, ConsumeOptions, DeadLetter, ReceivedEvent } from './bus.ts';
import { handleBatch } from './handling.ts';
import { answersWithin, checkName, publisher, runs } from './publishing.ts';

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
  stop: 10_000,
  disconnect: 5_000,
};
/**
 * Who was killed is noticed after the session, and the others learn of it with their next heartbeat: soon, so that little of the
 * 10 s is used up in which they should go on with its partitions. Brokers take no session shorter than this one by default.
 */
const membership = {
  session: 6_000,
  rebalance: 10_000,
  heartbeat: 1_500,
  fetchWait: 500,
  restartPause: 500,
  silence: 30_000,
};
const retry = { retries: 3, initialRetryTime: 100, maxRetryTime: 1_000 };
const largestMessage = 4 * 1024 * 1024;
const largestRequest = { events: 1_000, bytes: 1024 * 1024 };
/** How much of a partition is held in memory before no more of it is fetched. */
const most = { events: 1_000, bytes: 4 * 1024 * 1024 };
const deadLetterRetention = 30 * 24 * 3_600_000;

/** Opens the bus on Kafka. Doesn't connect yet: whatever needs Kafka first does. */
export async function openKafkaBus({ brokers, access, partitions, clientId, log }: KafkaBusOptions): Promise<Bus> {
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
  const producer = replaceable(() =>
    kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner: Partitioners.DefaultPartitioner,
      retry,
    }),
  );
  const admin = replaceable(() => kafka.admin({ retry }));
  // A client of its own: a probe that is late must not cut off what the other one is doing.
  const prober = replaceable(() => kafka.admin({ retry }));
  const consumers = new Set<Consumer>();

  const madeTopics = new Set<string>();
  async function makeTopic(topic: string): Promise<void> {
    if (madeTopics.has(topic)) return;
    const configEntries = [{ name: 'max.message.bytes', value: String(largestMessage) }];
    if (topic.endsWith('.dead_letters')) {
      configEntries.push({ name: 'retention.ms', value: String(deadLetterRetention) });
    }
    await admin.use(limits.topic, async (client) => {
      const wanted = { topic, numPartitions: partitions, configEntries };
      await client.createTopics({ topics: [wanted], waitForLeaders: false });
      // A topic has no leaders for a moment, and a broker may not even have heard of it.
      await untilSettled(limits.topic, () => client.fetchTopicMetadata({ topics: [topic] }));
    });
    madeTopics.add(topic);
  }

  const publish = publisher(async (topic, events) => {
    await makeTopic(topic);
    for (const run of runs(events, largestRequest.events, largestRequest.bytes)) {
      await producer.use(limits.store, (client) =>
        client.send({ topic, acks: -1, timeout: 4_000, messages: run.map(toMessage) }),
      );
    }
  });

  return {
    publish,
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
    async probe() {
      await prober.use(limits.probe, async (client) => {
        const { brokers: alive } = await client.describeCluster();
        if (alive.length === 0) throw new Error('no broker is there');
      });
    },
    async lag(topic, group) {
      checkName('topic', topic);
      checkName('group', group);
      await makeTopic(topic);
      return admin.use(limits.admin, async (client) => {
        // A new topic has no leaders for a moment, and a new or moving group no coordinator.
        const ends = await untilSettled(limits.admin, () => client.fetchTopicOffsets(topic));
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

/** A client that connects when it is first used and is replaced after a failure: kafkajs's own don't always recover. */
function replaceable<Client extends { connect(): Promise<void>; disconnect(): Promise<void> }>(make: () => Client) {
  let current: { client: Client; connected: Promise<void>; running: Set<Promise<unknown>> } | undefined;

  async function discard(client: Client): Promise<void> {
    await Promise.race([client.disconnect().catch(() => {}), wait(limits.disconnect, undefined, { ref: false })]);
  }

  return {
    /** @throws HubError UNAVAILABLE `BUS_UNAVAILABLE`, within `limit` milliseconds */
    async use<T>(limit: number, work: (client: Client) => Promise<T>): Promise<T> {
      if (current === undefined) {
        const client = make();
        current = { client, connected: client.connect(), running: new Set() };
      }
      const used = current;
      const running = answersWithin(
        limit,
        used.connected.then(() => work(used.client)),
      );
      used.running.add(running);
      try {
        return await running;
      } catch (error) {
        if (current === used) current = undefined;
        // What others still do with it has its own limit, and may well succeed.
        void Promise.allSettled(used.running).then(() => discard(used.client));
        throw error;
      } finally {
        used.running.delete(running);
      }
    },
    async close(): Promise<void> {
      const last = current;
      current = undefined;
      if (last !== undefined) await discard(last.client);
    },
  };
}

/** What is being done with one partition: what was fetched of it and waits for its turn. */
interface PartitionWork {
  messages: KafkaMessage[];
  bytes: number;
  /** Offset of the first message not fetched yet. What comes before it again, after a rebalance, is known already. */
  next: bigint;
  paused: boolean;
  running: boolean;
  /** Aborted when the partition may be somebody else's. */
  lost: AbortController;
}

/**
 * Consumes one topic for one group, which is a Kafka group of its own: kafkajs divides a group's partitions well only if
 * all its members take the same topics.
 *
 * kafkajs only fetches: it would let a batch that takes long, or is tried again and again, hold up all partitions of its
 * broker. Each partition is worked on apart, and commits for itself.
 */
async function consumeTopic({
  kafka,
  topic,
  options,
  partitions,
  publish,
  log,
}: {
  kafka: Kafka;
  topic: string;
  options: ConsumeOptions;
  partitions: number;
  publish: Bus['publish'];
  log: Logger;
}): Promise<Consumer> {
  const stopping = new AbortController();
  const where = { topic, group: options.group };
  const groupId = groupOf(topic, options.group);
  const works = new Map<number, PartitionWork>();
  /** By partition: settles once nothing is being handled any more. Outlives a `PartitionWork` that was dropped. */
  const busy = new Map<number, Promise<void>>();
  let memberId: string | undefined;
  let lastSign = performance.now();

  /** Runs until it fails, which it reports once. */
  interface Running {
    consumer: KafkaConsumer;
    ended: boolean;
  }

  async function start(): Promise<Running> {
    let cluster: Cluster | undefined;
    const consumer = kafka.consumer({
      groupId,
      sessionTimeout: membership.session,
      rebalanceTimeout: membership.rebalance,
      heartbeatInterval: membership.heartbeat,
      maxWaitTimeInMs: membership.fetchWait,
      allowAutoTopicCreation: false,
      retry: { ...retry, restartOnFailure: async () => false },
      partitionAssigners: [
        (config) => {
          cluster = config.cluster;
          return PartitionAssigners.roundRobin(config);
        },
      ],
    });
    const running: Running = { consumer, ended: false };
    const signOfLife = () => void (lastSign = performance.now());
    consumer.on('consumer.heartbeat', signOfLife);
    consumer.on('consumer.fetch', signOfLife);
    consumer.on('consumer.group_join', ({ payload }) => {
      signOfLife();
      joined(consumer, payload.memberId, payload.memberAssignment[topic] ?? []);
    });
    consumer.on('consumer.crash', ({ payload }) => void restart(running, payload.error));
    try {
      await consumer.connect();
      if (memberId !== undefined && cluster !== undefined) await leaveGroup(cluster, memberId);
      await consumer.subscribe({ topic, fromBeginning: true });
    } catch (error) {
      running.ended = true;
      await disconnect(consumer);
      throw error;
    }
    signOfLife();
    // Not waited for: it returns once this member has joined, for which it may have to wait for one that is gone.
    consumer
      .run({
        autoCommit: false,
        partitionsConsumedConcurrently: partitions,
        eachBatch: async (payload) => take(consumer, payload),
      })
      .catch((error: unknown) => restart(running, error));
    return running;
  }

  /** Otherwise the group would wait for the member that this consumer was before, until its session is over. */
  async function leaveGroup(cluster: Cluster, member: string): Promise<void> {
    type Leavable = Broker & { leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown> };
    try {
      const coordinator = (await cluster.findGroupCoordinator({ groupId })) as Leavable;
      await coordinator.leaveGroup({ groupId, memberId: member });
    } catch (error) {
      log.debug({ ...where, err: error }, 'the earlier member could not be taken out of the group');
    }
  }

  async function disconnect(consumer: KafkaConsumer): Promise<void> {
    await Promise.race([consumer.disconnect().catch(() => {}), wait(limits.disconnect, undefined, { ref: false })]);
  }

  async function restart(running: Running, error: unknown): Promise<void> {
    if (running.ended || stopping.signal.aborted) return;
    running.ended = true;
    restarting = again(running, error);
    await restarting;
  }

  async function again(running: Running, error: unknown): Promise<void> {
    log.warn({ ...where, err: error }, 'the consumer lost Kafka; trying again');
    for (const partition of works.keys()) drop(running.consumer, partition);
    await disconnect(running.consumer);
    while (!stopping.signal.aborted) {
      try {
        current = await start();
        log.info(where, 'the consumer has Kafka again');
        return;
      } catch (failure) {
        log.debug({ ...where, err: failure }, 'the consumer does not reach Kafka yet');
        await wait(membership.restartPause, undefined, { signal: stopping.signal }).catch(() => {});
      }
    }
  }

  /** After a rebalance: what this member keeps goes on; all else is dropped, uncommitted. */
  function joined(consumer: KafkaConsumer, member: string, assigned: readonly number[]): void {
    // As a new member it may have missed that its partitions were somebody else's for a while.
    const sameMember = member === memberId;
    memberId = member;
    for (const partition of works.keys()) {
      if (!sameMember || !assigned.includes(partition)) drop(consumer, partition);
    }
  }

  function drop(consumer: KafkaConsumer, partition: number): void {
    const work = works.get(partition);
    if (work === undefined) return;
    works.delete(partition);
    work.lost.abort();
    if (work.paused) resume(consumer, partition);
  }

  function resume(consumer: KafkaConsumer, partition: number): void {
    try {
      consumer.resume([{ topic, partitions: [partition] }]);
    } catch {
      // It has ended; its successor begins with nothing paused.
    }
  }

  /** Takes what kafkajs has fetched of a partition, and returns at once. */
  function take(consumer: KafkaConsumer, { batch, pause }: EachBatchPayload): void {
    const { partition } = batch;
    let work = works.get(partition);
    if (work === undefined) {
      work = { messages: [], bytes: 0, next: 0n, paused: false, running: false, lost: new AbortController() };
      works.set(partition, work);
    }
    for (const message of batch.messages) {
      const offset = BigInt(message.offset);
      if (offset < work.next) continue;
      work.next = offset + 1n;
      work.messages.push(message);
      work.bytes += sizeOf(message);
    }
    if (!work.paused && (work.messages.length > most.events || work.bytes > most.bytes)) {
      work.paused = true;
      pause();
    }
    if (work.running || work.messages.length === 0) return;
    work.running = true;
    const running = work;
    const done = (busy.get(partition) ?? Promise.resolve())
      .then(() => workOff(consumer, partition, running))
      .catch((error: unknown) =>
        log.error({ ...where, partition, err: error }, 'a partition is not worked on any more'),
      )
      .finally(() => {
        if (busy.get(partition) === done) busy.delete(partition);
      });
    busy.set(partition, done);
  }

  async function workOff(consumer: KafkaConsumer, partition: number, work: PartitionWork): Promise<void> {
    const signal = AbortSignal.any([stopping.signal, work.lost.signal]);
    while (work.messages.length > 0 && !signal.aborted) {
      const messages = work.messages.splice(0, options.batchSize ?? 200);
      const complete = await handleBatch(
        messages.map((message) => toEvent(topic, partition, message)),
        {
          options,
          log,
          publish,
          signal,
          async through(count) {
            if (work.lost.signal.aborted) throw new Error('the partition was given to another consumer');
            const offset = String(BigInt(messages[count - 1]!.offset) + 1n);
            await consumer.commitOffsets([{ topic, partition, offset }]);
          },
        },
      );
      if (!complete) return;
      for (const message of messages) work.bytes -= sizeOf(message);
      if (work.paused && work.messages.length < most.events / 2 && work.bytes < most.bytes / 2) {
        work.paused = false;
        resume(consumer, partition);
      }
    }
    // In the same turn as the last look at `messages`, so that what is fetched from now on begins anew.
    work.running = false;
  }

  let restarting = Promise.resolve();
  let current = await start();
  const watch = setInterval(() => {
    if (performance.now() - lastSign < membership.silence) return;
    lastSign = performance.now();
    void restart(current, new Error('nothing was heard from Kafka for too long'));
  }, 5_000);

  return {
    async stop() {
      stopping.abort();
      clearInterval(watch);
      await Promise.race([Promise.all([...busy.values(), restarting]), wait(limits.stop, undefined, { ref: false })]);
      await disconnect(current.consumer);
    },
  };
}

function groupOf(topic: string, group: string): string {
  return `${group}.${topic}`;
}

function sizeOf(message: KafkaMessage): number {
  return (message.value?.byteLength ?? 0) + 200;
}

function toMessage(event: BusEvent) {
  const headers: Record<string, string> = { id: event.id, type: event.type, request_id: event.requestId };
  if (event.deadLetter !== undefined) headers['dead_letter'] = JSON.stringify(event.deadLetter);
  const { buffer, byteOffset, byteLength } = event.value;
  return { key: event.key, value: Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength), headers };
}

function toEvent(topic: string, partition: number, message: KafkaMessage): ReceivedEvent {
  const header = (name: string) => message.headers?.[name]?.toString();
  const deadLetter = readDeadLetter(header('dead_letter'));
  return {
    id: header('id') ?? '',
    type: header('type') ?? '',
    // What others publish may have no key, or a longer one than ours; it must still fit among the dead letters.
    key: message.key?.toString().slice(0, 255) || 'none',
    value: message.value ?? Buffer.alloc(0),
    requestId: header('request_id') ?? '',
    topic,
    partition,
    ...(deadLetter === undefined ? {} : { deadLetter }),
  };
}

/** Undefined for what isn't ours: an event that can't be taken would hold its partition up for ever. */
function readDeadLetter(text: string | undefined): DeadLetter | undefined {
  try {
    return text === undefined ? undefined : (JSON.parse(text) as DeadLetter);
  } catch {
    return undefined;
  }
}

/**
 * kafkajs's log in ours. It reports as errors and warnings what is part of a normal life (a rebalance, a broker that
 * restarts), and what fails for good is reported by the caller: so all of it is for those who look closer.
 */
function logTo(log: Logger): logCreator {
  return () =>
    ({ namespace, level, log: { message, broker, groupId, error } }) => {
      const line = { kafkajs: namespace, broker, groupId, error: error as unknown };
      if (level === logLevel.ERROR) log.debug(line, message);
      else log.trace(line, message);
    };
}
