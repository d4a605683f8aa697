import test from 'ava';
import { HubError } from '#lib/errors.ts';
import {
  cancelled,
  daysFrom,
  decide,
  isShallow,
  nameKey,
  newSubscription,
  outputOf,
  statusAt,
  subscribed,
  subscriptionAt,
  tokensOf,
  toolProblems,
} from './tools.ts';

const hour = 3_600_000;
const at = (hours: number) => new Date(Date.UTC(2026, 10, 1) + hours * hour);

test('subscriptionAt: a period that is over is followed by the one that the moment is in, with a new counter', (t) => {
  const state = { ...newSubscription('free', at(0), 24 * hour), tokensUsed: 7 };
  t.is(subscriptionAt(state, at(23), 24 * hour), state);
  t.deepEqual(subscriptionAt(state, at(24), 24 * hour), {
    ...state,
    tokensUsed: 0,
    periodStart: at(24),
    periodEnd: at(48),
  });
  t.deepEqual(subscriptionAt(state, at(24 * 100 + 1), 24 * hour).periodStart, at(24 * 100));
});

test('subscriptionAt: with another length of periods, the next one begins where the last one ended', (t) => {
  const state = newSubscription('free', at(0), 24 * hour);
  t.deepEqual(subscriptionAt(state, at(25), hour), { ...state, periodStart: at(25), periodEnd: at(26) });
});

test('a cancelled subscription ends with its period, and its counter stays', (t) => {
  const state = { ...newSubscription('pro', at(0), 24 * hour), tokensUsed: 7 };
  const over = cancelled(state, at(3), 24 * hour)!;
  t.deepEqual(over, { ...state, expiresAt: at(24) });
  t.is(cancelled(over, at(4), 24 * hour), undefined);
  t.deepEqual(
    [3, 23, 24, 500].map((hours) => statusAt(over, at(hours))),
    ['cancelled', 'cancelled', 'expired', 'expired'],
  );
  t.is(subscriptionAt(over, at(500), 24 * hour), over);
});

test('cancelled: one whose period is over by then ends with the period that it is in', (t) => {
  const state = { ...newSubscription('pro', at(0), 24 * hour), tokensUsed: 7 };
  const { tokensUsed, expiresAt } = cancelled(state, at(30), 24 * hour)!;
  t.deepEqual([tokensUsed, expiresAt], [0, at(48)]);
});

test('subscribed: a change of plan and a cancellation that is taken back keep what was used; an expired one begins anew', (t) => {
  const state = { ...newSubscription('free', at(0), 24 * hour), tokensUsed: 7 };
  t.is(subscribed(state, 'free', at(1), 24 * hour), undefined);
  t.deepEqual(subscribed(state, 'pro', at(1), 24 * hour), { ...state, plan: 'pro' });
  const over = cancelled(state, at(1), 24 * hour)!;
  t.deepEqual(subscribed(over, 'free', at(2), 24 * hour), state);
  t.deepEqual(subscribed(over, 'free', at(25), 24 * hour), newSubscription('free', at(25), 24 * hour));
  t.deepEqual(subscribed(undefined, 'pro', at(0), 24 * hour), newSubscription('pro', at(0), 24 * hour));
});

test('decide: a call may begin while fewer tokens are used than the limit, and waits for those under way near it', (t) => {
  const state = (tokensUsed: number) => ({ ...newSubscription('free', at(0), 24 * hour), tokensUsed });
  const decision = (tokensUsed: number, reserved: number) => {
    const found = decide(state(tokensUsed), { now: at(1), limit: 100, reserved });
    return found instanceof HubError ? found.reason : found;
  };
  t.is(decision(99, 0), 'admitted');
  t.is(decision(100, 0), 'TOKEN_LIMIT_EXCEEDED');
  t.is(decision(50, 49), 'admitted');
  t.is(decision(50, 50), 'undecided');
  t.is(decision(100, 50), 'TOKEN_LIMIT_EXCEEDED');
  const none = decide(undefined, { now: at(1), limit: 0, reserved: 0 });
  t.is((none as HubError).reason, 'SUBSCRIPTION_REQUIRED');
  const over = decide(cancelled(state(0), at(1), 24 * hour)!, { now: at(24), limit: 100, reserved: 0 });
  t.is((over as HubError).reason, 'SUBSCRIPTION_REQUIRED');
});

test('tokensOf: the count of the tool, where it can be believed; else a token for each four bytes', (t) => {
  const bytes = 9;
  t.is(tokensOf({ usage: { total_tokens: 5 }, tokens_used: 6 }, bytes), 5);
  t.is(tokensOf({ usage: { total_tokens: 0 } }, bytes), 0);
  t.is(tokensOf({ tokens_used: 6 }, bytes), 6);
  t.is(tokensOf({ usage: { total_tokens: 1_000_000_000 } }, bytes), 1_000_000_000);
  for (const wrong of [-1, 1.5, 1_000_000_001, '5', null, [5], Number.NaN]) {
    t.is(tokensOf({ usage: { total_tokens: wrong }, tokens_used: 6 }, bytes), 6, String(wrong));
    t.is(tokensOf({ tokens_used: wrong }, bytes), 3, String(wrong));
  }
  t.is(tokensOf({ usage: [7] }, bytes), 3);
  t.is(tokensOf({}, 8), 2);
});

test('outputOf: an object as it is, anything else as the result of one', (t) => {
  t.deepEqual(outputOf({ a: 1 }), { a: 1 });
  for (const value of [[1], 'text', 5, true, null]) t.deepEqual(outputOf(value), { result: value });
});

test('isShallow: counts the levels of objects and lists', (t) => {
  t.true(isShallow({ a: [1] }, 2));
  t.false(isShallow({ a: [[1]] }, 2));
  t.true(isShallow('text', 0));
});

test('daysFrom: both days are inclusive, in UTC, and each may be left out', (t) => {
  t.deepEqual(daysFrom('2026-11-29', '2026-11-30'), {
    days: { from: new Date('2026-11-29T00:00:00Z'), until: new Date('2026-12-01T00:00:00Z') },
    problems: [],
  });
  t.deepEqual(daysFrom('2026-11-29', '2026-11-29').problems, []);
  t.deepEqual(daysFrom('', ''), { days: { from: undefined, until: undefined }, problems: [] });
});

test('daysFrom: names days that no calendar has, and a beginning after the end', (t) => {
  const fields = (start: string, end: string) => daysFrom(start, end).problems.map(({ field }) => field);
  t.deepEqual(fields('2026-11-30', '2026-11-29'), ['start_date']);
  t.deepEqual(fields('2026-02-30', '2026-13-01'), ['start_date', 'end_date']);
  t.deepEqual(fields('0000-01-01', ''), ['start_date']);
  t.deepEqual(fields('', '2025-02-29'), ['end_date']);
  t.deepEqual(fields('2024-02-29', '9999-12-31'), []);
});

test('toolProblems: names have 1 to 100 characters without the spaces around them, descriptions something', (t) => {
  t.deepEqual(toolProblems({ name: ` ${'😀'.repeat(100)} `, description: 'x' }), []);
  const fields = (wish: Parameters<typeof toolProblems>[0]) => toolProblems(wish).map(({ field }) => field);
  t.deepEqual(fields({ name: 'x'.repeat(101) }), ['name']);
  t.deepEqual(fields({ name: ' \t', description: ' ' }), ['name', 'description']);
  t.deepEqual(fields({}), []);
});

test('nameKey: names that differ in letter case, or in how a letter is put together, are one', (t) => {
  t.is(nameKey('Übersetzer'), nameKey('ÜBERSETZER'));
});
