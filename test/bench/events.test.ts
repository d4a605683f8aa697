import test from 'ava';
import { eventsJudgements, type EventsReport, type EventsRun } from './events.ts';

const times = { count: 1, p50: 20, p95: 30, p99: 40, max: 50 };

function run(changes: Partial<EventsRun> = {}): EventsRun {
  return {
    accepted: 1_000,
    sendingSeconds: 2,
    deliveredSeconds: 2,
    seen: times,
    lag: times,
    told: 6_000,
    problems: [],
    rate: 500,
    seconds: 2,
    cpu: { gateway: 0.2, events: 0.04, postgres: 0.5 },
    connections: 0.02,
    load: 0.1,
    ...changes,
  };
}

const report: Omit<EventsReport, 'problems' | 'idlePercent'> = {
  fastest: run({ rate: undefined }),
  steady: run(),
  without: run({ cpu: { gateway: 0.1, postgres: 0.4 }, connections: 0 }),
  group: run({ rate: 100, cpu: { gateway: 3, events: 1 } }),
  unheardGroup: run({ rate: 100 }),
  streams: { memoryMiB: { gateway: 150, events: 100 }, idlePercent: { gateway: 3, events: 2, postgres: 50 } },
};

test('eventsJudgements: each figure by itself', (t) => {
  const reached = (changes: Partial<typeof report>) =>
    eventsJudgements({ ...report, ...changes }).map(({ isReached }) => isReached);
  const but = (place: number) => Array.from({ length: 7 }, (_, index) => index !== place);
  t.deepEqual(reached({}), but(-1));
  t.deepEqual(reached({ steady: run({ rate: 499 }) }), but(0));
  t.deepEqual(reached({ steady: run({ seen: { ...times, p50: 50 } }) }), but(1));
  t.deepEqual(reached({ steady: run({ seen: { ...times, p99: 500 } }) }), but(2));
  t.deepEqual(reached({ steady: run({ connections: 0.021 }) }), but(3));
  t.deepEqual(reached({ streams: { ...report.streams, memoryMiB: { gateway: 151, events: 100 } } }), but(4));
  t.deepEqual(reached({ streams: { ...report.streams, idlePercent: { gateway: 3, events: 2.1 } } }), but(5));
  t.deepEqual(reached({ group: run({ cpu: { gateway: 4, events: 1 } }) }), but(6));
});

test('eventsJudgements: what a group takes is told for its rate, though it took longer', (t) => {
  const group = run({ rate: 100, seconds: 60, cpu: { gateway: 30, events: 3 }, connections: 0 });
  const names = eventsJudgements({ ...report, group }).map(({ name }) => name);
  t.true(names.at(-1)!.includes(': 3.27 of a core'), names.at(-1));
});
