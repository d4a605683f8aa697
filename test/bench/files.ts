import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { minioAvailable, startMinio } from '../../dev/engines/minio.ts';
import type { commands as loadCommands, Transferred, Way } from './file-load.ts';
import type { FilesReport, Growth, TransferReport } from './files-report.ts';
import { printProfiles, type Window } from './profile.ts';
import { between, mapValues, memoryOf, startHub, type BenchedHub, type Processes } from './processes.ts';
import { openRemote, type Remote } from './remote.ts';

export interface FilesOptions {
  /** Where the hub keeps its files. */
  store: FilesReport['store'];
  /** Size of the large file. */
  gib: number;
  /** Where data may be kept meanwhile. */
  folder: string;
  signal: AbortSignal;
}

type Load = Remote<typeof loadCommands>;

const mebibyte = 2 ** 20;
const chunkSize = 16 * mebibyte;
const roundSize = 256 * mebibyte;
const mostRounds = 5;
const leastRounds = 3;
/** No further round begins after this. Milliseconds. */
const roundsLimit = 180_000;
const initiations = 200;
const settleTime = 3_000;
/** What the stores may take to get rid of what was removed before the next transfer begins. */
const pause = 500;
const sampleEvery = 250;
/** Seconds of CPU for a GiB: what uses less is of no interest. */
const leastProfiled = 0.5;
const prepareLimit = 60_000;
const openLimit = 120_000;
const transferLimit = 15 * 60_000;
const finishLimit = 6 * 60_000;

/** The ways that are compared in each round, with how many chunks at once. */
const uploads: readonly { way: Way; parallel: number }[] = [
  { way: 'raw', parallel: 4 },
  { way: 'gateway', parallel: 4 },
  { way: 'presigned', parallel: 4 },
  { way: 'raw', parallel: 1 },
  { way: 'gateway', parallel: 1 },
  { way: 'presigned', parallel: 1 },
];

const downloads: typeof uploads = [
  { way: 'raw', parallel: 1 },
  { way: 'gateway', parallel: 1 },
  { way: 'raw', parallel: 4 },
  { way: 'gateway', parallel: 4 },
];
const stalledDownloads = 100;

/** A hub, what it is compared with, and who uses them. */
interface Bench {
  load: Load;
  processes: Processes;
  /** The hub's own. */
  hub: BenchedHub;
  hasMinio: boolean;
  signal: AbortSignal;
}

/** A hub on an empty folder, files through it in all ways, and everything gone again. */
export async function measureFiles(options: FilesOptions): Promise<FilesReport> {
  await using started = new AsyncDisposableStack();
  const bench = await startBench(options, {}, started);
  const { load, processes, hasMinio, signal } = bench;
  const comparable = ({ way }: { way: Way }) => way !== 'raw' || hasMinio;
  const ways = uploads.filter(comparable);

  const pidsBefore = await processes();
  // First, while the hub is fresh: what it needs to get going is a part of what it grows by.
  const large = await measureLarge(bench, options.gib);
  await warmUp(load, ways);
  await sleep(settleTime, undefined, { signal });
  const initiateMs = await load.ask('initiate', { count: initiations }, prepareLimit);
  await load.ask('urls', undefined, 5_000);
  const measured = await measureUploads(bench, ways);
  const urlMs = await load.ask('urls', undefined, 5_000);
  const down = await measureDownloads(bench, downloads.filter(comparable));
  const pidsAfter = await processes();
  const restarted = Object.keys(pidsAfter).filter((name) => pidsBefore[name] !== pidsAfter[name]);
  return {
    store: options.store,
    gib: options.gib,
    roundMiB: roundSize / mebibyte,
    uploads: measured,
    ...down,
    initiateMs,
    urlMs,
    large: large.figures,
    growth: large.growth,
    problems: restarted.map((name) => `${name} ended and was started again`),
  };
}

/** Prints where the CPU time goes while the large file passes. The profiles stay in `profile`. */
export async function profileFiles(options: FilesOptions, profile: string): Promise<void> {
  await using started = new AsyncDisposableStack();
  await mkdir(profile, { recursive: true });
  const bench = await startBench(options, { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` }, started);
  const pids = await bench.hub.remote.ask('pids', undefined, 5_000);
  const { figures, windows } = await measureLarge(bench, options.gib);
  // They write their profiles when they end.
  await bench.hub.remote.stop();
  for (const phase of ['upload', 'complete', 'download'] as const) {
    const cpu = figures.cpuSecondsPerGiB[phase];
    const some = Object.fromEntries(Object.entries(pids).filter(([name]) => (cpu[name] ?? 0) > leastProfiled));
    await printProfiles(profile, some, windows[phase], cpu, `a GiB, ${phase}`);
  }
}

async function startBench(
  { store, gib, folder: parent, signal }: FilesOptions,
  env: Record<string, string>,
  started: AsyncDisposableStack,
): Promise<Bench> {
  await mkdir(parent, { recursive: true });
  const folder = await mkdtemp(path.join(parent, 'files-'));
  started.defer(() => rm(folder, { recursive: true, force: true }));
  // PostgreSQL runs as another user where we are root.
  await chmod(folder, 0o755);

  // For files on disk, too: to compare with.
  const minio = minioAvailable()
    ? await startMinio({ dataDir: path.join(folder, 'minio'), log: console.log, signal })
    : undefined;
  if (minio !== undefined) started.defer(() => minio.stop());
  const s3 = minio && { endpoint: minio.endpoint, accessKey: minio.accessKey, secretKey: minio.secretKey };
  const hub = await startHub(
    folder,
    { ...environment(store === 'minio' ? s3 : undefined, folder, gib), ...env },
    signal,
  );
  started.defer(() => hub.remote.stop());
  const load: Load = openRemote(path.join(import.meta.dirname, 'file-load.ts'), 'inherit', signal);
  started.defer(() => load.stop());
  await load.ask('prepare', { url: hub.url, s3, chunkSize }, prepareLimit);
  const processes: Processes = async () => ({
    ...(await hub.remote.ask('pids', undefined, 5_000)),
    ...(minio === undefined ? {} : { minio: minio.pid }),
    load: load.pid,
  });
  return { load, processes, hub, hasMinio: minio !== undefined, signal };
}

function environment(
  s3: { endpoint: string; accessKey: string; secretKey: string } | undefined,
  folder: string,
  gib: number,
): Record<string, string | undefined> {
  return {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    BUS_PREFIX: undefined,
    PUBLIC_URL: undefined,
    FILES_DIR: s3 === undefined ? path.join(folder, 'data/files') : undefined,
    S3_ENDPOINT: s3?.endpoint,
    S3_ACCESS_KEY: s3?.accessKey,
    S3_SECRET_KEY: s3?.secretKey,
    S3_BUCKET: undefined,
    S3_PUBLIC_ENDPOINT: undefined,
    S3_UPLOAD_ACCESS_KEY: undefined,
    S3_UPLOAD_SECRET_KEY: undefined,
    MAX_FILE_SIZE: String(Math.max(2, gib) * 2 ** 30),
    SEED_USERS: '1',
    BCRYPT_COST: '10',
  };
}

/** A little over each way, so that what is compiled and allocated once isn't measured. */
async function warmUp(load: Load, ways: typeof uploads): Promise<void> {
  for (const { way, parallel } of ways) {
    const number = await load.ask('open', { way, size: 4 * chunkSize }, openLimit);
    await load.ask('transfer', { number, parallel }, transferLimit);
    await load.ask('complete', { number }, finishLimit);
    await load.ask('download', { number, verify: true, parallel: 1 }, transferLimit);
    await load.ask('remove', { number }, finishLimit);
  }
}

/** The large file: up through the gateway, completed, and down again. */
async function measureLarge({ load, processes, signal }: Bench, gib: number) {
  const number = await load.ask('open', { way: 'gateway', size: gib * 2 ** 30 }, openLimit);
  await sleep(settleTime, undefined, { signal });
  const before = await memoryOf(processes);
  const watched = async <T>(work: () => Promise<T>) => {
    const memory = watchMemory(processes);
    try {
      const from = microseconds();
      const { result, cpu } = await between(processes, work);
      const window: Window = { from, to: microseconds() };
      return { result, window, cpu: mapValues(cpu, (seconds) => seconds / gib), peak: await memory.stop() };
    } finally {
      await memory.stop().catch(() => {});
    }
  };
  const upload = await watched(() => load.ask('transfer', { number, parallel: 4 }, transferLimit));
  const complete = await watched(() => load.ask('complete', { number }, finishLimit));
  const download = await watched(() => load.ask('download', { number, verify: false, parallel: 1 }, transferLimit));
  await sleep(settleTime, undefined, { signal });
  const after = await memoryOf(processes);
  await load.ask('remove', { number }, finishLimit);
  await sleep(pause, undefined, { signal });
  const growth: Growth = {
    beforeMiB: before,
    uploadingMiB: upload.peak,
    completingMiB: complete.peak,
    downloadingMiB: download.peak,
    afterMiB: after,
    grownMiB: mapValues(
      before,
      (mebibytes, name) => Math.max(upload.peak[name]!, complete.peak[name]!, download.peak[name]!) - mebibytes,
    ),
  };
  return {
    figures: {
      uploadMBPerSecond: speedOf(upload.result),
      completeMs: complete.result,
      downloadMBPerSecond: speedOf(download.result),
      cpuSecondsPerGiB: { upload: upload.cpu, complete: complete.cpu, download: download.cpu },
    },
    growth,
    windows: { upload: upload.window, complete: complete.window, download: download.window },
  };
}

/** Of the clock that profiles have. */
function microseconds(): number {
  return Number(process.hrtime.bigint() / 1_000n);
}

/** The most memory that each process has from now on until it is stopped. */
function watchMemory(processes: Processes): { stop(): Promise<Record<string, number>> } {
  const stopped = new AbortController();
  const peak: Record<string, number> = {};
  const look = async () => {
    for (const [name, mebibytes] of Object.entries(await memoryOf(processes))) {
      peak[name] = Math.max(peak[name] ?? 0, mebibytes);
    }
  };
  const running = (async () => {
    while (!stopped.signal.aborted) {
      await look();
      await sleep(sampleEvery, undefined, { signal: stopped.signal }).catch(() => {});
    }
    await look();
  })();
  // Whoever stops it hears of it.
  running.catch(() => {});
  return {
    async stop() {
      stopped.abort();
      await running;
      return peak;
    },
  };
}

/** One transfer after the other, in rounds, since the speed of a machine drifts; every other round the other way round. */
async function measureUploads({ load, processes, signal }: Bench, ways: typeof uploads): Promise<TransferReport[]> {
  return inRounds(ways, signal, async ({ way, parallel }) => {
    const number = await load.ask('open', { way, size: roundSize }, openLimit);
    await sleep(pause, undefined, { signal });
    const used = await between(processes, () => load.ask('transfer', { number, parallel }, transferLimit));
    await load.ask('remove', { number }, finishLimit);
    return used;
  });
}

async function measureDownloads(
  { load, processes, signal }: Bench,
  ways: typeof downloads,
): Promise<Pick<FilesReport, 'downloads' | 'stalled'>> {
  const numbers = new Map<Way, number>();
  for (const way of new Set(ways.map(({ way }) => way))) {
    const number = await load.ask('open', { way, size: roundSize }, openLimit);
    await load.ask('transfer', { number, parallel: 4 }, transferLimit);
    await load.ask('complete', { number }, finishLimit);
    numbers.set(way, number);
  }
  const reports = await inRounds(ways, signal, async ({ way, parallel }) => {
    await sleep(pause, undefined, { signal });
    const argument = { number: numbers.get(way)!, verify: false, parallel };
    return between(processes, () => load.ask('download', argument, transferLimit));
  });
  const stalled = await measureStalled({ load, processes, signal }, numbers.get('gateway')!);
  for (const number of numbers.values()) await load.ask('remove', { number }, finishLimit);
  return { downloads: reports, stalled };
}

/** What many downloads cost that nobody reads. */
async function measureStalled(
  { load, processes, signal }: Pick<Bench, 'load' | 'processes' | 'signal'>,
  number: number,
): Promise<FilesReport['stalled']> {
  const before = await memoryOf(processes);
  await load.ask('stall', { number, count: stalledDownloads }, openLimit);
  await sleep(settleTime, undefined, { signal });
  const meanwhile = await memoryOf(processes);
  await load.ask('unstall', undefined, prepareLimit);
  return { count: stalledDownloads, grownMiB: mapValues(meanwhile, (mebibytes, name) => mebibytes - before[name]!) };
}

async function inRounds(
  ways: typeof uploads,
  signal: AbortSignal,
  measure: (way: (typeof uploads)[number]) => Promise<{ result: Transferred; cpu: Record<string, number> }>,
): Promise<TransferReport[]> {
  const reports = ways.map((each) => ({
    ...each,
    mbPerSecond: [] as number[],
    ratios: [] as number[],
    /** Seconds, by process. */
    cpu: {} as Record<string, number>,
  }));
  const last = performance.now() + roundsLimit;
  for (let round = 0; round < mostRounds && (round < leastRounds || performance.now() < last); round++) {
    for (const report of round % 2 === 0 ? reports : reports.toReversed()) {
      signal.throwIfAborted();
      const { result, cpu } = await measure(report);
      report.mbPerSecond.push(speedOf(result));
      report.cpu = mapValues(cpu, (seconds, name) => (report.cpu[name] ?? 0) + seconds);
    }
    for (const report of reports) {
      const raw = reports.find(({ way, parallel }) => way === 'raw' && parallel === report.parallel);
      if (raw !== undefined) report.ratios.push(report.mbPerSecond[round]! / raw.mbPerSecond[round]!);
    }
  }
  return reports.map(({ cpu, ...report }) => {
    const gib = (report.mbPerSecond.length * roundSize) / 2 ** 30;
    return { ...report, cpuSecondsPerGiB: mapValues(cpu, (seconds) => seconds / gib) };
  });
}

/** MB/s. */
function speedOf({ bytes, seconds }: Transferred): number {
  return bytes / 1e6 / seconds;
}
