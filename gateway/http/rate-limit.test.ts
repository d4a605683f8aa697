import type { NextFunction, Request, Response } from 'express';
import test from 'ava';
import type { RequestDetails } from './request-details.ts';
import { rateLimit } from './rate-limit.ts';

/** Asks whether one more request of a client may go on. @returns whether it may, and the headers of its answer */
function ask(handler: ReturnType<typeof rateLimit>, client: string, isUser = false) {
  const headers: Record<string, string> = {};
  const locals: RequestDetails = { caller: { client, isUser, credential: undefined } };
  const response = { locals, setHeader: (name: string, value: string) => (headers[name] = value) };
  let goesOn = false;
  let refusal: unknown;
  try {
    void handler({} as Request, response as unknown as Response, (() => (goesOn = true)) as NextFunction);
  } catch (error) {
    refusal = error;
  }
  return { goesOn, headers, refusal };
}

test('rateLimit: in a second just as many requests of a client go on as it may, and then they do again', async (t) => {
  const handler = rateLimit(3);
  const asked = Array.from({ length: 5 }, () => ask(handler, 'one'));
  const other = ask(handler, 'two', true);
  t.deepEqual(
    asked.map(({ goesOn }) => goesOn),
    [true, true, true, false, false],
  );
  t.deepEqual(
    asked.map(({ headers }) => headers['RateLimit']),
    [2, 1, 0, 0, 0].map((left) => `"address";r=${left};t=1`),
  );
  for (const { refusal } of asked.slice(3)) t.like(refusal, { status: 429, code: 'RATE_LIMITED', retryAfter: 1 });
  t.true(other.goesOn);
  t.is(other.headers['RateLimit-Policy'], '"user";q=3;w=1');
  while (!ask(handler, 'one').goesOn) await new Promise((resolve) => setTimeout(resolve, 50));
  t.true(ask(handler, 'one').goesOn);
});

test('rateLimit: the second ends in one second, at whatever moment it begins', (t) => {
  const now = performance.now.bind(performance);
  t.teardown(() => (performance.now = now));
  // Of floating-point numbers, 1,000 more than one of these, less it, is more than 1,000.
  const odd = Array.from({ length: 1_000 }, (_, index) => index * 100 + index / 997).filter(
    (at) => at + 1_000 - at > 1_000,
  );
  t.true(odd.length > 0);
  for (const at of odd) {
    performance.now = () => at;
    t.is(ask(rateLimit(3), 'one').headers['RateLimit'], '"address";r=2;t=1');
  }
});

test('rateLimit: 0 is no limit', (t) => {
  const handler = rateLimit(0);
  for (let count = 0; count < 100; count += 1) t.deepEqual(ask(handler, 'one').headers, {});
  t.true(ask(handler, 'one').goesOn);
});
