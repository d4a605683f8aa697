import test from 'ava';
import { Shares } from './shares.ts';

/** Lets each client take what it gets, one place each in turn. @returns how many places each has got */
function fill(shares: Shares, clients: readonly string[]): number[] {
  const got = clients.map(() => 0);
  for (let isFull = false; !isFull;) {
    isFull = true;
    for (const [index, client] of clients.entries()) {
      if (shares.take(client) === undefined) continue;
      got[index]! += 1;
      isFull = false;
    }
  }
  return got;
}

test('take: one client alone gets half of the places', (t) => {
  t.deepEqual(fill(new Shares(100), ['a']), [50]);
});

test('take: n clients get an equal share each, and the next one finds a place', (t) => {
  const shares = new Shares(101);
  const greedy = Array.from({ length: 100 }, (_, index) => `client ${index}`);
  t.deepEqual(
    fill(shares, greedy),
    Array.from({ length: 100 }, () => 1),
  );
  t.is(shares.used, 100);
  t.truthy(shares.take('a newcomer'));
  t.is(shares.take('too late'), undefined);
});

test('take: what is given back goes to whoever has the smaller share', (t) => {
  const shares = new Shares(4);
  const [first, second] = [shares.take('greedy'), shares.take('greedy')];
  t.is(shares.take('greedy'), undefined);
  t.truthy(shares.take('modest'));
  first?.();
  second?.();
  t.is(shares.used, 1);
  t.truthy(shares.take('greedy'));
});

test('take: a place is given back once, however often that is said', (t) => {
  const shares = new Shares(10);
  const giveBack = shares.take('a');
  shares.take('a');
  giveBack?.();
  giveBack?.();
  t.is(shares.used, 1);
});
