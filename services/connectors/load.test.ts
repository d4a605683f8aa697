import test from 'ava';
import { openLog } from '#lib/log.ts';
import { loadOf, noLoad, watchLoads, type Sample } from './load.ts';

/** Samples a second apart, from what changes from each to the next. */
function samplesOf(seconds: number, change: Partial<Record<'taken' | 'prompt' | 'held' | 'onBus' | 'parked', number>>) {
  const { taken = 0, prompt = 0, held = 0, onBus = 0, parked = 0 } = change;
  return Array.from({ length: seconds + 1 }, (_, index): Sample => ({
    at: index * 1_000,
    taken: taken * index,
    prompt: prompt * index,
    held: held * index,
    onBus: onBus * (index + 1),
    parked: parked * (index + 1),
  }));
}

test('loadOf: without samples, or work, there is no load', (t) => {
  t.deepEqual(loadOf([]), noLoad);
  t.deepEqual(loadOf(samplesOf(5, { taken: 100, prompt: 100 })), noLoad);
});

test('loadOf: what waits for a network that holds up everybody waits as long as the network takes for it', (t) => {
  const load = loadOf(samplesOf(8, { taken: 5, held: 15, parked: 10 }));
  t.deepEqual(load, { backlog: 90, drainRate: 5, wait: 18_000 });
});

test('loadOf: what waits because the network sends single recipients away keeps nobody else waiting', (t) => {
  t.deepEqual(loadOf(samplesOf(8, { taken: 100, prompt: 100, held: 10, parked: 50 })), noLoad);
  t.deepEqual(loadOf(samplesOf(8, { parked: 500 })), noLoad);
});

test('loadOf: what is left on the bus waits for whoever makes the deliveries', (t) => {
  t.deepEqual(loadOf(samplesOf(4, { taken: 100, prompt: 100, onBus: 100 })), {
    backlog: 500,
    drainRate: 100,
    wait: 5_000,
  });
});

test('loadOf: a burst that has just come says nothing, nor do a few deliveries', (t) => {
  const quiet = samplesOf(3, { taken: 1, prompt: 1 });
  const burst = { at: 4_000, taken: 4, prompt: 4, held: 0, onBus: 1_000, parked: 0 };
  t.deepEqual(loadOf([...quiet, burst]), { backlog: 1_000, drainRate: 0, wait: 0 });
  t.like(loadOf(samplesOf(8, { taken: 1, onBus: 1 })), { backlog: 9, wait: 0 });
});

test('loadOf: while a network takes nothing, the wait is at least as long as that has been so', (t) => {
  t.deepEqual(loadOf(samplesOf(8, { held: 20, parked: 20 })), { backlog: 180, drainRate: 0, wait: 8_000 });
});

test('watchLoads: a lane in which deliveries wait behind others counts once, however many come', async (t) => {
  const counted: number[] = [];
  const loads = watchLoads({
    channels: ['whatsapp'],
    store: {
      async addCounts(counts) {
        counted.push(counts[0]!.held);
        return new Map([['whatsapp', { taken: 0, prompt: 0, held: counts[0]!.held, parked: 0 }]]);
      },
    },
    lag: async () => [],
    log: openLog({ name: 'test', format: 'json', level: 'silent', destination: { write() {} } }),
  });
  t.teardown(() => loads.stop());
  for (let each = 0; each < 100; each += 1) loads.countBehind('whatsapp', 'one recipient');
  for (const lane of ['a', 'b', 'c', 'd']) loads.countBehind('whatsapp', lane);
  loads.countBehind('a channel that is not installed', 'a');
  await loads.now();
  t.deepEqual(counted, [5]);
});
