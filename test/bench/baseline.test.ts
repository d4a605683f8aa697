import test from 'ava';
import { compareRuns, slowerThan } from './baseline.ts';
import type { Report, RunReport } from './report.ts';

function run(changes: Partial<RunReport>): RunReport {
  const times = { count: 1, p50: 10, p95: 20, p99: 30, max: 40 };
  return {
    mode: 'closed',
    acceptedPerSecond: 100,
    deliveredPerSecond: 90,
    acceptMs: times,
    acceptToDeliveredMs: times,
    cpuSecondsPer1000: { hub: 2, postgres: 1, load: 5 },
    perMessage: { commits: 4 },
    ...changes,
  } as RunReport;
}

test('compareRuns: times and rates as they would be on the machine as it is now, counts as they are', (t) => {
  const compared = compareRuns(
    run({ acceptedPerSecond: 100, perMessage: { commits: 1, rpcs: 2 } as RunReport['perMessage'] }),
    run({ acceptedPerSecond: 100 }),
    2,
  );
  const found = Object.fromEntries(compared.map(({ name, ...each }) => [name, each]));
  t.deepEqual(found['accepted/s'], { now: 100, earlier: 50, ratio: 2 });
  t.deepEqual(found['accept p95, ms'], { now: 20, earlier: 40, ratio: 0.5 });
  t.deepEqual(found['CPU of the hub, ms a message'], { now: 3, earlier: 6, ratio: 0.5 });
  t.deepEqual(found['commits a message'], { now: 1, earlier: 4, ratio: 0.25 });
  t.is(found['RPCs a message'], undefined, 'the earlier one does not have it');
  t.is(found['CPU of Kafka, ms a message'], undefined);
});

test('compareRuns: a steady rate is no figure to compare; a report of before the ratios can be compared', (t) => {
  const { perMessage: _, ...old } = run({ mode: 'steady' });
  const names = new Set(compareRuns(run({ mode: 'steady' }), old as RunReport, 1).map(({ name }) => name));
  t.false(names.has('accepted/s'));
  t.false(names.has('commits a message'));
  t.true(names.has('accept p50, ms'));
});

test('slowerThan: by the work of a known size, and the same where that was not timed', (t) => {
  const report = (loopMs?: { before: number; after: number }) => ({ machine: { loopMs } }) as Report;
  t.is(slowerThan(report({ before: 100, after: 100 }), report({ before: 140, after: 160 })), 1.5);
  t.is(slowerThan(report(), report({ before: 140, after: 160 })), 1);
});
