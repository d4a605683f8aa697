import { fork, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import type { ExecutionContext, TestFn } from 'ava';
import { currentContext } from '../context.ts';
import { HubError } from '../errors.ts';
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
const retry = { attempts: 3, minDelay: 10, maxDelay: 50 };

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
        const { partition } = events[0]!;
        t.false(working.has(partition), 'two batches of one partition are handled at once');
        working.add(partition);
        await wait(Math.random() * 5);
        working.delete(partition);
        t.true(events.length <= 30 && events.every((event) => event.partition === partition));
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
        if (failing && events[0]!.partition === stuck) throw new HubError('UNAVAILABLE', 'AWAY', 'Away for now');
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

  test('stop: an event that is being tried again is left to the next consumer', async (t) => {
    const bus = await open(t, shared());
    const topic = await newTopic(bus);
    const tried = Promise.withResolvers<void>();
    const options = { topics: [topic], group: 'readers' };
    const consumer = await bus.consume({
      ...options,
      retry: { attempts: 3, minDelay: 60_000, maxDelay: 60_000 },
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
