import test from 'ava';
import { backoffMs } from './backoff.ts';
import { retryUntilDone } from './retry.ts';

test('backoffMs: doubles after each failure up to the limit, however many there were', (t) => {
  const backoff = { firstMs: 100, maxMs: 1_000, jitter: 0 };
  t.deepEqual(
    [1, 2, 3, 4, 5, 2_000].map((failures) => backoffMs(backoff, failures)),
    [100, 200, 400, 800, 1_000, 1_000],
  );
});

test('backoffMs: leaves its share of the pause to chance, half of it by default', (t) => {
  const backoff = { firstMs: 100, maxMs: 1_000 };
  t.is(backoffMs(backoff, 1, 0), 100);
  t.is(backoffMs(backoff, 1, 1), 50);
  t.is(backoffMs({ ...backoff, jitter: 1 }, 1, 1), 0);
});

const backoff = { firstMs: 1, maxMs: 1 };

test('retryUntilDone: tries until the work succeeds, and tells of each failure', async (t) => {
  const told: unknown[] = [];
  let tries = 0;
  const work = async () => {
    tries += 1;
    if (tries < 3) throw new Error(`try ${tries}`);
  };
  const onFailure = (error: unknown, failures: number) => told.push([(error as Error).message, failures]);
  t.true(await retryUntilDone(work, { backoff, onFailure }));
  t.deepEqual(told, [
    ['try 1', 1],
    ['try 2', 2],
  ]);
});

test('retryUntilDone: after the signal what fails is not tried again, not even after a pause that has begun', async (t) => {
  const stopping = new AbortController();
  let tries = 0;
  const work = async () => {
    tries += 1;
    throw new Error('away');
  };
  const onFailure = () => setImmediate(() => stopping.abort());
  const long = { firstMs: 60_000, maxMs: 60_000 };
  t.false(await retryUntilDone(work, { backoff: long, signal: stopping.signal, onFailure }));
  t.is(tries, 1);
});

test('retryUntilDone: is given up with what onFailure throws', async (t) => {
  const work = async () => Promise.reject(new Error('away'));
  const onFailure = (error: unknown) => {
    throw new Error('given up', { cause: error });
  };
  await t.throwsAsync(retryUntilDone(work, { backoff, onFailure }), { message: 'given up' });
});
