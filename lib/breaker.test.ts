import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { register } from 'prom-client';
import { Breaker } from './breaker.ts';
import { HubError } from './errors.ts';

const away = () => new HubError('UNAVAILABLE', 'STORE_UNAVAILABLE', 'The store is away', { retryAfter: 2 });

/** Something that answers, or fails, or hangs; and a breaker in front of it. */
function prepare(pauseMs: number, minSpanMs = 0, name = 'test') {
  const breaker = new Breaker({ name, reason: 'STORE_UNAVAILABLE', pauseMs, minSpanMs });
  const thing = {
    asked: 0,
    answer: async (): Promise<string> => 'here',
    ask: () =>
      breaker.run(() => {
        thing.asked += 1;
        return thing.answer();
      }),
    async break() {
      thing.answer = () => Promise.reject(away());
      for (let count = 0; count < 5; count += 1) await thing.ask().catch(() => {});
    },
  };
  return thing;
}

test('Breaker: after five failures in a row nothing is asked any more, and the failure is the same', async (t) => {
  const thing = prepare(60_000);
  await thing.break();
  t.is(thing.asked, 5);
  for (let count = 0; count < 20; count += 1) {
    const error = await t.throwsAsync(thing.ask(), { instanceOf: HubError });
    t.like(error, { kind: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE', message: 'The store is away', retryAfter: 2 });
  }
  t.is(thing.asked, 5);
});

test('Breaker: one try is let through at a time, also while an earlier one hangs, and a success opens the way for all', async (t) => {
  const thing = prepare(50);
  await thing.break();
  await sleep(60);
  const hanging = Promise.withResolvers<string>();
  thing.answer = () => hanging.promise;
  const tries = [thing.ask(), thing.ask(), thing.ask()];
  t.is(thing.asked, 6);
  await Promise.all(tries.slice(1).map((each) => t.throwsAsync(each, { message: 'The store is away' })));
  await sleep(60);
  thing.answer = async () => 'here';
  t.is(await thing.ask(), 'here');
  t.deepEqual(await Promise.all([thing.ask(), thing.ask()]), ['here', 'here']);
  hanging.resolve('late');
  t.is(await tries[0], 'late');
});

test('Breaker: failures with a success or any other answer between them are none in a row', async (t) => {
  const thing = prepare(60_000);
  for (let count = 0; count < 20; count += 1) {
    thing.answer = () => Promise.reject(away());
    for (let failures = 0; failures < 4; failures += 1) await t.throwsAsync(thing.ask());
    thing.answer = count % 2 === 0 ? async () => 'here' : () => Promise.reject(new Error('no such key'));
    await thing.ask().catch(() => {});
  }
  t.is(thing.asked, 100);
});

test('Breaker: failures that all come at once are a moment of load, and none if they go on', async (t) => {
  const atOnce = prepare(60_000, 60_000);
  for (let count = 0; count < 5; count += 1) await atOnce.break();
  t.is(atOnce.asked, 25);
  const goingOn = prepare(60_000, 10);
  await goingOn.break();
  await sleep(20);
  await goingOn.break();
  t.true(goingOn.asked < 10);
});

test('Breaker: a metric says how many of a name are open', async (t) => {
  const shown = async () => {
    const { values } = await register.getSingleMetric('chat4all_breaker_open')!.get();
    return values.find(({ labels }) => labels['breaker'] === 'counted')?.value;
  };
  const [first, second] = [prepare(0, 0, 'counted'), prepare(0, 0, 'counted')];
  t.is(await shown(), 0);
  await first.break();
  await first.break();
  await second.break();
  t.is(await shown(), 2);
  first.answer = async () => 'here';
  await first.ask();
  await first.ask();
  t.is(await shown(), 1);
  second.answer = async () => 'here';
  await second.ask();
  t.is(await shown(), 0);
});
