import { randomUUID } from 'node:crypto';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import type { TestFn } from 'ava';
import { HubError } from '../../errors.ts';
import { collector, eventFor, eventsFor, eventually, lagOf, newTopic, open, textOf, type Engines } from './fixtures.ts';

/** What `stop` leaves on every engine, and how `lag` counts it. */
export function stoppingContract(test: TestFn, { shared }: Engines): void {
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

  test('stop: who stops while it begins leaves all of it to the others', async (t) => {
    const [one, two] = [await open(t, shared()), await open(t, shared())];
    const topic = await newTopic(one);
    const seen = collector();
    await one.consume({ topics: [topic], group: 'readers', handle: async (events) => seen.add(events) });
    await one.publish(topic, [eventFor('key', 'before')]);
    await seen.until(1);
    // On Kafka it only joins the group now, for which the other member has to be heard first.
    const second = await two.consume({ topics: [topic], group: 'readers', handle: async () => {} });
    await second.stop();
    const keys = Array.from({ length: 64 }, () => randomUUID());
    const rounds = 12;
    for (let round = 0; round < rounds; round += 1) {
      await one.publish(topic, eventsFor(keys, keys.length));
      // Longer, in all, than a group takes to be divided anew.
      await wait(500);
    }
    await seen.until(1 + rounds * keys.length);
    t.is(new Set(seen.events.map(({ id }) => id)).size, 1 + rounds * keys.length);
  });

  test('stop: whatever is under way, nothing stays open that keeps a process running', async (t) => {
    const topics = await Promise.all(Array.from({ length: 8 }, async () => newTopic(await open(t, shared()))));
    const child = fork(new URL('stopped-process.ts', import.meta.url), topics, {
      env: { PATH: process.env['PATH'], ...shared().env },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    t.teardown(() => void child.kill('SIGKILL'));
    child.disconnect();
    // It has nothing left to do.
    t.deepEqual(await once(child, 'exit'), [0, null]);
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
}
