import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from '../../dev/ports.ts';
import { startKafka, type Kafka } from '../../dev/engines/kafka.ts';
import { countedBetween, openCounters, type CounterReader, type Counters } from './counters.ts';
import type { commands as loadCommands, RunArgument } from './load.ts';
import { between, mapValues, startHub, type BenchedHub, type Processes, type Used } from './processes.ts';
import { printProfiles } from './profile.ts';
import { ratiosOf } from './ratios.ts';
import { openRemote, type Remote } from './remote.ts';
import type { EngineReport, RunReport } from './report.ts';

const settleTime = 3_000;
const idleTime = 5_000;
/** What V8 needs to compile what is used all the time. */
const warmUpSeconds = 5;
const prepareLimit = 120_000;
/** What a run may take beyond its sending: all messages end within 30 s. */
const endLimit = 90_000;
const checkLimit = 180_000;
/** A second crowd, to see what more users at once change. */
const manyUsers = 200;
/** Of the gateway and the services, one each with replicas, there are fewer. */
const mostProcesses = 50;

export interface MessageOptions {
  /** Where the hub's folder is made; on the disk that `npm start` uses, since a /tmp in memory would make commits cheap. */
  folder: string;
  /** Whether the hub is one process, or each part has its own, whose share of the CPU is known then. */
  processes: 'one' | 'each';
  seconds: number;
  users: number;
  rate: number;
  /** Where each process keeps a CPU profile of one run. */
  profile: string | undefined;
  signal: AbortSignal;
}

/** A hub with its engines, on empty folders, and those who send. */
export interface Field {
  hub: BenchedHub;
  kafka: Kafka | undefined;
  load: Remote<typeof loadCommands>;
  counters: CounterReader;
  /** Where the processes of the hub may serve their metrics. */
  metricsPorts: readonly number[];
  /** What runs of the hub and its engines. */
  processes: Processes;
  /** Milliseconds that the first start on an empty folder took. */
  firstReadyMs: number;
}

export interface FieldOptions {
  engine: EngineReport['engine'];
  folder: string;
  processes: 'one' | 'each';
  replicas?: number;
  crowds: readonly number[];
  env?: Record<string, string | undefined>;
  /** Whether the hub is started, stopped and started again, as it is found most of the time, and how long that takes is of interest. */
  startsTwice?: boolean;
  signal: AbortSignal;
}

/** Starts a hub on empty folders. `started` takes what has to be stopped. */
export async function openField(started: AsyncDisposableStack, options: FieldOptions): Promise<Field> {
  const { engine, crowds, processes: spread, replicas, signal } = options;
  await mkdir(options.folder, { recursive: true });
  const folder = await mkdtemp(path.join(options.folder, 'run-'));
  started.defer(() => rm(folder, { recursive: true, force: true }));
  // PostgreSQL runs as another user where we are root.
  await chmod(folder, 0o755);

  const kafka =
    engine === 'kafka' ? await startKafka({ dataDir: path.join(folder, 'kafka'), log: console.log }) : undefined;
  if (kafka !== undefined) started.defer(() => kafka.stop());
  const metricsPorts = await portsInARow(spread === 'one' ? 1 : mostProcesses);
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: kafka?.brokers,
    BUS_PREFIX: undefined,
    S3_ENDPOINT: undefined,
    FILES_DIR: path.join(folder, 'data/files'),
    SEED_USERS: String(crowds.reduce((sum, size) => sum + size, 0)),
    // Logins come before the runs: the least that is allowed.
    BCRYPT_COST: '10',
    METRICS_HOST: '127.0.0.1',
    METRICS_PORT: String(metricsPorts[0]),
    ...options.env,
  };
  const how = { processes: spread, ...(replicas === undefined ? {} : { replicas }) };
  const first = await startHub(folder, env, signal, how);
  if (options.startsTwice) await first.remote.stop();
  const hub = options.startsTwice ? await startHub(folder, env, signal, how) : first;
  started.defer(() => hub.remote.stop());
  signal.throwIfAborted();
  const { databaseUrl, logFile } = hub;
  const counters = await openCounters({ databaseUrl, metricsPorts, logFile });
  started.defer(() => counters.close());

  const load = openRemote<typeof loadCommands>(path.join(import.meta.dirname, 'load.ts'), 'inherit', signal);
  started.defer(() => load.stop());
  await load.ask(
    'prepare',
    { url: hub.url, messageAddress: `127.0.0.1:${hub.grpcPorts.message}`, crowds },
    prepareLimit,
  );
  const processes = async () => ({
    ...(await hub.remote.ask('pids', undefined, 5_000)),
    ...(kafka === undefined ? {} : { kafka: kafka.pid }),
  });
  return { hub, kafka, load, counters, metricsPorts, processes, firstReadyMs: first.readyMs };
}

/** Finds ports that follow each other: from the first one on the processes of a hub serve their metrics. */
async function portsInARow(count: number): Promise<number[]> {
  for (;;) {
    const ports = await freePorts(count);
    if (ports.at(-1) === ports[0]! + count - 1) return ports;
  }
}

/** All runs against a hub on one pair of engines, and everything gone again. */
export async function measureEngine(engine: EngineReport['engine'], options: MessageOptions): Promise<EngineReport> {
  await using started = new AsyncDisposableStack();
  const { users, seconds, rate, profile, signal, folder, processes: spread } = options;
  if (profile !== undefined) await mkdir(profile, { recursive: true });
  const crowds = users === manyUsers || profile !== undefined ? [users] : [users, manyUsers];
  const env = profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${profile}` };
  const field = await openField(started, { engine, folder, processes: spread, crowds, env, startsTwice: true, signal });
  const { hub, processes } = field;

  await sleep(settleTime, undefined, { signal });
  const idle = await between(processes, () => sleep(idleTime, undefined, { signal }));

  const common = { users, seconds, rate } as const;
  const runs: RunArgument[] = [
    { ...common, mode: 'closed', kind: 'one', via: 'rest' },
    { ...common, mode: 'steady', kind: 'one', via: 'rest' },
    { ...common, mode: 'closed', kind: 'mixed', via: 'rest' },
    { ...common, mode: 'steady', kind: 'mixed', via: 'rest' },
    { ...common, mode: 'closed', kind: 'one', via: 'grpc' },
    ...crowds
      .slice(1)
      .map((size): RunArgument => ({ ...common, users: size, mode: 'closed', kind: 'one', via: 'rest' })),
  ];
  const warmUp = await measureRun(field, { ...runs[0]!, seconds: warmUpSeconds }, users, signal);
  const reports: RunReport[] = [];
  const begun = Number(process.hrtime.bigint() / 1_000n);
  for (const argument of profile === undefined ? runs : runs.slice(0, 1)) {
    reports.push(await measureRun(field, argument, users, signal));
  }
  reports[0]!.problems.unshift(...warmUp.problems.map((problem) => `while it warmed up, ${problem}`));

  if (profile !== undefined) {
    const pids = await processes();
    const window = { from: begun, to: begun + seconds * 1_000_000 };
    await hub.remote.stop();
    await printProfiles(profile, pids, window, reports[0]!.cpuSecondsPer1000, '1,000 messages');
  }
  return {
    engine,
    processes: spread,
    readyMs: { emptyFolder: field.firstReadyMs, again: hub.readyMs },
    idlePercent: mapValues(idle.cpu, (cpu) => (cpu / idle.seconds) * 100),
    idleMemoryMiB: idle.memoryMiB,
    runs: reports,
  };
}

/** One run, and what it made the hub do. */
export async function measureRun(
  { load, counters, processes }: Field,
  argument: RunArgument,
  usualUsers: number,
  signal: AbortSignal,
): Promise<RunReport> {
  signal.throwIfAborted();
  const limit = argument.seconds * 1_000 + endLimit;
  const all = async () => ({ ...(await processes()), load: load.pid });
  const before = await counters.read();
  const used = await between(all, () => load.ask('run', argument, limit));
  const counted = countedBetween(before, await counters.read());
  const checked = await load.ask('check', undefined, checkLimit);
  return runReport(argument, usualUsers, used, checked, counted);
}

function runReport(
  argument: RunArgument,
  usualUsers: number,
  {
    result,
    seconds,
    cpu,
    memoryMiB,
    restarted,
    machineCpu: machine,
  }: Used<Awaited<ReturnType<(typeof loadCommands)['run']>>>,
  checked: Awaited<ReturnType<(typeof loadCommands)['check']>>,
  counted: Counters,
): RunReport {
  const { users, mode, kind, via, rate } = argument;
  const { delivered, deliveries, deliveredSeconds, problems } = checked;
  return {
    ...argument,
    name: [
      mode === 'closed' ? 'as fast as it goes' : `${rate}/s`,
      kind === 'one' ? '1 delivery' : 'mixed',
      ...(via === 'grpc' ? ['gRPC'] : []),
      ...(users === usualUsers ? [] : [`${users} users`]),
    ].join(', '),
    refused: result.refused,
    accepted: result.accepted,
    delivered,
    deliveries,
    acceptedPerSecond: result.accepted / result.sendingSeconds,
    deliveredPerSecond: delivered / deliveredSeconds,
    deliveriesPerSecond: deliveries / deliveredSeconds,
    acceptMs: result.accept,
    acceptToDeliveredMs: checked.delivery,
    acceptToSeenMs: result.seen,
    cpuSecondsPer1000: mapValues(cpu, (each) => (each / result.accepted) * 1000),
    perMessage: ratiosOf(counted, result.accepted),
    perDelivery: ratiosOf(counted, deliveries),
    loadPercent: ((cpu.load ?? 0) / seconds) * 100,
    othersPercent: Math.max(0, ((machine - Object.values(cpu).reduce((sum, each) => sum + each, 0)) / seconds) * 100),
    memoryMiB: Object.fromEntries(Object.entries(memoryMiB).filter(([name]) => name !== 'load')),
    problems: [
      ...problems,
      ...Object.entries(result.refused).map(([why, count]) => `${count} × a send that was refused: ${why}`),
      ...restarted.map((name) => `${name} ended and was started again`),
      ...(result.accepted === 0 ? ['no message was accepted'] : []),
    ],
  };
}
