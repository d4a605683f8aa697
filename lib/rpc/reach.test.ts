import { connectivityState, Metadata, status } from '@grpc/grpc-js';
import test from 'ava';
import type { CallError } from './delivery.ts';
import { Reach, type Attempts } from './reach.ts';

/** A client that is connected when the test says so. */
function openClient(state: connectivityState) {
  let tell = () => {};
  const client = {
    state,
    become(next: connectivityState) {
      client.state = next;
      tell();
    },
    getChannel: () => ({
      getConnectivityState: () => client.state,
      watchConnectivityState: (
        _state: connectivityState,
        _deadline: Date | number,
        changed: (error?: Error) => void,
      ) => {
        tell = changed;
      },
    }),
  };
  return client;
}

const later: Attempts = { isRepeatable: false, deadline: Infinity };

function lost(): CallError {
  const details = 'It was lost';
  return Object.assign(new Error(details), {
    code: status.UNAVAILABLE,
    details,
    metadata: new Metadata(),
    delivery: 'never sent' as const,
  });
}

test('reach: tries that are made again are no more than a hundred and a tenth of all calls', async (t) => {
  const reach = new Reach(openClient(connectivityState.READY));
  let attempts = 0;
  const attempt = async () => {
    attempts += 1;
    throw lost();
  };
  const calls = 40;
  await Promise.all(
    Array.from({ length: calls }, () => t.throwsAsync(reach.call(attempt, later), { message: 'It was lost' })),
  );
  // Each would be tried five times.
  t.is(attempts, calls + 100);
  for (let count = 0; count < 15; count += 1) await t.throwsAsync(reach.call(attempt, later));
  t.is(attempts, calls + 100 + 15 + 1);
});

test('reach: calls wait for a server that went away, then fail at once, and are made once one is back', async (t) => {
  const maxAwayMs = 300;
  const client = openClient(connectivityState.CONNECTING);
  const reach = new Reach(client, { maxAwayMs });
  let attempts = 0;
  const call = (options: Partial<Attempts> = {}) =>
    reach.call(async () => (attempts += 1), { ...later, ...options }).catch((error: CallError) => error);

  const began = performance.now();
  const [held, impatient] = await Promise.all([call(), call({ deadline: Date.now() + 50 })]);
  t.true(performance.now() - began >= maxAwayMs - 1);
  t.like(held, { code: status.UNAVAILABLE, delivery: 'never sent' });
  t.like(impatient, { code: status.DEADLINE_EXCEEDED, delivery: 'given up' });
  const late = await Promise.race([call(), new Promise((resolve) => setImmediate(resolve, 'it waits'))]);
  t.like(late, { code: status.UNAVAILABLE, delivery: 'never sent' });
  t.is(attempts, 0);

  client.become(connectivityState.READY);
  await new Promise(setImmediate);
  t.is(await call(), 1);
  // It waits for the next outage as long as for the first.
  client.state = connectivityState.IDLE;
  const waiting = call();
  client.become(connectivityState.READY);
  t.is(await waiting, 2);
});

test('reach: what is of use to nobody any more is neither sent nor tried again', async (t) => {
  const client = openClient(connectivityState.CONNECTING);
  const reach = new Reach(client);
  let attempts = 0;
  let isGone = true;
  const attempt = async () => {
    attempts += 1;
    isGone = true;
    throw lost();
  };
  const waiting = reach.call(attempt, { ...later, isGone: () => isGone });
  client.become(connectivityState.READY);
  t.like(await t.throwsAsync(waiting), { code: status.CANCELLED, delivery: 'given up' });
  t.is(attempts, 0);
  isGone = false;
  t.like(await t.throwsAsync(reach.call(attempt, { ...later, isGone: () => isGone })), { code: status.UNAVAILABLE });
  t.is(attempts, 1);
});
