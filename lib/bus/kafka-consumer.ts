import {
  PartitionAssigners,
  type Broker,
  type Cluster,
  type Consumer as KafkaConsumer,
  type EachBatchPayload,
  type Kafka,
  type KafkaMessage,
} from 'kafkajs';
import { waitAtMost } from '../deadline.ts';
import type { Logger } from '../log.ts';
import { retryUntilDone } from '../retry.ts';
import type { Bus, Consumer, ConsumeOptions } from './bus.ts';
import { defaultBatchSize, roundHandler, type PartitionBatch } from './handling.ts';
import { countRequest, disconnectTimeoutMs, retry } from './kafka-clients.ts';
import { sizeOf, toEvent } from './kafka-events.ts';
import { Pace } from './pace.ts';

/** How long a running round may take to finish when the consumer stops. */
const stopLimitMs = 10_000;
/**
 * Times of a member of the consumer group, in milliseconds. A member that was killed is noticed at the end of its session, and the others
 * learn of that with their next heartbeat: together less than the 10 s after which they should go on with its partitions. Brokers accept
 * no shorter session by default.
 */
const membership = {
  session: 6_000,
  rebalance: 10_000,
  heartbeat: 1_500,
  fetchWait: 500,
  silence: 30_000,
  /** How long fetching, and with it the heartbeat, may be delayed. */
  maxHold: 1_000,
};
const restartBackoff = { firstMs: 500, maxMs: 500, jitter: 0 };
const maxRoundBytes = 1024 * 1024;
/**
 * How many bytes of a topic are buffered before partitions are paused: of all its partitions, and the maximum and minimum of one. One more
 * fetch may come on top.
 */
const buffering = {
  topicBytes: 8 * 1024 * 1024,
  maxPartitionBytes: 1024 * 1024,
  minPartitionBytes: 64 * 1024,
  partitionEvents: 1_000,
  fetchBytes: 4 * 1024 * 1024,
};

/** The messages of a partition that were fetched and are not handled yet. */
interface PartitionWork {
  partition: number;
  /** The consumer that fetched them and commits their offsets. */
  consumer: KafkaConsumer;
  messages: KafkaMessage[];
  /** The size of `messages` and of those being handled. */
  bytes: number;
  /** The offset of the first message that was not fetched yet. Earlier ones that come again after a rebalance are skipped. */
  next: bigint;
  paused: boolean;
  /** Aborted when the partition may belong to another member. */
  lost: AbortController;
}

/** The part of a round from one partition. */
interface KafkaBatch extends PartitionBatch {
  work: PartitionWork;
  messages: readonly KafkaMessage[];
}

/**
 * Consumes one topic for one group, which is a Kafka group of its own: kafkajs assigns a group's partitions evenly only if all its members
 * subscribe to the same topics.
 *
 * kafkajs is only used to fetch: its own loop would let a batch that is slow or retried hold up all partitions of its broker. Fetched
 * messages are kept here by partition; a round takes those of all partitions that no round is working on, and commits all their offsets at
 * once. kafkajs fetches again when its batch handler returns: that is delayed until the next round may begin, so that the broker is asked
 * once per round and not once per event.
 */
export async function consumeTopic({
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
  const { batchSize = defaultBatchSize } = options;
  const partitionBytes = Math.min(
    buffering.maxPartitionBytes,
    Math.max(buffering.minPartitionBytes, Math.floor(buffering.topicBytes / partitions)),
  );
  const works = new Map<number, PartitionWork>();
  /** By partition: fulfilled once none of its events is being handled. Kept when the partition's `PartitionWork` is dropped. */
  const busy = new Map<number, Promise<void>>();
  let memberId: string | undefined;
  let lastSign = performance.now();

  /** Runs until it fails, which it reports once. */
  interface Running {
    consumer: KafkaConsumer;
    ended: boolean;
    /** Fulfilled once it is no longer about to join the group. */
    begun: Promise<void>;
  }

  async function start(): Promise<Running> {
    let cluster: Cluster | undefined;
    const consumer = kafka.consumer({
      groupId,
      sessionTimeout: membership.session,
      rebalanceTimeout: membership.rebalance,
      heartbeatInterval: membership.heartbeat,
      maxWaitTimeInMs: membership.fetchWait,
      maxBytes: buffering.fetchBytes,
      maxBytesPerPartition: partitionBytes,
      allowAutoTopicCreation: false,
      retry: { ...retry, restartOnFailure: async () => false },
      partitionAssigners: [
        (config) => {
          cluster = config.cluster;
          return PartitionAssigners.roundRobin(config);
        },
      ],
    });
    const running: Running = { consumer, ended: false, begun: Promise.resolve() };
    const signOfLife = () => void (lastSign = performance.now());
    consumer.on('consumer.network.request', countRequest);
    consumer.on('consumer.heartbeat', signOfLife);
    consumer.on('consumer.fetch', signOfLife);
    consumer.on('consumer.group_join', ({ payload }) => {
      signOfLife();
      if (!running.ended) joined(consumer, payload.memberId, payload.memberAssignment[topic] ?? []);
    });
    consumer.on('consumer.crash', ({ payload }) => void restart(running, payload.error));
    try {
      await consumer.connect();
      if (memberId !== undefined && cluster !== undefined) await leaveGroup(cluster, memberId);
      await consumer.subscribe({ topic, fromBeginning: true });
    } catch (error) {
      running.ended = true;
      await disconnect(running);
      throw error;
    }
    signOfLife();
    // Not awaited: it returns once this member has joined, which may have to wait for the session of a dead member to expire.
    running.begun = consumer
      .run({
        autoCommit: false,
        partitionsConsumedConcurrently: partitions,
        eachBatch: (payload) => take(running, payload),
      })
      .catch((error: unknown) => void restart(running, error));
    return running;
  }

  /** Removes this consumer's previous member from the group, which would otherwise wait until that member's session expires. */
  async function leaveGroup(cluster: Cluster, member: string): Promise<void> {
    type Leavable = Broker & { leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown> };
    try {
      const coordinator = (await cluster.findGroupCoordinator({ groupId })) as Leavable;
      await coordinator.leaveGroup({ groupId, memberId: member });
    } catch (error) {
      log.debug({ ...where, err: error }, 'the earlier member could not be taken out of the group');
    }
  }

  /**
   * Leaves the group and closes the connections. A consumer of kafkajs that is told to stop while it joins doesn't hear it: it would become a
   * member for good, whose partitions nobody handles. So this comes after the join, even if that takes longer than anybody waits here.
   */
  async function disconnect({ consumer, begun }: Running): Promise<void> {
    await waitAtMost(
      disconnectTimeoutMs,
      begun.then(() => consumer.disconnect()).catch(() => {}),
    );
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
    fetchOn();
    await disconnect(running);
    if (stopping.signal.aborted) return;
    const startAgain = async () => {
      current = await start();
      log.info(where, 'the consumer has Kafka again');
    };
    await retryUntilDone(startAgain, {
      backoff: restartBackoff,
      signal: stopping.signal,
      onFailure: (failure) => log.debug({ ...where, err: failure }, 'the consumer does not reach Kafka yet'),
    });
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

  /** Takes what kafkajs has fetched of a partition, and returns when it is time to fetch more. */
  async function take({ consumer, ended }: Running, { batch, pause }: EachBatchPayload): Promise<void> {
    if (stopping.signal.aborted || ended) return;
    const { partition } = batch;
    let work = works.get(partition);
    if (work === undefined) {
      work = { partition, consumer, messages: [], bytes: 0, next: 0n, paused: false, lost: new AbortController() };
      works.set(partition, work);
    }
    for (const message of batch.messages) {
      const offset = BigInt(message.offset);
      if (offset < work.next) continue;
      work.next = offset + 1n;
      work.messages.push(message);
      work.bytes += sizeOf(message);
    }
    if (!work.paused && (work.messages.length > buffering.partitionEvents || work.bytes > partitionBytes)) {
      work.paused = true;
      pause();
    }
    if (held === undefined) {
      held = Promise.withResolvers();
      // The other partitions of this fetch are taken in this turn: they belong into the same round.
      setImmediate(goOn);
      holdTimer = setTimeout(fetchOn, membership.maxHold);
    }
    await held.promise;
  }

  /** While kafkajs waits for this it fetches nothing. */
  let held: PromiseWithResolvers<void> | undefined;
  let holdTimer: NodeJS.Timeout | undefined;
  function fetchOn(): void {
    clearTimeout(holdTimer);
    held?.resolve();
    held = undefined;
  }

  let timer: NodeJS.Timeout | undefined;
  const pace = new Pace(options.interval, () => goOn());
  /** Begins a round if there is something for it and its time has come; if there is nothing, more is fetched. */
  function goOn(): void {
    clearTimeout(timer);
    if (stopping.signal.aborted) return fetchOn();
    const pause = pace.wait();
    if (pause > 0) {
      timer = setTimeout(goOn, pause);
      return;
    }
    const { batches, isFull } = takeRound();
    if (batches.length === 0) return fetchOn();
    begin(batches, isFull);
    goOn();
  }

  /** The partition that the next round begins with, so that each is the first in turn. */
  let turn = 0;
  /** Takes the first messages of all partitions that nothing is being done with, then the second ones, up to the limits of a round. */
  function takeRound(): { batches: KafkaBatch[]; isFull: boolean } {
    const ready = [...works.values()].filter(({ partition, messages }) => messages.length > 0 && !busy.has(partition));
    turn += 1;
    const inTurn = ready.map((_, index) => ({ work: ready[(index + turn) % ready.length]!, count: 0 }));
    let events = 0;
    let bytes = 0;
    let open = inTurn;
    while (open.length > 0) {
      open = open.filter((each) => {
        const message = each.work.messages[each.count];
        if (message === undefined || events >= batchSize) return false;
        bytes += sizeOf(message);
        if (events > 0 && bytes > maxRoundBytes) {
          events = batchSize;
          return false;
        }
        each.count += 1;
        events += 1;
        return true;
      });
    }
    const batches = inTurn
      .filter(({ count }) => count > 0)
      .map(({ work, count }) => {
        const messages = work.messages.splice(0, count);
        const { partition, lost } = work;
        const received = messages.map((message) => toEvent(topic, partition, message));
        return { partition, events: received, lost: lost.signal, work, messages };
      });
    return { batches, isFull: events >= batchSize };
  }

  const handleRound = roundHandler<KafkaBatch>({
    options,
    log,
    publish,
    stopping: stopping.signal,
    async commit(progress) {
      const kept = progress.filter(({ batch }) => !batch.lost.aborted);
      const [first] = kept;
      if (first === undefined) return;
      // All batches that aren't lost are of one consumer: starting another one loses all that there are.
      await first.batch.work.consumer.commitOffsets(
        kept.map(({ batch: { partition, messages }, count }) => {
          return { topic, partition, offset: String(BigInt(messages[count - 1]!.offset) + 1n) };
        }),
      );
    },
  });

  function begin(batches: readonly KafkaBatch[], isFull: boolean): void {
    const round = handleRound(batches);
    for (const [index, batch] of batches.entries()) {
      const { partition } = batch;
      const done = round.batches[index]!.then((complete) => {
        if (complete) handled(batch);
      })
        // That is a bug. What was not acknowledged is fetched anew.
        .catch((error: unknown) => restart(current, error))
        .finally(() => {
          busy.delete(partition);
          goOn();
        });
      busy.set(partition, done);
    }
    pace.begin(round.triedTogether, isFull);
  }

  function handled({ work, messages }: KafkaBatch): void {
    for (const message of messages) work.bytes -= sizeOf(message);
    if (!work.paused || work.messages.length >= buffering.partitionEvents / 2 || work.bytes >= partitionBytes / 2)
      return;
    work.paused = false;
    if (!work.lost.signal.aborted) resume(work.consumer, work.partition);
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
      clearTimeout(timer);
      fetchOn();
      await waitAtMost(stopLimitMs, Promise.all([...busy.values(), restarting]));
      await disconnect(current);
    },
  };
}

/** The Kafka group that consumes one topic for a group. */
export function groupOf(topic: string, group: string): string {
  return `${group}.${topic}`;
}
