import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { openStandingFeed, type Page } from './standing-feed.ts';
import type { Change } from './standings.ts';

const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const never = new AbortController().signal;

/** A feed of changes that the test makes, and how often they were looked for. */
function openFeed(t: ExecutionContext, limits: { waiting?: number; maxWaitMs?: number; pause?: number } = {}) {
  const changes: Change[] = [];
  const looks: bigint[] = [];
  const changesAfter = async (number: bigint) => {
    looks.push(number);
    return changes.filter((change) => change.number > number);
  };
  const usual = { waiting: 50, maxWaitMs: 20_000, pause: 20 };
  const feed = openStandingFeed({ standings: { changesAfter }, log, limits: { ...usual, ...limits } });
  t.teardown(() => feed.stop());
  const disable = (number: bigint) =>
    changes.push({ number, apiKeyId: undefined, user: { userId: `u${number}`, admin: false, disabled: true } });
  return { feed, changes, looks, disable };
}

test('the feed: answers from the beginning at once, then waits for something to tell', async (t) => {
  const { feed, disable } = openFeed(t);
  const nothing = { cursor: 1n, more: false, standings: [], revokedKeyIds: [] };
  t.deepEqual(await feed.after(0n, never), nothing);
  const waiting = feed.after(1n, never);
  t.is(await Promise.race([waiting, sleep(60, 'waits')]), 'waits');
  disable(7n);
  const expected = { ...nothing, cursor: 7n, standings: [{ userId: 'u7', admin: false, disabled: true }] };
  t.deepEqual(await waiting, expected);
  t.deepEqual(await feed.after(0n, never), expected);
  t.deepEqual(await feed.after(3n, never), expected, 'who is behind does not wait');
});

test('the feed: one look serves all who wait, and there is none while nobody does', async (t) => {
  const { feed, looks, disable } = openFeed(t, { pause: 100 });
  await sleep(30);
  t.deepEqual(looks, []);
  const waiting = Array.from({ length: 40 }, () => feed.after(1n, never));
  await sleep(350);
  t.true(looks.length <= 5, `${looks.length} looks`);
  disable(2n);
  for (const { cursor } of await Promise.all(waiting)) t.is(cursor, 2n);
  const before = looks.length;
  await sleep(250);
  t.true(looks.length <= before + 1);
});

test('the feed: an answer without news comes after a while; one that nobody waits for leaves its place', async (t) => {
  const { feed } = openFeed(t, { maxWaitMs: 50, waiting: 1 });
  const empty: Page = { cursor: 5n, more: false, standings: [], revokedKeyIds: [] };
  const first = feed.after(5n, never);
  const error = await t.throwsAsync(feed.after(5n, never), { instanceOf: HubError });
  t.like(error, { kind: 'UNAVAILABLE', reason: 'TOO_BUSY' });
  t.deepEqual(await first, empty);

  const gone = new AbortController();
  const left = feed.after(5n, gone.signal);
  gone.abort();
  await left;
  t.deepEqual(await feed.after(5n, never), empty);
});

test('the feed: a process that stops answers all at once, and takes nobody more', async (t) => {
  const { feed } = openFeed(t);
  const waiting = [feed.after(5n, never), feed.after(6n, never)];
  const began = Date.now();
  await feed.stop();
  t.deepEqual(
    (await Promise.all(waiting)).map(({ cursor }) => cursor),
    [5n, 6n],
  );
  t.true(Date.now() - began < 1_000);
  t.like(await t.throwsAsync(feed.after(5n, never)), { kind: 'UNAVAILABLE' });
});
