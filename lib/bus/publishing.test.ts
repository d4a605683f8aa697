import test from 'ava';
import { HubError } from '../errors.ts';
import type { BusEvent } from './bus.ts';
import { publisher, runs } from './publishing.ts';

function eventOf(bytes: number): BusEvent {
  return { id: 'id', type: 'type', key: 'key', value: Buffer.alloc(bytes), requestId: 'call' };
}

test('what comes while events are being stored is stored together after it, up to a good size', async (t) => {
  const stored: number[][] = [];
  const publish = publisher(async (_, events) => {
    stored.push(events.map(({ value }) => value.byteLength));
    await Promise.resolve();
  });
  const large = 700 * 1024;
  await Promise.all([1, 2, 3, large, large, 4, 5].map((bytes) => publish('topic', [eventOf(bytes)])));
  t.deepEqual(stored, [[1], [2, 3, large], [large, 4, 5]]);
});

test('no more than 32 MiB wait for a topic; another topic has room', async (t) => {
  const end = Promise.withResolvers<void>();
  const publish = publisher(() => end.promise);
  const mebibytes = Array.from({ length: 16 }, () => eventOf(1024 * 1024));
  const calls = [publish('topic', [eventOf(1)]), publish('topic', mebibytes), publish('topic', mebibytes)];
  const refused = await t.throwsAsync<HubError>(publish('topic', [eventOf(1)]));
  t.like(refused, { kind: 'UNAVAILABLE', reason: 'BUS_UNAVAILABLE' });
  calls.push(publish('other', [eventOf(1)]));
  end.resolve();
  await t.notThrowsAsync(Promise.all(calls));
});

test('a publication that is late stores nothing behind what came after it', async (t) => {
  const stored: string[] = [];
  const go = Promise.withResolvers<void>();
  const publish = publisher(async (_, events, isLate) => {
    if (events.length > 1) await go.promise;
    for (const { key } of events) if (!isLate()) stored.push(key);
  });
  const late = publish('topic', [
    { ...eventOf(1), key: 'late 1' },
    { ...eventOf(1), key: 'late 2' },
  ]);
  await t.throwsAsync(late, { instanceOf: HubError });
  await publish('topic', [{ ...eventOf(1), key: 'next' }]);
  go.resolve();
  await publish('topic', [{ ...eventOf(1), key: 'last' }]);
  t.deepEqual(stored, ['next', 'last']);
});

test('runs: by count and bytes, in order; what is larger is one by itself', (t) => {
  const sizes = (count: number, bytes: number) =>
    [...runs([3, 3, 3, 20, 1].map(eventOf), count, bytes)].map((run) => run.map(({ value }) => value.byteLength));
  t.deepEqual(sizes(2, 100), [[3, 3], [3, 20], [1]]);
  t.deepEqual(sizes(10, 8), [[3, 3], [3], [20], [1]]);
});
