import test from 'ava';
import { BoundedMap } from './bounded-map.ts';

test('set: where there is no room, the entry that was set longest ago goes', (t) => {
  const map = new BoundedMap<string, number>(2);
  map.set('a', 1).set('b', 2).set('c', 3);
  t.deepEqual([...map], [['b', 2], ['c', 3]]); // prettier-ignore
});

test('set: what is set anew takes no room from others, and is the last to go', (t) => {
  const map = new BoundedMap<string, number>(2);
  map.set('a', 1).set('b', 2).set('a', 3);
  t.deepEqual([...map], [['b', 2], ['a', 3]]); // prettier-ignore
  map.set('c', 4);
  t.deepEqual([...map.keys()], ['a', 'c']);
});
