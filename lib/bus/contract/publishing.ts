import { randomUUID } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import type { TestFn } from 'ava';
import { collector, eventFor, newTopic, open, partitionsOf, textOf, type Engines } from './fixtures.ts';

/** What `publish` and `probe` do on every engine. */
export function publishingContract(test: TestFn, { shared }: Engines): void {
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
}
