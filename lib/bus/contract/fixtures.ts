import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { deadLetterTopic, type Bus, type BusEvent, type ReceivedEvent } from '../bus.ts';

/** An engine that buses are opened on. */
export interface Engine {
  /** Settings that `openBus` takes for it, as environment variables. */
  env: Record<string, string>;
  open(): Promise<Bus>;
}

/** An engine that a test has for itself. */
export interface PrivateEngine extends Engine {
  stop(): Promise<void>;
  /** After `stop`. */
  start(): Promise<void>;
  /** Stops it for good, with whatever belongs to it. */
  remove(): Promise<void>;
}

export interface Engines {
  shared: () => Engine;
  startPrivate: () => Promise<PrivateEngine>;
}

/** Fast, for tests. */
export const retry = { attempts: 3, firstMs: 10, maxMs: 50 };

export async function open(t: ExecutionContext, engine: Engine): Promise<Bus> {
  const bus = await engine.open();
  t.teardown(() => bus.stop());
  return bus;
}

/** A topic that exists: to make one may take longer than `publish` waits while many tests do. */
export async function newTopic(bus: Bus): Promise<string> {
  const topic = `contract-${randomUUID()}`;
  await eventually('the topic is made', () => succeeds(bus.lag(topic, 'nobody')));
  return topic;
}

export async function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

export function eventFor(key: string, text: string): BusEvent {
  return { id: randomUUID(), type: 'chat4all.test.Text', key, value: Buffer.from(text), requestId: randomUUID() };
}

/** Events numbered in order, one key after the other. */
export function eventsFor(keys: readonly string[], count: number): BusEvent[] {
  return Array.from({ length: count }, (_, index) => eventFor(keys[index % keys.length]!, String(index)));
}

export function partitionsOf(events: readonly ReceivedEvent[]): Set<number> {
  return new Set(events.map(({ partition }) => partition));
}

export function textOf(event: BusEvent): string {
  return Buffer.from(event.value).toString();
}

export async function lagOf(bus: Bus, topic: string, group: string): Promise<number> {
  return (await bus.lag(topic, group)).reduce((sum, { events }) => sum + events, 0);
}

export async function deadLetters(bus: Bus, topic: string): Promise<number> {
  return lagOf(bus, deadLetterTopic(topic), 'nobody');
}

export async function eventually(what: string, isSo: () => boolean | Promise<boolean>, limit = 40_000): Promise<void> {
  for (const giveUp = Date.now() + limit; !(await isSo()); await wait(20)) {
    if (Date.now() > giveUp) throw new Error(`${what}: not so after ${limit} ms`);
  }
}

export interface Collector {
  events: ReceivedEvent[];
  add(events: readonly ReceivedEvent[]): void;
  until(count: number): Promise<void>;
}

export function collector(): Collector {
  const events: ReceivedEvent[] = [];
  return {
    events,
    add: (more) => void events.push(...more),
    until: (count) => eventually(`${count} events (${events.length} now)`, () => events.length >= count),
  };
}
