import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { register } from 'prom-client';
import { currentContext, withContext } from './context.ts';
import { HubError, TimedOut } from './errors.ts';
import { Rounds } from './rounds.ts';

test('one alone is worked on at once, and what comes meanwhile is the next round', async (t) => {
  const rounds: number[][] = [];
  const ends: (() => void)[] = [];
  const work = new Rounds<number, string>(
    (items) => {
      rounds.push([...items]);
      return new Promise((resolve) => ends.push(() => resolve(items.map((item) => `did ${item}`))));
    },
    { name: 'test', items: 3 },
  );
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
  const work = new Rounds<number, number>(
    async (items) => {
      await turn();
      if (items.includes(3)) throw new Error('no');
      return items;
    },
    { name: 'test', items: 2 },
  );
  const outcomes = await Promise.allSettled([1, 2, 3, 4, 5].map((item) => work.do(item)));
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected', 'fulfilled', 'fulfilled'],
  );
});

test('work that throws before it begins is a failure like others', async (t) => {
  const work = new Rounds<number, number>(
    () => {
      throw new Error('no');
    },
    { name: 'test', items: 2 },
  );
  await t.throwsAsync(work.do(1), { message: 'no' });
  await t.throwsAsync(work.do(2), { message: 'no' });
});

test('a round has no more than its sizes may come to, and what is larger by itself has one of its own', async (t) => {
  const rounds: number[][] = [];
  const work = new Rounds<number, number>(
    async (items) => {
      rounds.push([...items]);
      await turn();
      return items;
    },
    { name: 'test', items: 10, size: { of: (item) => item, max: 10 } },
  );
  await Promise.all([1, 4, 6, 1, 20, 2, 8].map((item) => work.do(item)));
  t.deepEqual(rounds, [[1], [4, 6], [1], [20], [2, 8]]);
});

test('rounds may run at once, and nothing is done twice', async (t) => {
  const rounds: number[][] = [];
  let running = 0;
  const work = new Rounds<number, number>(
    async (items) => {
      running += 1;
      t.true(running <= 2);
      rounds.push([...items]);
      await turn();
      running -= 1;
      return items;
    },
    { name: 'test', items: 2, atOnce: 2 },
  );
  t.deepEqual(await Promise.all([1, 2, 3, 4, 5].map((item) => work.do(item))), [1, 2, 3, 4, 5]);
  t.deepEqual(
    [...new Set(rounds.flat())].toSorted((one, other) => one - other),
    [1, 2, 3, 4, 5],
  );
  t.deepEqual(rounds.slice(0, 2), [[1], [2]]);
});

test('an error that may be of one item is that of those that fail alone, too', async (t) => {
  const wrong = new Error('wrong');
  let tries = 0;
  const work = new Rounds<number, number>(
    async (items) => {
      tries += 1;
      await turn();
      if (items.some((item) => item % 4 === 3)) throw wrong;
      return items;
    },
    { name: 'test', items: 8, mayBeOfOneItem: (error) => error === wrong },
  );
  const outcomes = await Promise.allSettled([0, 1, 2, 3, 4, 5, 6, 7, 8].map((item) => work.do(item)));
  const failed = outcomes.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []));
  t.deepEqual(failed, [3, 7]);
  t.true(tries < 13, `${tries} rounds`);
});

test('a round of one belongs to the call that asks for it, and a round of several to none', async (t) => {
  const seen: (string | undefined)[] = [];
  const work = new Rounds<number, number>(
    async (items) => {
      seen.push(currentContext()?.requestId);
      await turn();
      return items;
    },
    { name: 'test', items: 2 },
  );
  const asked = [1, 2, 3, 4].map((item) => withContext({ requestId: `call ${item}` }, () => work.do(item)));
  await Promise.all([...asked, work.do(5)]);
  t.deepEqual(seen, ['call 1', undefined, undefined]);
  await withContext({ requestId: 'call 6' }, () => work.do(6));
  t.deepEqual(seen.slice(3), ['call 6']);
});

test('a round that took too long is done again in halves, and the next ones are smaller until they work', async (t) => {
  const sizes: number[] = [];
  const work = new Rounds<number, number>(
    async (items) => {
      sizes.push(items.length);
      await turn();
      if (items.length > 2) throw new TimedOut('UNAVAILABLE', 'AWAY', 'It took too long');
      return items;
    },
    { name: 'test', items: 8 },
  );
  const numbers = Array.from({ length: 17 }, (_, index) => index);
  t.deepEqual(await Promise.all(numbers.map((item) => work.do(item))), numbers);
  // The first comes alone; after two rounds that worked, twice as many are tried again.
  t.deepEqual(sizes.slice(0, 7), [1, 8, 4, 2, 2, 4, 2]);
  t.true(sizes.length < 24, sizes.join());

  const never = new Rounds<number, number>(() => Promise.reject(new TimedOut('UNAVAILABLE', 'AWAY', 'Never')), {
    name: 'test',
    items: 4,
  });
  for (const { status } of await Promise.allSettled([1, 2, 3].map((item) => never.do(item)))) t.is(status, 'rejected');
});

test('what would wait beyond the limits is refused at once, and room is made by what is done', async (t) => {
  const ends: (() => void)[] = [];
  const work = new Rounds<number, number>((items) => new Promise((resolve) => ends.push(() => resolve(items))), {
    name: 'test',
    items: 2,
    size: { of: (item) => item, max: 10 },
    waiting: { items: 3, size: 20 },
  });
  const running = work.do(1);
  const waiting = [work.do(5), work.do(5)];
  const overloaded = { instanceOf: HubError, message: 'Too much waits to be done at the moment' };
  const refused = await t.throwsAsync<HubError>(work.do(11), overloaded, 'too large together');
  t.like(refused, { kind: 'UNAVAILABLE', reason: 'OVERLOADED', retryAfter: 1 });
  waiting.push(work.do(10));
  await t.throwsAsync(work.do(0), overloaded, 'too many');
  ends[0]!();
  await running;
  await turn();
  waiting.push(work.do(1));
  for (const end of [1, 2, 3]) {
    ends[end]?.();
    await turn();
  }
  t.deepEqual(await Promise.all(waiting), [5, 5, 10, 1]);
  // One that is too large by itself is not refused for that.
  const large = work.do(100);
  ends.at(-1)!();
  t.is(await large, 100);
});

test('what waits beyond its deadline is not begun', async (t) => {
  const rounds: number[][] = [];
  const end = Promise.withResolvers<void>();
  const work = new Rounds<number, number>(
    async (items) => {
      rounds.push([...items]);
      await end.promise;
      return items;
    },
    { name: 'test', items: 10 },
  );
  const first = work.do(1);
  const late = withContext({ requestId: 'late', deadline: Date.now() - 1 }, () => work.do(2));
  const inTime = withContext({ requestId: 'in time', deadline: Date.now() + 60_000 }, () => work.do(3));
  end.resolve();
  t.is(((await t.throwsAsync(late)) as HubError).kind, 'DEADLINE_EXCEEDED');
  t.deepEqual(await Promise.all([first, inTime]), [1, 3]);
  t.deepEqual(rounds, [[1], [3]]);
});

test('a metric says how many items the rounds of a name have', async (t) => {
  const work = new Rounds<number, number>(async (items) => items, { name: 'counted', items: 3 });
  const shown = async (what: string) => {
    const { values } = await register.getSingleMetric('chat4all_round_items')!.get();
    const ofName = values.filter(({ labels }) => labels['of'] === 'counted');
    return ofName.find((value) => (value as { metricName?: string }).metricName === `chat4all_round_items_${what}`)
      ?.value;
  };
  t.is(await shown('count'), 0);
  await Promise.all([1, 2, 3, 4, 5].map((item) => work.do(item)));
  t.is(await shown('count'), 3, 'one item, then three, then one');
  t.is(await shown('sum'), 5);
});
