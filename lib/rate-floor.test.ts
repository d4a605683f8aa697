import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { RateFloor } from './rate-floor.ts';

const fast = { window: 100, rate: 1_000 };

/** Watches a sender that sends `bytes` every 10 ms. @returns after how many milliseconds it was given up, or undefined after `limit` */
async function givenUpAfter(bytes: number, limit: number): Promise<number | undefined> {
  const began = performance.now();
  let at: number | undefined;
  const floor = new RateFloor(fast, () => (at = performance.now() - began));
  const sending = setInterval(() => floor.count(bytes), 10);
  while (at === undefined && performance.now() - began < limit) await sleep(5);
  clearInterval(sending);
  floor.stop();
  return at;
}

test('a sender that is silent is given up after the window, and not before', async (t) => {
  const after = await givenUpAfter(0, 5_000);
  t.true(after !== undefined && after >= 99, String(after));
});

test('a sender that trickles is given up, however often it sends', async (t) => {
  t.not(await givenUpAfter(1, 5_000), undefined);
});

test('a sender that is fast enough is never given up', async (t) => {
  t.is(await givenUpAfter(10_000, 500), undefined);
});

test('a sender that was fast once is given up when it is silent afterwards', async (t) => {
  let isSlow = false;
  const floor = new RateFloor(fast, () => (isSlow = true));
  floor.count(1_000_000);
  const began = performance.now();
  while (!isSlow && performance.now() - began < 5_000) await sleep(5);
  floor.stop();
  t.true(isSlow);
});

test('the time of a pause does not count', async (t) => {
  let isSlow = false;
  const floor = new RateFloor(fast, () => (isSlow = true));
  floor.pause();
  floor.pause();
  await sleep(350);
  t.false(isSlow);
  floor.resume();
  while (!isSlow) await sleep(5);
  t.pass();
});

test('after stop nobody is given up', async (t) => {
  let isSlow = false;
  new RateFloor(fast, () => (isSlow = true)).stop();
  await sleep(250);
  t.false(isSlow);
});
