import test from 'ava';
import { openExpectations } from './expectations.ts';

test('of: nothing is known of a tool that nobody has used; what was used before this process was there is asked for once', async (t) => {
  const asked: string[] = [];
  const known = new Map([['used', 40]]);
  const expectations = openExpectations(async (toolId) => {
    asked.push(toolId);
    return known.get(toolId);
  });
  t.is(await expectations.of('new'), undefined);
  t.is(await expectations.of('used'), 40);
  t.is(await expectations.of('used'), 40);
  t.deepEqual(asked, ['new', 'used']);
  t.deepEqual([expectations.now('new'), expectations.now('used')], [undefined, 40]);
  expectations.learn('new', 7);
  t.is(await expectations.of('new'), 7);
  t.is(expectations.now('new'), 7);
  t.deepEqual(asked, ['new', 'used']);
});

test('of: the most of the last 64 calls, so that one dear call is forgotten', async (t) => {
  const expectations = openExpectations(async () => undefined);
  expectations.learn('tool', 1_000_000_000);
  for (let call = 1; call < 64; call += 1) expectations.learn('tool', call);
  t.is(await expectations.of('tool'), 1_000_000_000);
  expectations.learn('tool', 3);
  t.is(await expectations.of('tool'), 63);
});

test('of: what is learned while the past is asked for is not lost', async (t) => {
  const asked = Promise.withResolvers<number | undefined>();
  const expectations = openExpectations(() => asked.promise);
  const first = expectations.of('tool');
  expectations.learn('tool', 9);
  asked.resolve(undefined);
  t.is(await first, 9);
});
