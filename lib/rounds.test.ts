import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { Rounds } from './rounds.ts';

test('one alone is worked on at once, and what comes meanwhile is the next round', async (t) => {
  const rounds: number[][] = [];
  const ends: (() => void)[] = [];
  const work = new Rounds<number, string>((items) => {
    rounds.push([...items]);
    return new Promise((resolve) => ends.push(() => resolve(items.map((item) => `did ${item}`))));
  }, 3);
  const results = [1, 2, 3, 4, 5].map((item) => work.do(item));
  t.deepEqual(rounds, [[1]]);
  for (const expected of [
    [[1], [2, 3, 4]],
    [[1], [2, 3, 4], [5]],
  ]) {
    ends.at(-1)!();
    await turn();
    t.deepEqual(rounds, expected);
  }
  ends.at(-1)!();
  t.deepEqual(await Promise.all(results), ['did 1', 'did 2', 'did 3', 'did 4', 'did 5']);
  const later = work.do(6);
  ends.at(-1)!();
  t.is(await later, 'did 6');
});

test('a round that fails has failed for all that are in it, and for nobody else', async (t) => {
  const work = new Rounds<number, number>(async (items) => {
    await turn();
    if (items.includes(3)) throw new Error('no');
    return items;
  }, 2);
  const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map((item) => work.do(item)));
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected', 'fulfilled', 'fulfilled'],
  );
});

test('work that throws before it begins is a failure like others', async (t) => {
  const work = new Rounds<number, number>(() => {
    throw new Error('no');
  }, 2);
  await t.throwsAsync(work.do(1), { message: 'no' });
  await t.throwsAsync(work.do(2), { message: 'no' });
});
