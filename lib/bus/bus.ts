import type { Backoff } from '../backoff.ts';

/**
 * The port to the event bus. Two adapters: Kafka (`kafka.ts`) and, on a laptop, PostgreSQL (`postgres.ts`); both pass
 * `contract.ts`.
 *
 * Delivery is at least once and in the order of publication per key. Whoever consumes makes its effects happen once.
 */

/** An event as it is published. */
export interface BusEvent {
  /** UUID of this event: the same when the same event is published again. */
  id: string;
  /** Full name of the protobuf message in `value`. */
  type: string;
  /** Events with the same key stay in order. At most 255 characters. */
  key: string;
  /** The protobuf message. At most 2 MiB, unless it was on a topic before. */
  value: Uint8Array;
  /** Request id of the call that it comes from. */
  requestId: string;
  /** Only among dead letters: where the event comes from and why it is there. */
  deadLetter?: DeadLetter;
  /** Only where it is published: it was on a topic before, perhaps by another program, and may be as large as the bus takes. */
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
  /** How often it was tried on its own. */
  attempts: number;
  /** When it was given up, in milliseconds since the epoch. */
  failedAt: number;
}

/** The topic that takes the dead letters of `topic`. */
export function deadLetterTopic(topic: string): string {
  return `${topic}.dead_letters`;
}

/** The topic whose dead letters `topic` takes; undefined if it takes none. */
export function originOfDeadLetters(topic: string): string | undefined {
  return /^(.*)\.dead_letters$/.exec(topic)?.[1];
}

/** An event as it arrives. */
export interface ReceivedEvent extends BusEvent {
  topic: string;
  partition: number;
}

export interface ConsumeOptions {
  topics: readonly string[];
  /** Consumers of one group share the work; each group sees every event. */
  group: string;
  /**
   * Takes a round: events of one topic and of any number of its partitions, in order within each. A normal return acknowledges all of
   * them. If it throws, none may have taken effect in a way that a repetition would double: the events come again, those of each
   * partition by themselves, first together, then one at a time.
   *
   * A transient failure (`isTransient` of lib/errors) is tried again, with backoff, until it works or the consumer stops; after one
   * that means that it took too long (`isTimeout`), with half as many. With any other, an event is tried `retry.attempts` times on its
   * own; then it goes to the topic `<topic>.dead_letters` and the ones behind it go on. So does one whose statement exceeds its time
   * limit (`TimedOut`) four times as often. Meanwhile only this partition waits.
   *
   * Rounds of different partitions may run at once, when one is slow; a partition is in one round at a time. One whose events have
   * taken more than 2 s has rounds of its own for the next 10 s.
   *
   * A single event runs in its call's context (`currentContext` of lib/context); a round of several, which mixes calls, in none.
   */
  handle: (events: readonly ReceivedEvent[]) => Promise<void>;
  /** Called, and tried until it works, before an event is put among the dead letters: ends what waits for the event. */
  onDeadLetter?: (event: ReceivedEvent, error: unknown) => Promise<void>;
  /** Default: 5 attempts, 100 ms doubling up to 5 s between them. */
  retry?: Backoff & { attempts: number };
  /**
   * The shortest time between the beginnings of two rounds, in milliseconds; 30 by default. After a quiet moment an event is handled
   * at once; while more come, they are handled together, and a round costs hardly more than one event. For effects that nobody waits
   * for, choose more, at most 1,000.
   */
  interval?: number;
  /** The most events that `handle` is given at once; 200 by default. They have 1 MiB at most, unless one alone has more. */
  batchSize?: number;
}

export interface Consumer {
  /** Lets the running round finish, acknowledges it and begins no other. Gives it at most 10 s. */
  stop(): Promise<void>;
}

/** How far a group is behind on one partition. */
export interface Lag {
  partition: number;
  /** Events published and not yet acknowledged. */
  events: number;
}

export interface Bus {
  /**
   * Publishes events to one topic, in order. Returns once they are stored durably; makes the topic if it is missing.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` if that can't be had within 5 s: the events may or may not be there
   */
  publish(topic: string, events: readonly BusEvent[]): Promise<void>;
  /**
   * Starts to consume, at the first event that the group has not acknowledged. Recovers by itself from lost connections.
   * What was published before a topic had any group is there for the first one.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` if the bus is away at the start, and stays so for a while
   */
  consume(options: ConsumeOptions): Promise<Consumer>;
  /**
   * Whether the bus takes events now.
   *
   * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` within 2 s
   */
  probe(): Promise<void>;
  /** How far a group is behind on each partition of a topic. */
  lag(topic: string, group: string): Promise<Lag[]>;
  /** Stops all consumers, then closes all connections. */
  stop(): Promise<void>;
}
