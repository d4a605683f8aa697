import { stat } from 'node:fs/promises';
import test from 'ava';
import { opened, openedFolder, openedTogether } from './opened.ts';

/** Has what only the object itself can reach. */
class Counter {
  #count = 0;
  add(): number {
    this.#count += 1;
    return this.#count;
  }
}

const events: string[] = [];
const folder = openedFolder('chat4all-opened-');
const first = opened(
  async () => {
    events.push('open first');
    return { name: 'first', people: [{ name: 'ana' }, { name: 'bruno' }], add: (a: number, b: number) => a + b };
  },
  () => events.push('close first'),
);
const { people, add } = first;
const [ana, bruno] = people as [{ name: string }, { name: string }];
const second = opened(() => ({ after: first.name, counter: new Counter() }));
const [left, right] = openedTogether(
  ['left', 'right'].map((side) => ({ open: async () => ({ side, after: second.after }), known: { side } })),
) as [{ side: string; after: string }, { side: string; after: string }];
const title = `${left.side} and ${right.side}`;

// Asked before it is there, on purpose.
let early: unknown;
try {
  early = add(1, 2);
} catch (error) {
  early = error;
}

test('opened: stands for what was opened, and for its members that were taken out before', (t) => {
  t.deepEqual(events, ['open first']);
  t.is(first.name, 'first');
  t.deepEqual([ana.name, bruno.name, people.length, [...people].length], ['ana', 'bruno', 2, 2]);
  t.is(add(1, 2), 3);
  t.deepEqual({ ...ana, age: 5 }, { name: 'ana', age: 5 });
  t.true('name' in first);
});

test('opened: methods find what is private, and what is set stays', (t) => {
  const { counter } = second;
  t.deepEqual([counter.add(), second.counter.add()], [1, 2]);
  t.true(second.counter instanceof Counter);
  bruno.name = 'bia';
  t.is(first.people[1]!.name, 'bia');
});

test('opened: one is opened after the other, in the order of the file, and several together', (t) => {
  t.is(second.after, 'first');
  t.deepEqual([left.after, right.after], ['first', 'first']);
});

test('opened: before, only what is known can be read, and whoever uses anything else is told', (t) => {
  t.is(title, 'left and right');
  t.regex(String(early), /^Error: it\.add is used before the hook that opens it/);
});

test('openedFolder: is there, for others to read', async (t) => {
  t.is((await stat(folder)).mode & 0o777, 0o755);
});
