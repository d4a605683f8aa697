import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { readAhead } from './read-ahead.ts';

/** Notes what is asked for, and that it ends. */
async function* counting(upTo: number, noted: (number | string)[]): AsyncGenerator<number> {
  try {
    for (let n = 1; n <= upTo; n += 1) {
      noted.push(n);
      await turn();
      yield n;
    }
  } finally {
    noted.push('ended');
  }
}

test('readAhead: gives all values in their order, and asks for each while the one before is worked on', async (t) => {
  const noted: (number | string)[] = [];
  const given: number[] = [];
  for await (const value of readAhead(counting(3, noted))) {
    t.is(
      noted.findLast((each) => typeof each === 'number'),
      Math.min(value + 1, 3),
    );
    given.push(value);
  }
  t.deepEqual(given, [1, 2, 3]);
  t.deepEqual(noted, [1, 2, 3, 'ended']);
});

test('readAhead: who stops early has one more read at the most, and the source ends', async (t) => {
  const noted: (number | string)[] = [];
  for await (const value of readAhead(counting(10, noted))) if (value === 2) break;
  for (let turns = 0; turns < 5; turns += 1) await turn();
  t.deepEqual(noted, [1, 2, 3, 'ended']);
});

test('readAhead: a failure comes in its place, and one that nobody waits for is none', async (t) => {
  async function* failing(): AsyncGenerator<number> {
    yield 1;
    await turn();
    throw new Error('no');
  }
  const given: number[] = [];
  await t.throwsAsync(
    async () => {
      for await (const value of readAhead(failing())) given.push(value);
    },
    { message: 'no' },
  );
  t.deepEqual(given, [1]);
  for await (const value of readAhead(failing())) if (value === 1) break;
  for (let turns = 0; turns < 5; turns += 1) await turn();
});
