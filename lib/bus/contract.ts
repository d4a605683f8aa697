import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import type { ExecutionContext, TestFn } from 'ava';
import { currentContext } from '../context.ts';
import { HubError, TimedOut } from '../errors.ts';
import { deadLetterTopic, type Bus, type BusEvent, type ReceivedEvent } from './bus.ts';

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

/** Longer than the lease of a consumer that is gone, on either engine. */
const pastLease = 12_000;
/** Fast, for tests. */
const retry = { attempts: 3, firstMs: 10, maxMs: 50 };

/** What every engine must do. Each test has topics of its own, so that they may run at once. */
export function busContract(test: TestFn, { shared, startPrivate }: Engines): void {
  // Alone, before the others: engines that start take what there is of the processor.
  test.serial('an engine that stops and comes back: publish, probe and consume fail clearly and recover', async (t) => {
    const engine = await startPrivate();
    t.teardown(() => engine.remove());
    const bus = await open(t, engine);
    const topic = await newTopic(bus);
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await bus.publish(topic, [eventFor('key', 'before')]);
    await seen.until(1);

    await engine.stop();
    const isAway = { instanceOf: HubError, message: /not available/ };
    const refused = await t.throwsAsync<HubError>(() => bus.publish(topic, [eventFor('key', 'during')]), isAway);
    t.like(refused, { kind: 'UNAVAILABLE', reason: 'BUS_UNAVAILABLE', retryAfter: 1 });
    const unanswered = await t.throwsAsync<HubError>(() => bus.probe(), isAway);
    t.is(unanswered?.reason, 'BUS_UNAVAILABLE');

    await engine.start();
    const works = (work: () => Promise<void>) => async () => work().then(...([() => true, () => false] as const));
    await eventually(
      'probe works again',
      works(() => bus.probe()),
    );
    await eventually(
      'publish works again',
      works(() => bus.publish(topic, [eventFor('key', 'after')])),
    );
    await eventually('the consumer gets events again', () => seen.events.some((event) => textOf(event) === 'after'));
    t.is(textOf(seen.events[0]!), 'before');
  });

  test('publish: events of one key stay in order, whatever is between them', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const keys = Array.from({ length: 20 }, () => randomUUID());
    const published = Array.from({ length: 1_000 }, (_, index) => eventFor(keys[(index * 7) % 20]!, String(index)));
    const working = new Set<number>();
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      batchSize: 30,
      async handle(events) {
        const partitions = partitionsOf(events);
        for (const partition of partitions) {
          t.false(working.has(partition), 'one partition is in two rounds at once');
          working.add(partition);
        }
        await wait(Math.random() * 5);
        for (const partition of partitions) working.delete(partition);
        t.true(events.length <= 30);
        seen.add(events);
      },
    });
    for (let start = 0; start < 1_000; start += 50) await bus.publish(topic, published.slice(start, start + 50));
    await seen.until(1_000);
    for (const key of keys) {
      t.deepEqual(
        seen.events.filter((event) => event.key === key).map(textOf),
        published.filter((event) => event.key === key).map(textOf),
      );
    }
  });

  test('publish: calls that are not waited for store their events in the order of the calls', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const key = randomUUID();
    const texts = Array.from({ length: 100 }, (_, index) => String(index));
    await Promise.all(texts.map((text) => bus.publish(topic, [eventFor(key, text)])));
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await seen.until(100);
    t.deepEqual(seen.events.map(textOf), texts);
  });

  test('publish: an event arrives as it was, also one of 1 MiB', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const key = 'çlave 🔑';
    const large = { ...eventFor(key, ''), value: Buffer.alloc(1024 * 1024, randomUUID()) };
    await bus.publish(topic, [eventFor(key, 'small'), large, { ...eventFor(key, ''), value: new Uint8Array() }]);
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await seen.until(3);
    const [, received, empty] = seen.events;
    t.deepEqual({ ...received!, value: null }, { ...large, value: null, topic, partition: received!.partition });
    t.true(Buffer.from(received!.value).equals(large.value));
    t.is(empty!.value.byteLength, 0);
  });

  test('publish: an event over 2 MiB, a key over 255 characters or an impossible topic is refused', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const tooLarge = { ...eventFor('key', ''), value: Buffer.alloc(2 * 1024 * 1024 + 1) };
    await t.throwsAsync(bus.publish(topic, [eventFor('key', ''), tooLarge]), { message: /events\[1\]\.value/ });
    await t.throwsAsync(bus.publish(topic, [eventFor('k'.repeat(256), '')]), { message: /events\[0\]\.key/ });
    await t.throwsAsync(bus.publish('no topic', [eventFor('key', '')]), { message: /topic/ });
  });

  test('probe: an engine that is there answers', async (t) => {
    const bus = await open(t, shared());
    await t.notThrowsAsync(bus.probe());
  });

  test('consume: what was published before anybody consumed is there for the first group', async (t) => {
    const publisher = await open(t, shared());
    const topic = await newTopic(publisher);
    await publisher.publish(topic, eventsFor(['a', 'b', 'c'], 30));
    const seen = collector();
    const bus = await open(t, shared());
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await seen.until(30);
    await publisher.publish(topic, eventsFor(['a', 'b', 'c'], 3));
    await seen.until(33);
    t.is(new Set(seen.events.map((event) => event.id)).size, 33);
  });

  test('consume: each group sees every event, and the members of a group share them', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const [first, second, other] = [collector(), collector(), collector()];
    const handlers = (to: Collector) => async (events: readonly ReceivedEvent[]) => {
      await wait(5);
      to.add(events);
    };
    await one.consume({ topics: [topic], group: 'sharing', handle: handlers(first) });
    await two.consume({ topics: [topic], group: 'sharing', handle: handlers(second) });
    await two.consume({ topics: [topic], group: 'alone', handle: handlers(other) });
    const keys = Array.from({ length: 64 }, () => randomUUID());
    const published: BusEvent[] = [];
    await eventually('both members get events', async () => {
      const more = eventsFor(keys, 64);
      published.push(...more);
      await one.publish(topic, more);
      return first.events.length > 0 && second.events.length > 0;
    });
    const expected = published.map((event) => event.id).toSorted();
    const idsOf = (...collectors: Collector[]) => [
      ...new Set(collectors.flatMap((each) => each.events).map((event) => event.id)),
    ];
    await eventually('the group has all', () => idsOf(first, second).length === expected.length);
    await eventually('the other group has all', () => idsOf(other).length === expected.length);
    t.deepEqual(idsOf(first, second).toSorted(), expected);
    t.deepEqual(idsOf(other).toSorted(), expected);
  });

  test('consume: one group may take several topics, and another consumer of it others', async (t) => {
    const bus = await open(t, shared());
    const topics = [await newTopic(bus), await newTopic(bus), await newTopic(bus)];
    const [two, one] = [collector(), collector()];
    await bus.consume({ topics: topics.slice(0, 2), group: 'readers', handle: async (events) => two.add(events) });
    await bus.consume({ topics: topics.slice(2), group: 'readers', handle: async (events) => one.add(events) });
    for (const topic of topics) await bus.publish(topic, eventsFor(['a', 'b', 'c', 'd'], 8));
    await Promise.all([two.until(16), one.until(8)]);
    t.deepEqual([...new Set(two.events.map((event) => event.topic))].toSorted(), topics.slice(0, 2).toSorted());
    t.deepEqual([...new Set(one.events.map((event) => event.topic))], topics.slice(2));
  });

  test('consume: a single event is handled in the context of its call', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const seen = collector();
    let requestId: string | undefined;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        requestId = currentContext()?.requestId;
        seen.add(events);
      },
    });
    const event = eventFor('key', '');
    await bus.publish(topic, [event]);
    await seen.until(1);
    t.is(requestId, event.requestId);
  });

  test('consume: a batch that fails comes again, together and then one at a time, and none is lost', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 5));
    const sizes: number[] = [];
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        sizes.push(events.length);
        if (events.length > 1) throw new Error('this handler takes single events only');
        seen.add(events);
      },
    });
    await seen.until(5);
    t.deepEqual(sizes, [5, 5, 1, 1, 1, 1, 1]);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2', '3', '4']);
    t.is(await deadLetters(bus, topic), 0);
  });

  test('consume: a transient failure is tried again for as long as it lasts', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 3));
    let failures = 0;
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        if (++failures <= 3 * retry.attempts) throw new HubError('UNAVAILABLE', 'AWAY', 'Away for now');
        seen.add(events);
      },
    });
    await seen.until(3);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2']);
    t.is(await deadLetters(bus, topic), 0);
  });

  test('consume: an event that fails for good goes to the dead letters, and those behind it go on', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const published = ['before', 'bad', 'after'].map((text) => eventFor('key', text));
    await bus.publish(topic, published);
    const seen = collector();
    let tries = 0;
    const ended: { event: ReceivedEvent; error: unknown; requestId: string | undefined }[] = [];
    let endings = 0;
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        if (events.length > 1) throw new Error('one of them is bad');
        if (textOf(events[0]!) === 'bad') {
          tries++;
          throw new HubError('INVALID_ARGUMENT', 'BAD_EVENT', 'It can never be handled');
        }
        seen.add(events);
      },
      async onDeadLetter(event, error) {
        if (++endings < 3) throw new HubError('UNAVAILABLE', 'AWAY', 'Away for now');
        ended.push({ event, error, requestId: currentContext()?.requestId });
      },
    });
    await seen.until(2);
    t.deepEqual(seen.events.map(textOf), ['before', 'after']);
    t.is(tries, retry.attempts);
    t.is(ended.length, 1);
    t.is(ended[0]!.event.id, published[1]!.id);
    t.is((ended[0]!.error as HubError).reason, 'BAD_EVENT');
    t.is(ended[0]!.requestId, published[1]!.requestId);

    const letters = collector();
    const from = deadLetterTopic(topic);
    await bus.consume({ topics: [from], group: 'admins', handle: async (events) => letters.add(events) });
    await letters.until(1);
    const { deadLetter, partition: _, ...letter } = letters.events[0]!;
    t.deepEqual({ ...letter, value: textOf(letters.events[0]!) }, { ...published[1]!, value: 'bad', topic: from });
    const { failedAt, ...rest } = deadLetter!;
    const { partition } = seen.events[0]!;
    const reason = 'BAD_EVENT: It can never be handled';
    t.deepEqual(rest, { topic, partition, group: 'readers', reason, attempts: retry.attempts });
    t.true(failedAt <= Date.now() && failedAt > Date.now() - 60_000);

    await eventually('all is acknowledged', async () => (await lagOf(bus, topic, 'readers')) === 0);
    await bus.publish(topic, [letter]);
    await eventually('it can be replayed', () => tries === 2 * retry.attempts);
  });

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

  test('consume: what another program has published, up to 4 MiB, goes to the dead letters whole, and back', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    // An event that another program publishes is limited by Kafka alone (max.message.bytes), not by our own limit.
    const foreign = {
      ...eventFor('key', ''),
      value: Buffer.alloc(4 * 1024 * 1024 - 1024, randomUUID()),
      isReplayed: true,
    };
    const [read, buried] = [collector(), collector()];
    const retry = { attempts: 1, firstMs: 1, maxMs: 1 };
    await bus.consume({
      topics: [topic],
      group: 'readers',
      retry,
      async handle(events) {
        read.add(events);
        if (events.some(({ id }) => id === foreign.id)) throw new Error('not ours');
      },
    });
    await bus.consume({
      topics: [deadLetterTopic(topic)],
      group: 'readers',
      handle: async (events) => buried.add(events),
    });
    await bus.publish(topic, [foreign]);
    await buried.until(1);
    const [letter] = buried.events as [ReceivedEvent];
    t.like(letter.deadLetter, { topic, reason: 'Error: not ours' });
    t.true(Buffer.from(letter.value).equals(foreign.value));
    await bus.publish(topic, [eventFor('key', 'behind it')]);
    await read.until(2);
    t.is(textOf(read.events.at(-1)!), 'behind it');
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

  test('consume: what another consumer takes over in the middle of a round is not acknowledged by its first one', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const keys = Array.from({ length: 64 }, () => randomUUID());
    await one.publish(topic, eventsFor(keys, 128));
    const ends = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const;
    const begun = Promise.withResolvers<void>();
    const [first, second] = [collector(), collector()];
    await one.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        begun.resolve();
        await ends[0].promise;
        first.add(events);
      },
    });
    await begun.promise;
    let taken = new Set<number>();
    await two.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        taken = new Set([...taken, ...partitionsOf(events)]);
        await ends[1].promise;
        second.add(events);
      },
    });
    // On Kafka the group is divided anew now. On PostgreSQL the first one keeps what it works on.
    const isKafka = shared().env['KAFKA_BROKERS'] !== undefined;
    if (isKafka) await eventually('the second one has some', () => taken.size > 1);
    ends[0].resolve();
    await eventually('the first one has acknowledged its own', async () => {
      const behind = (await one.lag(topic, 'readers')).filter(({ events }) => events > 0);
      return behind.every(({ partition }) => taken.has(partition));
    });
    const left = (await one.lag(topic, 'readers')).filter(({ events }) => events > 0).map(({ partition }) => partition);
    t.deepEqual(
      left,
      [...taken].toSorted((a, b) => a - b),
    );
    ends[1].resolve();
    await eventually('all is acknowledged', async () => (await lagOf(one, topic, 'readers')) === 0);
    const all = [...first.events, ...second.events];
    t.is(new Set(all.map(({ id }) => id)).size, 128);
    t.is(new Set(second.events.map(({ id }) => id)).size, second.events.length);
    for (const key of keys) {
      // Whatever came again, came again from the first one that wasn't acknowledged.
      const texts = (from: Collector) =>
        from.events.filter((event) => event.key === key).map((each) => Number(textOf(each)));
      for (const some of [texts(first), texts(second)])
        t.deepEqual(
          some,
          some.toSorted((a, b) => a - b),
        );
    }
  });

  test('lag: is counted by partition and falls to nothing', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(
      topic,
      eventsFor(
        Array.from({ length: 40 }, () => randomUUID()),
        40,
      ),
    );
    const before = await bus.lag(topic, 'readers');
    t.deepEqual(
      before.map(({ partition }) => partition),
      Array.from({ length: before.length }, (_, index) => index),
    );
    const seen = collector();
    const consumer = await bus.consume({
      topics: [topic],
      group: 'readers',
      handle: async (events) => seen.add(events),
    });
    await seen.until(40);
    await eventually('nothing is left', async () => (await lagOf(bus, topic, 'readers')) === 0);
    for (const { partition, events } of before) {
      t.is(seen.events.filter((event) => event.partition === partition).length, events);
    }
    await consumer.stop();
    await bus.publish(topic, eventsFor(['key'], 7));
    t.is(await lagOf(bus, topic, 'readers'), 7);
  });

  test('lag: who has just begun may ask for many topics at once', async (t) => {
    const one = await open(t, shared());
    const topics = await Promise.all(Array.from({ length: 6 }, () => newTopic(one)));
    for (let round = 0; round < 3; round++) {
      const other = await open(t, shared());
      const lags = await Promise.all(topics.map((topic) => lagOf(other, topic, 'readers')));
      t.deepEqual(
        lags,
        topics.map(() => 0),
      );
    }
  });

  test('stop: the running batch is finished and acknowledged; a new consumer goes on behind it', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const seen = collector();
    const finish = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const options = { topics: [topic], group: 'readers', batchSize: 10 };
    const consumer = await bus.consume({
      ...options,
      async handle(events) {
        begun.resolve();
        await finish.promise;
        seen.add(events);
      },
    });
    await bus.publish(topic, eventsFor(['key'], 10));
    await begun.promise;
    await bus.publish(topic, eventsFor(['key'], 10));
    const stopped = consumer.stop();
    finish.resolve();
    await stopped;
    const handled = seen.events.length;
    t.true(handled > 0);
    t.is(await lagOf(bus, topic, 'readers'), 20 - handled);
    await bus.consume({ ...options, handle: async (events) => seen.add(events) });
    await seen.until(20);
    t.is(new Set(seen.events.map((event) => event.id)).size, 20);
    t.is(seen.events.length, 20);
  });

  test('stop: afterwards nothing is published, and nothing is opened again', async (t) => {
    const bus = await shared().open();
    const topic = await newTopic(bus);
    await bus.publish(topic, [eventFor('key', 'before')]);
    await bus.stop();
    const refused = await t.throwsAsync<HubError>(() => bus.publish(topic, [eventFor('key', 'after')]));
    t.is(refused?.reason, 'BUS_UNAVAILABLE');
    t.is(await lagOf(await open(t, shared()), topic, 'nobody'), 1);
  });

  test('stop: an event that is being tried again is left to the next consumer', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const tried = Promise.withResolvers<void>();
    const options = { topics: [topic], group: 'readers' };
    const consumer = await bus.consume({
      ...options,
      retry: { attempts: 3, firstMs: 60_000, maxMs: 60_000 },
      async handle() {
        tried.resolve();
        throw new HubError('UNAVAILABLE', 'AWAY', 'Away for now');
      },
    });
    await bus.publish(topic, eventsFor(['key'], 2));
    await tried.promise;
    await consumer.stop();
    const seen = collector();
    await bus.consume({ ...options, handle: async (events) => seen.add(events) });
    await seen.until(2);
    t.deepEqual(seen.events.map(textOf), ['0', '1']);
  });

  test('a consumer that is killed after the effect and before the acknowledgement: the events come again', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 5));
    const child = await startChild(t, shared(), topic);
    await child.says('handled 0,1,2,3,4');
    const seen = collector();
    await bus.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    child.process.kill('SIGKILL');
    await seen.until(5);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2', '3', '4']);
  });

  test('a consumer that was frozen does not acknowledge what another one has taken over', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    await bus.publish(topic, eventsFor(['key'], 3));
    const child = await startChild(t, shared(), topic);
    await child.says('handled 0,1,2');
    child.process.kill('SIGSTOP');
    const finish = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const seen = collector();
    await bus.consume({
      topics: [topic],
      group: 'readers',
      async handle(events) {
        begun.resolve();
        await finish.promise;
        seen.add(events);
      },
    });
    await begun.promise;
    child.process.send('return');
    child.process.kill('SIGCONT');
    await child.says('stopped');
    t.is(await lagOf(bus, topic, 'readers'), 3);
    finish.resolve();
    await seen.until(3);
    await eventually('it is acknowledged by who has it', async () => (await lagOf(bus, topic, 'readers')) === 0);
    // The other one's return may cost it its batch before it has acknowledged it: then the batch comes once more, whole.
    t.deepEqual([...new Set(seen.events.map(textOf))], ['0', '1', '2']);
  });

  test('a consumer that is slow but alive keeps its batch', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const seen = collector();
    const consume = (bus: Bus) =>
      bus.consume({
        topics: [topic],
        group: 'readers',
        async handle(events) {
          seen.add(events);
          await wait(pastLease);
        },
      });
    await consume(one);
    await one.publish(topic, eventsFor(['key'], 3));
    await seen.until(3);
    // On Kafka the group is divided anew now, and the partition may well change hands: not so on PostgreSQL.
    if (shared().env['KAFKA_BROKERS'] === undefined) await consume(two);
    await eventually('it is acknowledged', async () => (await lagOf(one, topic, 'readers')) === 0);
    t.deepEqual(seen.events.map(textOf), ['0', '1', '2']);
  });
}

async function open(t: ExecutionContext, engine: Engine): Promise<Bus> {
  const bus = await engine.open();
  t.teardown(() => bus.stop());
  return bus;
}

/** A topic that exists: to make one may take longer than `publish` waits while many tests do. */
async function newTopic(bus: Bus): Promise<string> {
  const topic = `contract-${randomUUID()}`;
  await eventually('the topic is made', () => succeeds(bus.lag(topic, 'nobody')));
  return topic;
}

async function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

function eventFor(key: string, text: string): BusEvent {
  return { id: randomUUID(), type: 'chat4all.test.Text', key, value: Buffer.from(text), requestId: randomUUID() };
}

/** Events numbered in order, one key after the other. */
function eventsFor(keys: readonly string[], count: number): BusEvent[] {
  return Array.from({ length: count }, (_, index) => eventFor(keys[index % keys.length]!, String(index)));
}

function partitionsOf(events: readonly ReceivedEvent[]): Set<number> {
  return new Set(events.map(({ partition }) => partition));
}

function textOf(event: BusEvent): string {
  return Buffer.from(event.value).toString();
}

async function lagOf(bus: Bus, topic: string, group: string): Promise<number> {
  return (await bus.lag(topic, group)).reduce((sum, { events }) => sum + events, 0);
}

async function deadLetters(bus: Bus, topic: string): Promise<number> {
  return lagOf(bus, deadLetterTopic(topic), 'nobody');
}

async function eventually(what: string, isSo: () => boolean | Promise<boolean>, limit = 40_000): Promise<void> {
  for (const giveUp = Date.now() + limit; !(await isSo()); await wait(20)) {
    if (Date.now() > giveUp) throw new Error(`${what}: not so after ${limit} ms`);
  }
}

interface Collector {
  events: ReceivedEvent[];
  add(events: readonly ReceivedEvent[]): void;
  until(count: number): Promise<void>;
}

function collector(): Collector {
  const events: ReceivedEvent[] = [];
  return {
    events,
    add: (more) => void events.push(...more),
    until: (count) => eventually(`${count} events (${events.length} now)`, () => events.length >= count),
  };
}

interface Child {
  process: ChildProcess;
  /** Waits for this line. */
  says(line: string): Promise<void>;
}

/**
 * A consumer in a process of its own: handles the first batch, says so, and returns from the handler when it is told to.
 * Then it stops.
 */
async function startChild(t: ExecutionContext, engine: Engine, topic: string): Promise<Child> {
  const said: unknown[] = [];
  const child = fork(new URL('contract-consumer.ts', import.meta.url), [topic], {
    env: { PATH: process.env['PATH'], ...engine.env },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  child.on('message', (line) => said.push(line));
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  });
  return { process: child, says: (line) => eventually(`the child says ${line}`, () => said.includes(line)) };
}
