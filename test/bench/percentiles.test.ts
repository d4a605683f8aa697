import test from 'ava';
import { percentiles } from './percentiles.ts';

test('percentiles: the least value that so many percent do not exceed', (t) => {
  const values = Array.from({ length: 200 }, (_, index) => 200 - index);
  t.deepEqual(percentiles(values), { count: 200, p50: 100, p95: 190, p99: 198, max: 200 });
  t.deepEqual(percentiles([7]), { count: 1, p50: 7, p95: 7, p99: 7, max: 7 });
  t.deepEqual(percentiles([]), { count: 0, p50: 0, p95: 0, p99: 0, max: 0 });
});
