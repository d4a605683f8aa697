import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { unlessAborted, waitAtMost, within } from './deadline.ts';

const late = () => new Error('late');

test('within: gives what the work gives, or throws what it throws', async (t) => {
  t.is(await within(60_000, Promise.resolve(7), late), 7);
  await t.throwsAsync(within(60_000, Promise.reject(new Error('wrong')), late), { message: 'wrong' });
});

test('within: work that takes too long is not waited for, and how it ends later harms nobody', async (t) => {
  const never = Promise.withResolvers<never>();
  await t.throwsAsync(within(1, never.promise, late), { message: 'late' });
  never.reject(new Error('too late'));
  await sleep(10);
});

test('within: a time that is over is over, and one longer than a timer takes is long', async (t) => {
  await t.throwsAsync(within(-5, new Promise(() => {}), late), { message: 'late' });
  t.is(await within(1e12, sleep(20, 'done'), late), 'done');
});

test('waitAtMost: waits for the work, but not longer than the time', async (t) => {
  let isDone = false;
  await waitAtMost(
    60_000,
    sleep(5).then(() => (isDone = true)),
  );
  t.true(isDone);
  await waitAtMost(1, new Promise(() => {}));
  await t.throwsAsync(waitAtMost(60_000, Promise.reject(new Error('wrong'))), { message: 'wrong' });
});

test('unlessAborted: waits no longer than until the abort, and what comes later is discarded', async (t) => {
  t.is(await unlessAborted(new AbortController().signal, Promise.resolve(7)), 7);
  const control = new AbortController();
  const slow = Promise.withResolvers<string>();
  const discarded = Promise.withResolvers<string>();
  const waiting = unlessAborted(control.signal, slow.promise, async (late) => discarded.resolve(late));
  control.abort(new Error('gone'));
  await t.throwsAsync(waiting, { message: 'gone' });
  slow.resolve('late');
  t.is(await discarded.promise, 'late');
});
