import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { TestFn } from 'ava';
import { HubError, TimedOut } from '../../errors.ts';
import { type BusEvent, type ReceivedEvent } from '../bus.ts';
import {
  collector,
  deadLetters,
  eventFor,
  eventsFor,
  eventually,
  lagOf,
  newTopic,
  open,
  partitionsOf,
  retry,
  textOf,
  type Engines,
} from './fixtures.ts';

/** How the events of several partitions share rounds on every engine, and which of them wait for one that fails or is slow. */
export function roundsContract(test: TestFn, { shared }: Engines): void {
  test('consume: only the partition of an event that fails waits', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const keys = Array.from({ length: 64 }, () => randomUUID());
    const seen = collector();
    let stuck: number | undefined;
    let failing = true;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        stuck ??= events[0]!.partition;
        if (failing && partitionsOf(events).has(stuck)) throw new HubError('UNAVAILABLE', 'AWAY', 'Away for now');
        seen.add(events);
      },
    });
    await bus.publish(topic, [eventFor(keys[0]!, 'stuck')]);
    await eventually('the first event is tried', () => stuck !== undefined);
    await bus.publish(topic, eventsFor(keys, 64));
    const waiting = async () => (await bus.lag(topic, 'readers')).find(({ partition }) => partition === stuck)!.events;
    await eventually('the others are handled', async () => (await lagOf(bus, topic, 'readers')) === (await waiting()));
    t.true((await waiting()) > 1);
    t.is(seen.events.length, 65 - (await waiting()));
    failing = false;
    await seen.until(65);
    t.is(seen.events.length, 65);
  });

  test('consume: a round has what there is of all partitions, in order within each', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const keys = Array.from({ length: 64 }, () => randomUUID());
    const published = eventsFor(keys, 640);
    await bus.publish(topic, published);
    const rounds: (readonly ReceivedEvent[])[] = [];
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      batchSize: 100,
      async handle(events) {
        rounds.push(events);
        seen.add(events);
      },
    });
    await seen.until(640);
    await eventually('all is acknowledged', async () => (await lagOf(bus, topic, 'readers')) === 0);
    t.true(rounds.length < 20, `${rounds.length} rounds`);
    const all = partitionsOf(seen.events).size;
    t.true(all > 1 && rounds.some((events) => partitionsOf(events).size === all));
    for (const key of keys) {
      const of = (events: readonly BusEvent[]) => events.filter((event) => event.key === key).map(textOf);
      t.deepEqual(of(seen.events), of(published));
    }
  });

  test('consume: what comes soon after a round shares the next one', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const interval = 300;
    let begun = 0;
    let rounds = 0;
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      interval,
      async handle(events) {
        if (rounds++ === 0) begun = performance.now();
        seen.add(events);
      },
    });
    for (const event of eventsFor(['a', 'b', 'c', 'd'], 60)) await bus.publish(topic, [event]);
    await seen.until(60);
    const most = 1 + Math.ceil((performance.now() - begun) / interval);
    t.true(rounds <= most, `${rounds} rounds, ${most} expected at most`);
  });

  test('consume: what a round has no room for comes in the next one at once', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const [batchSize, interval, count] = [20, 1_000, 400];
    const published = eventsFor(
      Array.from({ length: 64 }, () => randomUUID()),
      count,
    );
    await bus.publish(topic, published);
    const seen = collector();
    let begun = 0;
    let rounds = 0;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      batchSize,
      interval,
      async handle(events) {
        if (rounds++ === 0) begun = performance.now();
        seen.add(events);
      },
    });
    await seen.until(count);
    const took = performance.now() - begun;
    t.true(rounds >= count / batchSize);
    t.true(took < ((rounds - 1) * interval) / 2, `${rounds} rounds in ${Math.round(took)} ms`);
  });

  test('consume: a round has no more than 1 MiB, and what is larger comes alone', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const sizes = [...Array.from({ length: 28 }, () => 100), 1_500, 100, 100].map((kib) => kib * 1024);
    const published = sizes.map((size, index) => ({ ...eventFor(String(index % 7), ''), value: Buffer.alloc(size) }));
    while (published.length > 0) await bus.publish(topic, published.splice(0, 4));
    const rounds: number[][] = [];
    await bus.consume({
      topics: [topic],
      group: 'readers',
      handle: async (events) => void rounds.push(events.map(({ value }) => value.byteLength)),
    });
    await eventually('all is there', () => rounds.flat().length === sizes.length);
    for (const round of rounds) {
      t.true(round.length === 1 || round.reduce((sum, size) => sum + size, 0) <= 1024 * 1024, round.join());
    }
    t.true(rounds.length < sizes.length / 2);
  });

  test('consume: an event that fails for good does not hold up other partitions of its round', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const keys = Array.from({ length: 32 }, () => randomUUID());
    const published = [...eventsFor(keys, 64), eventFor(keys[0]!, 'bad'), eventFor(keys[0]!, 'behind')];
    await bus.publish(topic, published);
    const [seen, behind] = [collector(), Promise.withResolvers<void>()];
    const together = new Set<number>();
    let alone = 0;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry: { attempts: 2, firstMs: 10, maxMs: 10 },
      async handle(events) {
        if (!events.some((event) => textOf(event) === 'bad')) return seen.add(events);
        together.add(partitionsOf(events).size);
        // Until those of all other partitions are handled, this one is still being tried.
        if (events.length === 1 && ++alone === 2) await behind.promise;
        throw new Error('bad');
      },
    });
    const stuck = async () => (await bus.lag(topic, 'readers')).filter(({ events }) => events > 0);
    await eventually('only one partition waits', async () => (await stuck()).length === 1);
    t.true([...together].some((partitions) => partitions > 1));
    behind.resolve();
    await seen.until(65);
    t.is(await deadLetters(bus, topic), 1);
    t.is(alone, 2);
    for (const key of keys) {
      const of = (events: readonly BusEvent[]) => events.filter((event) => event.key === key).map(textOf);
      t.deepEqual(
        of(seen.events),
        of(published).filter((text) => text !== 'bad'),
      );
    }
  });

  test('consume: a partition whose events are slow holds up the others of its round, and then no more', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const keys = Array.from({ length: 32 }, () => randomUUID());
    const seen = collector();
    const begun = Promise.withResolvers<void>();
    let released = Promise.withResolvers<void>();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        if (events.some((event) => textOf(event) === 'slow')) {
          begun.resolve();
          await Promise.all([wait(2_200), Promise.race([released.promise, wait(30_000)])]);
        }
        seen.add(events);
      },
    });
    const waiting = async () => (await bus.lag(topic, 'readers')).filter(({ events }) => events > 0).length;
    // What comes while it is slow is handled by rounds without it.
    await bus.publish(topic, [eventFor(keys[0]!, 'slow')]);
    await begun.promise;
    await bus.publish(topic, eventsFor(keys, 32));
    await eventually('only the slow partition waits', async () => (await waiting()) === 1);
    t.true(seen.events.length > 0 && !seen.events.some((event) => textOf(event) === 'slow'));
    released.resolve();
    await seen.until(33);
    // It is known by now, so that a round with the others does not have it.
    released = Promise.withResolvers();
    await bus.publish(topic, [eventFor(keys[0]!, 'slow'), ...eventsFor(keys, 32)]);
    await eventually('only the slow partition waits again', async () => (await waiting()) === 1);
    t.is(seen.events.filter((event) => textOf(event) === 'slow').length, 1);
    released.resolve();
    await seen.until(66);
  });

  test('consume: a round that takes too long is tried with fewer, and one event that does so every time is given up', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const published = [...eventsFor(['key'], 20), eventFor('key', 'endless'), eventFor('key', 'behind')];
    await bus.publish(topic, published);
    const seen = collector();
    const sizes: number[] = [];
    let tries = 0;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        const isEndless = events.some((event) => textOf(event) === 'endless');
        if (isEndless && events.length === 1) tries += 1;
        if (isEndless || events.length > 4) throw new TimedOut('UNAVAILABLE', 'AWAY', 'It took too long');
        sizes.push(events.length);
        seen.add(events);
      },
    });
    await seen.until(21);
    t.deepEqual(
      seen.events.map(textOf),
      published.map(textOf).filter((text) => text !== 'endless'),
    );
    t.true(sizes.some((size) => size > 1));
    t.is(tries, 4 * retry.attempts);
    t.is(await deadLetters(bus, topic), 1);
  });
}
