import type { FilesReport } from './files-report.ts';
import type { RunArgument, RunResult, CheckResult } from './load.ts';
import type { Ratios } from './ratios.ts';

/** What the benchmark found; the times in it are in the units that their names say. */
export interface Report {
  date: string;
  machine: {
    cpus: number;
    model: string;
    memoryGiB: number;
    system: string;
    node: string;
    loadAverageBefore: number;
    /** How much CPU time a fixed piece of work took on each core, at the beginning and in the end, in milliseconds. */
    loopMs?: { before: number; after: number };
  };
  options: { seconds: number; users: number; rate: number } | { gib: number };
  /** Of messages. */
  engines: EngineReport[];
  files: FilesReport[];
  /** Which engines could not be measured, and why. */
  leftOut?: string;
}

/** One hub on one pair of engines. */
export interface EngineReport {
  engine: 'embedded' | 'kafka';
  /** Whether the hub was one process, or each part had its own. */
  processes: 'one' | 'each';
  /** Milliseconds from the start of the process until everything was ready. */
  readyMs: { emptyFolder: number; again: number };
  /** Percent of one core, by process, while nobody used the hub. */
  idlePercent: Record<string, number>;
  idleMemoryMiB: Record<string, number>;
  runs: RunReport[];
}

export interface RunReport extends RunArgument {
  name: string;
  refused: RunResult['refused'];
  accepted: number;
  delivered: number;
  deliveries: number;
  acceptedPerSecond: number;
  deliveredPerSecond: number;
  deliveriesPerSecond: number;
  /** From the send, or from when it was due, to the answer. */
  acceptMs: RunResult['accept'];
  /** `updated_at` − `created_at`. */
  acceptToDeliveredMs: CheckResult['delivery'];
  /** From the answer until a member who asks ten times a second saw it. */
  acceptToSeenMs: RunResult['seen'];
  /** By process; from the first send until all had been seen to end. `load` is the benchmark's own. */
  cpuSecondsPer1000: Record<string, number>;
  /** What the hub did for each message, whichever machine it runs on. */
  perMessage: Ratios;
  perDelivery: Ratios;
  /** How much of one core the load took: near 100 the benchmark measures itself. */
  loadPercent: number;
  /** How much of one core all other processes of the machine took. */
  othersPercent: number;
  /** By process, at the end. */
  memoryMiB: Record<string, number>;
  problems: string[];
}

/** The figures to reach. */
export const goals = { readyMs: 8_000, acceptP95Ms: 100, deliveredP99Ms: 5_000 };

export function printEngine(report: EngineReport, users: number): void {
  const { engine, processes, readyMs, idlePercent, idleMemoryMiB, runs } = report;
  const spread = processes === 'one' ? 'gateway and services in one process' : 'each part in a process of its own';
  console.log(`\n${engine === 'kafka' ? 'Kafka and embedded PostgreSQL' : 'Embedded engines'}, ${spread}\n`);
  print([
    [
      '',
      'accepted/s',
      'delivered/s',
      'deliveries/s',
      'accept p50',
      'p95',
      'p99',
      'max ms',
      'to delivered p50',
      'p99 ms',
    ],
    ...runs.map((run) => [
      run.name,
      whole(run.acceptedPerSecond),
      whole(run.deliveredPerSecond),
      whole(run.deliveriesPerSecond),
      ...[run.acceptMs.p50, run.acceptMs.p95, run.acceptMs.p99, run.acceptMs.max].map(whole),
      whole(run.acceptToDeliveredMs.p50),
      whole(run.acceptToDeliveredMs.p99),
    ]),
  ]);
  const seen = runs.map(({ name, acceptToSeenMs: { p50, p99 } }) => `${name} ${whole(p50)}, ${whole(p99)}`);
  console.log(`\nAnswer to seen as delivered by a reader, p50 and p99 in ms: ${seen.join(' · ')}`);

  const names = Object.keys(runs[0]?.cpuSecondsPer1000 ?? {});
  console.log('\nCPU seconds per 1,000 messages');
  print([
    ['', ...names.filter((name) => name !== 'load'), 'hub in all', '(load', '% of a core', 'other programs)'],
    ...runs.map((run) => {
      const { load = 0, ...hub } = run.cpuSecondsPer1000;
      return [
        run.name,
        ...Object.values(hub).map(hundredths),
        hundredths(sum(hub)),
        hundredths(load),
        whole(run.loadPercent),
        whole(run.othersPercent),
      ];
    }),
  ]);

  printRatios(runs);

  console.log('\nIdle, and memory in MiB (what PostgreSQL shares between its processes counts once)');
  const last = runs.at(-1);
  print([
    ['', ...Object.keys(idlePercent), 'in all'],
    ['% of one core when idle', ...Object.values(idlePercent).map(tenths), tenths(sum(idlePercent))],
    ['memory when idle', ...Object.values(idleMemoryMiB).map(whole), whole(sum(idleMemoryMiB))],
    ...(last === undefined
      ? []
      : [['memory in the end', ...Object.values(last.memoryMiB).map(whole), whole(sum(last.memoryMiB))]]),
  ]);

  const rest = runs.find((run) => run.via === 'rest' && run.mode === 'closed' && run.kind === 'one');
  const grpc = runs.find((run) => run.via === 'grpc');
  if (rest !== undefined && grpc !== undefined) {
    console.log(
      `\nThrough the gateway ${hundredths(rest.acceptedPerSecond / grpc.acceptedPerSecond)} times the messages a second of gRPC.`,
    );
  }

  console.log(`\nFigures to reach with ${users} users at once`);
  const judge = (what: string, value: number, goal: number) =>
    console.log(`  ${value <= goal ? 'reached    ' : 'NOT REACHED'} ${what} ${whole(value)} ms (at most ${goal} ms)`);
  judge('ready, first start', readyMs.emptyFolder, goals.readyMs);
  judge('ready, later start', readyMs.again, goals.readyMs);
  for (const run of runs) {
    if (run.via !== 'rest') continue;
    judge(`accept p95, ${run.name}:`, run.acceptMs.p95, goals.acceptP95Ms);
    judge(`accepted to delivered p99, ${run.name}:`, run.acceptToDeliveredMs.p99, goals.deliveredP99Ms);
    judge(`answered to seen as delivered p99, ${run.name}:`, run.acceptToSeenMs.p99, goals.deliveredP99Ms);
  }
}

/** What the hub did for each message, in columns of runs, and where it did it in the first of them. */
function printRatios(runs: readonly RunReport[]): void {
  const table = (of: 'perMessage' | 'perDelivery', shown: readonly RunReport[]) => {
    const columns = ratioColumns.filter(([, value]) => shown.some((run) => value(run[of]) !== undefined));
    const cell = (value: number | undefined) => (value === undefined ? '' : hundredths(value));
    print([
      ['', ...columns.map(([name]) => name)],
      ...shown.map((run) => [run.name, ...columns.map(([, value]) => cell(value(run[of])))]),
    ]);
  };
  console.log('\nWhat the hub did for each message, whatever the machine');
  table('perMessage', runs);
  const many = runs.filter(({ accepted, deliveries }) => deliveries > accepted);
  if (many.length > 0) {
    console.log('\nThe same for each delivery');
    table('perDelivery', many);
  }

  const [first] = runs;
  if (first === undefined) return;
  const { rows, ...ratios } = first.perMessage;
  console.log(`\nRows by schema for each message, ${first.name}`);
  print([
    ['', 'inserted', 'updated', 'HOT', 'deleted', 'read'],
    ...Object.entries(rows)
      .filter(([, each]) => each.inserted + each.updated + each.deleted + each.read >= 0.01)
      .map(([schema, { inserted, updated, hotUpdated, deleted, read }]) => [
        schema,
        hundredths(inserted),
        hundredths(updated),
        updated === 0 ? '' : `${whole((hotUpdated / updated) * 100)} %`,
        hundredths(deleted),
        hundredths(read),
      ]),
  ]);
  const listed = (title: string, values: Record<string, number>, shown: (value: number) => string) => {
    const parts = Object.entries(values).filter(([, value]) => value >= 0.005);
    if (parts.length > 0) {
      console.log(`\n${title}: ${parts.map(([name, value]) => `${name} ${shown(value)}`).join(' · ')}`);
    }
  };
  listed(`RPCs for each message, ${first.name}`, ratios.rpcsByName, hundredths);
  listed(`Kafka requests for each message, ${first.name}`, ratios.kafkaRequestsByName, hundredths);
  for (const run of runs) {
    listed(`Events a round, ${run.name}`, run.perMessage.eventsARound, tenths);
    listed(`Events a publication, ${run.name}`, run.perMessage.eventsAPublication, tenths);
  }
}

const ratioColumns: readonly [name: string, value: (ratios: Ratios) => number | undefined][] = [
  ['commits', ({ commits }) => commits],
  ['WAL KiB', ({ walBytes }) => walBytes / 1024],
  ['fsyncs', ({ walSyncs }) => walSyncs],
  ['inserted', ({ rowsInserted }) => rowsInserted],
  ['updated', ({ rowsUpdated }) => rowsUpdated],
  ['HOT', ({ hotShare }) => hotShare],
  ['deleted', ({ rowsDeleted }) => rowsDeleted],
  ['read rows', ({ rowsRead }) => rowsRead],
  ['SQL', ({ statements }) => statements],
  ['HTTP', ({ httpRequests }) => httpRequests],
  ['RPCs', ({ rpcs }) => rpcs],
  ['Kafka requests', ({ kafkaRequests }) => kafkaRequests],
  ['publications', ({ publications }) => publications],
  ['events', ({ eventsPublished }) => eventsPublished],
  ['log lines', ({ logLines }) => logLines],
  ['log KiB', ({ logBytes }) => logBytes / 1024],
];

/** Columns as wide as they need to be; the first one to the left, numbers to the right. */
export function print(rows: readonly (readonly string[])[]): void {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  for (const row of rows) {
    const cells = row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)));
    console.log(`  ${cells.join('  ')}`);
  }
}

export function sum(values: Record<string, number>): number {
  return Object.values(values).reduce((total, value) => total + value, 0);
}

export const whole = (value: number) => value.toFixed(0);
const tenths = (value: number) => value.toFixed(1);
export const hundredths = (value: number) => value.toFixed(2);
