import test from 'ava';
import { fitting, maxPageBytes } from './page-bytes.ts';

test('fitting: as many of the first items as have the bytes of an answer, and at least one', (t) => {
  const page = (sizes: readonly number[]) => fitting(sizes, (size) => size).length;
  const half = maxPageBytes / 2;
  t.is(page([]), 0);
  t.is(page([1, 2, 3]), 3);
  t.is(page([half, half]), 2);
  t.is(page([half, half, 1, 1]), 2);
  t.is(page([half, half + 1, 1]), 1);
  t.is(page([maxPageBytes + 1, 1]), 1);
});
