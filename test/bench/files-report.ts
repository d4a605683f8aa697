import type { Way } from './file-load.ts';
import type { Percentiles } from './percentiles.ts';
import { hundredths, print, sum, whole } from './report.ts';

/** What the benchmark found out about files with one hub on one store. */
export interface FilesReport {
  store: 'disk' | 'minio';
  /** Size of the large file. */
  gib: number;
  /** Size of each transfer in the rounds. */
  roundMiB: number;
  uploads: TransferReport[];
  downloads: TransferReport[];
  /** What downloads cost that nobody reads: how many at once, and by how much memory each process grew. */
  stalled: { count: number; grownMiB: Record<string, number> };
  /** Until an upload was begun. */
  initiateMs: Percentiles;
  /** Until the hub had signed a URL for a chunk. */
  urlMs: Percentiles;
  /** Of the large file, through the gateway. */
  large: {
    uploadMBPerSecond: number;
    completeMs: number;
    downloadMBPerSecond: number;
    /** By process. `load` is the benchmark's own. */
    cpuSecondsPerGiB: Record<'upload' | 'complete' | 'download', Record<string, number>>;
  };
  /** While the large file passed. */
  growth: Growth;
  problems: string[];
}

/** One way to transfer, in all rounds. */
export interface TransferReport {
  way: Way;
  /** How many chunks or ranges at once. */
  parallel: number;
  /** By round; without the beginning and the end of an upload. */
  mbPerSecond: number[];
  /** By round: to `raw` of the same round, with as many at once. Empty without an S3 to compare with. */
  ratios: number[];
  /** By process. */
  cpuSecondsPerGiB: Record<string, number>;
}

/** Memory in MiB, by process; the highest that was seen for what took time. */
export interface Growth {
  beforeMiB: Record<string, number>;
  uploadingMiB: Record<string, number>;
  completingMiB: Record<string, number>;
  downloadingMiB: Record<string, number>;
  afterMiB: Record<string, number>;
  /** From before to the highest. */
  grownMiB: Record<string, number>;
}

/** The figures to reach. */
export const fileGoals = {
  gatewayRatio: 0.8,
  presignedRatio: 0.95,
  downloadRatio: 0.5,
  /** Seconds for a GiB, of the processes that the bytes pass, and what MinIO needs more than for its own GET. */
  downloadCpu: 3,
  grownMiB: 64,
  /** Of the processes that the bytes pass together, for each download that nobody reads. */
  stalledMiB: 1,
  initiateP99Ms: 100,
  /** Of 2 GiB. */
  completeMs: 10_000,
};

const names: Record<Way, string> = {
  gateway: 'through the gateway',
  presigned: 'by URLs of the hub',
  raw: 'MinIO itself',
};
/** What isn't the hub's own. */
const notOurs = new Set(['minio', 'load']);

export function printFiles(report: FilesReport): void {
  const { store, gib, roundMiB, uploads, downloads, stalled, initiateMs, urlMs, large, growth } = report;
  console.log(`\nFiles ${store === 'minio' ? 'in MinIO' : 'on disk'}\n`);
  console.log(
    `MB/s, median of rounds of ${roundMiB} MiB each, and the share of what MinIO itself takes in the same round`,
  );
  const transfers = [
    ...uploads.map((each) => ({ ...each, name: `up ${names[each.way]}, ${each.parallel} at once` })),
    ...downloads.map((each) => ({ ...each, name: `down ${names[each.way]}, ${each.parallel} at once` })),
  ];
  print([
    ['', 'MB/s', 'least', 'most', 'share', 'least', 'most'],
    ...transfers.map(({ name, mbPerSecond, ratios, way }) => [
      name,
      ...spread(mbPerSecond).map(whole),
      ...(way === 'raw' || ratios.length === 0 ? ['', '', ''] : spread(ratios).map(hundredths)),
    ]),
  ]);

  console.log(
    `\n${gib} GiB through the gateway, 4 at once: ${whole(large.uploadMBPerSecond)} MB/s, completed in ` +
      `${whole(large.completeMs)} ms, down ${whole(large.downloadMBPerSecond)} MB/s`,
  );
  const processes = Object.keys(growth.beforeMiB);
  console.log('\nCPU seconds per GiB');
  print([
    ['', ...processes, 'hub in all'],
    ...Object.entries(large.cpuSecondsPerGiB).map(([phase, cpu]) => cpuRow(`${gib} GiB, ${phase}`, cpu, processes)),
    ...transfers.map(({ name, cpuSecondsPerGiB: cpu }) => cpuRow(name, cpu, processes)),
  ]);
  console.log(`\nMemory in MiB while ${gib} GiB passed, the highest that was seen`);
  const row = (name: string, values: Record<string, number>) => [
    name,
    ...processes.map((process) => whole(values[process] ?? 0)),
  ];
  print([
    ['', ...processes],
    row('before', growth.beforeMiB),
    row('uploading', growth.uploadingMiB),
    row('completing', growth.completingMiB),
    row('downloading', growth.downloadingMiB),
    row('after', growth.afterMiB),
    row('grown by', growth.grownMiB),
  ]);
  console.log(`\nMemory in MiB that ${stalled.count} downloads cost which nobody reads`);
  print([['', ...processes], row('grown by', stalled.grownMiB)]);
  const times = ({ count, p50, p99, max }: Percentiles) =>
    `p50 ${tenths(p50)}, p99 ${tenths(p99)}, max ${tenths(max)} ms (of ${count})`;
  console.log(`\nTo begin an upload: ${times(initiateMs)}. To get a URL for a chunk: ${times(urlMs)}`);

  console.log('\nFigures to reach');
  const judge = (isReached: boolean, what: string) =>
    console.log(`  ${isReached ? 'reached    ' : 'NOT REACHED'} ${what}`);
  for (const { way, parallel, ratios } of uploads) {
    if (store !== 'minio' || way === 'raw' || parallel !== 4 || ratios.length === 0) continue;
    const goal = way === 'gateway' ? fileGoals.gatewayRatio : fileGoals.presignedRatio;
    const [ratio] = spread(ratios) as [number];
    judge(ratio >= goal, `up ${names[way]}, 4 at once: ${hundredths(ratio)} of MinIO itself (at least ${goal})`);
  }
  for (const { way, parallel, ratios, cpuSecondsPerGiB: cpu } of downloads) {
    if (way === 'raw') continue;
    const name = `down ${names[way]}, ${parallel} at once`;
    if (store === 'minio') {
      const [ratio] = spread(ratios) as [number];
      judge(
        ratio >= fileGoals.downloadRatio,
        `${name}: ${hundredths(ratio)} of MinIO itself (at least ${fileGoals.downloadRatio})`,
      );
    }
    const raw = downloads.find((other) => other.way === 'raw' && other.parallel === parallel);
    const more = passing(cpu) + Math.max(0, (cpu['minio'] ?? 0) - (raw?.cpuSecondsPerGiB['minio'] ?? 0));
    judge(
      more <= fileGoals.downloadCpu,
      `${name}: ${hundredths(more)} s of CPU a GiB in gateway and file service, and of MinIO more than its own GET (at most ${fileGoals.downloadCpu})`,
    );
  }
  const each = passing(stalled.grownMiB) / stalled.count;
  judge(
    each <= fileGoals.stalledMiB,
    `a download that nobody reads: ${hundredths(each)} MiB (at most ${fileGoals.stalledMiB})`,
  );
  const grown = Object.entries(growth.grownMiB).filter(([name]) => !notOurs.has(name));
  const [most, mebibytes] = grown.toSorted(([, a], [, b]) => b - a)[0]!;
  judge(
    mebibytes <= fileGoals.grownMiB,
    `memory: ${most} grew the most, by ${whole(mebibytes)} MiB (at most ${fileGoals.grownMiB})`,
  );
  judge(
    initiateMs.p99 < fileGoals.initiateP99Ms,
    `an upload begun, p99: ${tenths(initiateMs.p99)} ms (below ${fileGoals.initiateP99Ms})`,
  );
  const completeGoal = (fileGoals.completeMs * gib) / 2;
  judge(
    large.completeMs <= completeGoal,
    `${gib} GiB completed: ${whole(large.completeMs)} ms (at most ${whole(completeGoal)})`,
  );
}

function cpuRow(name: string, cpu: Record<string, number>, processes: readonly string[]): string[] {
  return [name, ...processes.map((process) => hundredths(cpu[process] ?? 0)), hundredths(sum(ours(cpu)))];
}

/** Of the hub's processes those that bytes pass: the others do now and then what they always do. */
function passing(values: Record<string, number>): number {
  return sum(Object.fromEntries(Object.entries(values).filter(([name]) => /^(gateway|file)\b/.test(name))));
}

/** What is the hub's own. */
function ours(values: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).filter(([process]) => !notOurs.has(process)));
}

/** Median, least and most. */
function spread(values: readonly number[]): number[] {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
  return [middle, sorted[0]!, sorted.at(-1)!];
}

const tenths = (value: number) => value.toFixed(1);
