import type { Backoff } from '../backoff.ts';

/**
 * The port to the event bus. Two adapters: Kafka (`kafka.ts`) and, on a laptop, PostgreSQL (`postgres.ts`); both pass `contract.ts`.
 *
 * Delivery is at least once, and in the order of publication per key. Consumers must make sure that each effect happens once.
 */

export interface BusEvent {
  /** UUID of the event; the same when it is published again. */
  id: string;
  /** Full name of the protobuf message in `value`. */
  type: string;
  /** Events with the same key stay in order. At most 255 characters. */
  key: string;
  /** The protobuf message. At most 2 MiB, unless it was on a topic before. */
  value: Uint8Array;
  /** Request id of the call that caused the event. */
  requestId: string;
  /** The `traceparent` (W3C Trace Context) of the span that published it, if its request is traced and the engine keeps headers. */
  traceparent?: string;
  /** Only among dead letters: where the event comes from and why it is there. */
  deadLetter?: DeadLetter;
  /** Only when publishing: the event was on a topic before, perhaps from another program, and may be as large as the engine allows. */
  isReplayed?: boolean;
}

/** Why an event was put among the dead letters of its topic. */
export interface DeadLetter {
  /** The topic and partition that it was consumed from. Publishing it there again, without `deadLetter`, replays it. */
  topic: string;
  partition: number;
  /** The group that could not handle it. */
  group: string;
  /** The last error, as a line for an administrator. */
  reason: string;
  /** How often it was tried by itself. */
  attempts: number;
  /** When it was given up, in milliseconds since the epoch. */
  failedAt: number;
}

/** The topic for the dead letters of `topic`. */
export function deadLetterTopic(topic: string): string {
  return `${topic}.dead_letters`;
}

/** The topic whose dead letters go to `topic`; undefined if it is no topic for dead letters. */
export function originOfDeadLetters(topic: string): string | undefined {
  return /^(.*)\.dead_letters$/.exec(topic)?.[1];
}

export interface ReceivedEvent extends BusEvent {
  topic: string;
  partition: number;
}

export interface ConsumeOptions {
  topics: readonly string[];
  /** Consumers of one group share the work; each group sees every event. */
  group: string;
  /**
   * Handles a round: events of one topic and of any number of its partitions, in order within each. To return acknowledges all of them. If
   * it throws, it must have had no effect that a repetition would double: the events come again, those of each partition by themselves,
   * first together, then one at a time.
   *
   * A transient failure (`isTransient` of lib/errors) is retried with backoff until it succeeds or the consumer stops; after a timeout
   * (`isTimeout`) with half as many events. After any other failure an event is tried `retry.attempts` times by itself; then it goes to the
   * topic `<topic>.dead_letters`, and the events behind it go on. So does one whose statement runs into its timeout (`TimedOut`) four times
   * as often. Meanwhile only this partition waits.
   *
   * Rounds of different partitions may run at once when one is slow; a partition is in one round at a time. A partition whose events have
   * taken more than 2 s has rounds of its own for the next 10 s.
   *
   * A single event is handled in its call's context (`currentContext` of lib/context); a round of several, which mixes calls, in none.
   */
  handle: (events: readonly ReceivedEvent[]) => Promise<void>;
  /** Called before an event goes to the dead letters, to end what waits for it. Retried until it succeeds. */
  onDeadLetter?: (event: ReceivedEvent, error: unknown) => Promise<void>;
  /** By default 5 attempts, with pauses from 100 ms doubling up to 5 s. */
  retry?: Backoff & { attempts: number };
  /**
   * The minimum time between the starts of two rounds, in milliseconds; 30 by default. After a quiet moment an event is handled at once;
   * while more come, they are handled together, at hardly more than the cost of one. A full round is followed by the next one at once, so
   * that this limits no throughput. For effects that nobody waits for choose more, 1,000 at most.
   */
  interval?: number;
  /** The maximum number of events in a round; 200 by default. Together they have 1 MiB at most, unless a single one is larger. */
  batchSize?: number;
}

export interface Consumer {
  /** Lets the running round finish, for 10 s at most, acknowledges it and starts no other. */
  stop(): Promise<void>;
}

/** How far a group is behind on one partition. */
export interface Lag {
  partition: number;
  /** Events published and not yet acknowledged. */
  events: number;
  /** The offset of the first of them, or that of the next event if there are none. It only grows. */
  next: number;
}

export interface Bus {
  /**
   * Publishes events to one topic, in order. Returns once they are stored durably. Creates the topic if it is missing.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` if that fails or takes more than 5 s: the events may or may not be stored
   */
  publish(topic: string, events: readonly BusEvent[]): Promise<void>;
  /**
   * Starts to consume at the first event that the group has not acknowledged. Reconnects by itself. Events that were published before a
   * topic had any group are kept for the first group.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` if the bus is unavailable at the start and stays so for a while
   */
  consume(options: ConsumeOptions): Promise<Consumer>;
  /**
   * Fulfilled if the bus accepts events now.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` within 2 s
   */
  probe(): Promise<void>;
  /** How far a group is behind on each partition of a topic. */
  lag(topic: string, group: string): Promise<Lag[]>;
  /** Stops all consumers, then closes all connections. */
  stop(): Promise<void>;
}
