import type { Ratios } from './ratios.ts';
import { hundredths, print, sum, type EngineReport, type Report, type RunReport } from './report.ts';

/** A figure of a run, and how it depends on the speed of the machine. */
interface Figure {
  name: string;
  of(run: RunReport): number | undefined;
  /** A time is the longer the slower the machine is, a rate the smaller; a count is what it is. */
  kind: 'time' | 'rate' | 'count';
}

/** A figure beside the one of an earlier run. */
export interface Compared {
  name: string;
  now: number;
  /** As the earlier run would have had it on the machine as it is now. */
  earlier: number;
  /** `now` of `earlier`. */
  ratio: number;
}

const count = (name: string, of: keyof Ratios, scale = 1): Figure => ({
  name,
  of: (run) => (typeof run.perMessage?.[of] === 'number' ? (run.perMessage[of] as number) / scale : undefined),
  kind: 'count',
});

const figures: readonly Figure[] = [
  { name: 'accepted/s', of: (run) => (run.mode === 'closed' ? run.acceptedPerSecond : undefined), kind: 'rate' },
  { name: 'delivered/s', of: (run) => (run.mode === 'closed' ? run.deliveredPerSecond : undefined), kind: 'rate' },
  { name: 'accept p50, ms', of: (run) => run.acceptMs.p50, kind: 'time' },
  { name: 'accept p95, ms', of: (run) => run.acceptMs.p95, kind: 'time' },
  { name: 'accepted to delivered p50, ms', of: (run) => run.acceptToDeliveredMs.p50, kind: 'time' },
  { name: 'accepted to delivered p99, ms', of: (run) => run.acceptToDeliveredMs.p99, kind: 'time' },
  { name: 'CPU of the hub, ms a message', of: hubCpu, kind: 'time' },
  { name: 'CPU of PostgreSQL, ms a message', of: (run) => run.cpuSecondsPer1000['postgres'], kind: 'time' },
  { name: 'CPU of Kafka, ms a message', of: (run) => run.cpuSecondsPer1000['kafka'], kind: 'time' },
  count('commits a message', 'commits'),
  count('WAL, KiB a message', 'walBytes', 1024),
  count('rows inserted a message', 'rowsInserted'),
  count('rows updated a message', 'rowsUpdated'),
  count('rows deleted a message', 'rowsDeleted'),
  count('rows read a message', 'rowsRead'),
  count('statements a message', 'statements'),
  count('RPCs a message', 'rpcs'),
  count('Kafka requests a message', 'kafkaRequests'),
  count('publications a message', 'publications'),
  count('log lines a message', 'logLines'),
];

function hubCpu({ cpuSecondsPer1000 }: RunReport): number {
  const { load: _, ...hub } = cpuSecondsPer1000;
  return sum(hub);
}

/**
 * The figures of a run beside those of an earlier one; what one of them lacks is left out.
 *
 * @param slower how many times as long the machine takes now for the same work
 */
export function compareRuns(now: RunReport, earlier: RunReport, slower: number): Compared[] {
  return figures.flatMap(({ name, of, kind }): Compared[] => {
    const [value, before] = [of(now), of(earlier)];
    if (value === undefined || before === undefined) return [];
    const expected = { time: before * slower, rate: before / slower, count: before }[kind];
    return [
      { name, now: value, earlier: expected, ratio: expected === 0 ? (value === 0 ? 1 : Infinity) : value / expected },
    ];
  });
}

/** How many times as long the machine takes for the same work as it did for an earlier report; 1 where one of them doesn't know. */
export function slowerThan(earlier: Report, now: Report): number {
  const [before, after] = [earlier, now].map(({ machine: { loopMs } }) =>
    loopMs === undefined ? undefined : (loopMs.before + loopMs.after) / 2,
  );
  return before === undefined || after === undefined ? 1 : after / before;
}

/** Prints each run beside the one with the same name of an earlier report. */
export function printComparison(now: Report, earlier: Report, file: string): void {
  const slower = slowerThan(earlier, now);
  console.log(
    `\nCompared with ${file} of ${earlier.date}. The machine now takes ${hundredths(slower)} times as long for the same work:`,
  );
  console.log('earlier times and rates are shown as they would be now; counts of work are as they were.');
  for (const engine of now.engines) {
    const before = earlier.engines.find((each) => each.engine === engine.engine);
    if (before === undefined) {
      console.log(`\n${engine.engine}: not in that file`);
      continue;
    }
    console.log(`\n${engine.engine}${differentProcesses(engine, before)}`);
    for (const run of engine.runs) {
      const same = before.runs.find(({ name }) => name === run.name);
      if (same === undefined) continue;
      print([
        [run.name, 'now', 'earlier', 'ratio'],
        ...compareRuns(run, same, slower).map((each) => [
          each.name,
          hundredths(each.now),
          hundredths(each.earlier),
          `${hundredths(each.ratio)} ×`,
        ]),
      ]);
      console.log();
    }
  }
}

function differentProcesses(now: EngineReport, before: EngineReport): string {
  if (now.processes === before.processes) return '';
  return ` (processes: ${now.processes} now, ${before.processes ?? 'each'} then)`;
}
