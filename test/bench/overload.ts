import type { CheckResult, RunArgument, RunResult } from './load.ts';
import { openField, type Field, type FieldOptions } from './messages.ts';
import { hundredths, print, whole } from './report.ts';

/** What a hub does when it is asked for more than it can do. */
export interface OverloadReport {
  engine: FieldOptions['engine'];
  processes: FieldOptions['processes'];
  /** Messages a second when users wait for their answers: the best of what was tried, and for how many users. */
  best: { acceptedPerSecond: number; users: number };
  floods: FloodReport[];
  problems: string[];
}

/** What became of messages that came at a steady rate, whether or not earlier ones were answered. */
export interface FloodReport {
  /** Times the best. */
  factor: number;
  offeredPerSecond: number;
  /** Accepted messages a second, all of which were delivered. */
  goodputPerSecond: number;
  /** Of those accepted, from when they were due, in milliseconds. */
  accept: RunResult['accept'];
  refusal: RunResult['refusal'];
  lag: RunResult['lag'];
  delivery: CheckResult['delivery'];
  wellAgainSeconds: number;
  refused: RunResult['refused'];
}

export interface OverloadOptions extends Pick<FieldOptions, 'engine' | 'folder' | 'processes' | 'signal'> {
  seconds: number;
  users: number;
}

export const overloadGoals = { goodputShare: 0.9, acceptP99: 2_000, refusalP99: 100, wellAgainSeconds: 2 };

const factors = [2, 5];
const manyUsers = 200;
const warmUpSeconds = 5;
const endLimit = 120_000;

/** Finds out how much a hub can do, and floods it with more. */
export async function measureOverload(options: OverloadOptions): Promise<OverloadReport> {
  await using started = new AsyncDisposableStack();
  const { seconds, users } = options;
  const crowds = [...new Set([users, manyUsers])];
  const field = await openField(started, { ...options, crowds });
  const problems: string[] = [];
  const common = { kind: 'one', via: 'raw', seconds, rate: 1 } as const;
  await run(field, { ...common, users, mode: 'closed', seconds: warmUpSeconds }, problems);
  const closed: OverloadReport['best'][] = [];
  for (const size of crowds) {
    options.signal.throwIfAborted();
    const { result } = await run(field, { ...common, users: size, mode: 'closed' }, problems);
    closed.push({ acceptedPerSecond: result.accepted / result.sendingSeconds, users: size });
  }
  const best = closed.reduce((a, b) => (b.acceptedPerSecond > a.acceptedPerSecond ? b : a));
  const floods: FloodReport[] = [];
  for (const factor of factors) {
    options.signal.throwIfAborted();
    const rate = Math.round(factor * best.acceptedPerSecond);
    const flood = { ...common, users: Math.max(...crowds), mode: 'flood', rate } as const;
    const { result, checked } = await run(field, flood, problems);
    floods.push({
      factor,
      offeredPerSecond: rate,
      goodputPerSecond: result.acceptedInTime / seconds,
      accept: result.accept,
      refusal: result.refusal,
      lag: result.lag,
      delivery: checked.delivery,
      wellAgainSeconds: result.wellAgainSeconds ?? Infinity,
      refused: result.refused,
    });
  }
  return { engine: options.engine, processes: options.processes, best, floods, problems };
}

async function run({ load }: Field, argument: RunArgument, problems: string[]) {
  const result = await load.ask('run', argument, argument.seconds * 1_000 + endLimit);
  const checked = await load.ask('check', undefined, endLimit);
  problems.push(...checked.problems);
  if (argument.mode !== 'flood') {
    problems.push(
      ...Object.entries(result.refused).map(([why, count]) => `${count} × a send that was refused: ${why}`),
    );
  }
  return { result, checked };
}

export function printOverload({ best, floods, problems }: OverloadReport): void {
  console.log(
    `\nAt best ${whole(best.acceptedPerSecond)} messages a second, of ${best.users} users who wait for their answers\n`,
  );
  print([
    [
      '',
      'offered/s',
      'accepted/s',
      'of the best',
      'accept p50',
      'p99 ms',
      'refusal p50',
      'p99 ms',
      'to delivered p99',
      'well again s',
      '(sent late p99)',
    ],
    ...floods.map((flood) => [
      `${flood.factor} × the best`,
      whole(flood.offeredPerSecond),
      whole(flood.goodputPerSecond),
      hundredths(flood.goodputPerSecond / best.acceptedPerSecond),
      whole(flood.accept.p50),
      whole(flood.accept.p99),
      whole(flood.refusal.p50),
      whole(flood.refusal.p99),
      whole(flood.delivery.p99),
      hundredths(flood.wellAgainSeconds),
      whole(flood.lag.p99),
    ]),
  ]);
  for (const { factor, refused } of floods) {
    const kinds = Object.entries(refused).map(([why, count]) => `${count} × ${why}`);
    console.log(`  refused at ${factor} ×: ${kinds.join(', ') || 'nothing'}`);
  }
  console.log();
  for (const { name, isReached } of overloadJudgements({ best, floods })) {
    console.log(`  ${isReached ? 'reached    ' : 'NOT REACHED'} ${name}`);
  }
  for (const problem of problems) console.log(`  ${problem}`);
}

/** What is to be reached, and whether it is. */
export function overloadJudgements({
  best,
  floods,
}: Pick<OverloadReport, 'best' | 'floods'>): { name: string; isReached: boolean }[] {
  const { goodputShare, acceptP99, refusalP99, wellAgainSeconds } = overloadGoals;
  return floods.flatMap((flood) => {
    const at = `${flood.factor} ×:`;
    const share = flood.goodputPerSecond / best.acceptedPerSecond;
    return [
      {
        name: `${at} goodput ${hundredths(share)} of the best (at least ${goodputShare})`,
        isReached: share >= goodputShare,
      },
      {
        name: `${at} accept p99 ${whole(flood.accept.p99)} ms (below ${acceptP99})`,
        isReached: flood.accept.p99 < acceptP99,
      },
      {
        name: `${at} refusal p99 ${whole(flood.refusal.p99)} ms (below ${refusalP99})`,
        isReached: flood.refusal.p99 < refusalP99,
      },
      {
        name: `${at} well again after ${hundredths(flood.wellAgainSeconds)} s (within ${wellAgainSeconds})`,
        isReached: flood.wellAgainSeconds <= wellAgainSeconds,
      },
    ];
  });
}
