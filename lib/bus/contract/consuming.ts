import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { TestFn } from 'ava';
import { currentContext } from '../../context.ts';
import { HubError } from '../../errors.ts';
import { deadLetterTopic, type BusEvent, type ReceivedEvent } from '../bus.ts';
import {
  collector,
  deadLetters,
  eventFor,
  eventsFor,
  eventually,
  lagOf,
  newTopic,
  open,
  retry,
  textOf,
  type Collector,
  type Engines,
} from './fixtures.ts';

/** Who gets an event on every engine, and what becomes of one that fails. */
export function consumingContract(test: TestFn, { shared }: Engines): void {
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
}
