import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { kafkaAvailable, startKafka } from '../../dev/engines/kafka.ts';
import { minioAvailable, minioNeeds } from '../../dev/engines/minio.ts';
import { measureCredentials, printCredentials } from './credentials.ts';
import { measureCrowd, printCrowd } from './crowd.ts';
import { measureFiles, profileFiles } from './files.ts';
import { printFiles } from './files-report.ts';
import { measureGateways, printGateways } from './gateway.ts';
import type { commands as loadCommands, RunArgument } from './load.ts';
import { measureLogins, printLogins } from './logins.ts';
import { printProfiles } from './profile.ts';
import { between, mapValues, startHub, type Used } from './processes.ts';
import { openRemote } from './remote.ts';
import { measureTools, printTools } from './tools.ts';
import { printEngine, type EngineReport, type Report, type RunReport } from './report.ts';

const usage = `npm run bench -- [options]: how fast a hub on this machine is, and what a message or a file costs

  --engine embedded|kafka|both   which engines; both by default, Kafka where Java and Maven are
  --seconds <1-600>              how long each run sends; 15 by default
  --users <4-1000>               how many users send at once; 50 by default
  --rate <1-10000>               messages a second of the runs at a steady rate; 100 by default
  --json <file>                  where the figures go; .chat4all/bench/<time>.json by default
  --profile <folder>             one run only, in which each process keeps a CPU profile there

npm run bench -- --files [options]: the same of files

  --engine embedded|kafka|both   where the hub keeps them: on disk or in MinIO; both by default, MinIO where Go is
  --gib <1-8>                    size of the large file; 2 by default
  --json <file>                  as above
  --profile <folder>             the large file only, while each process keeps a CPU profile there

npm run bench -- --gateway [options]: the hop through the gateway alone, against Go's grpc-gateway. Needs Go

  --seconds <1-600>              how long each round sends; 3 by default, of which each request has 5
  --json <file>                  as above
  --profile <folder>             where our gateway keeps a CPU profile

npm run bench -- --crowd [options]: what an honest client waits for beside a hundred that mean harm. On Linux

  --seconds <1-600>              how long each measurement takes; 30 by default
  --json <file>                  as above

npm run bench -- --logins [options]: how many log in, fifty at once, against what the machine can hash, and what a read waits for beside

  --seconds <1-600>              how long each measurement takes; 15 by default
  --json <file>                  as above

npm run bench -- --credentials [options]: what a small read costs with an API key, against a token

  --seconds <1-600>              how long each round sends; 5 by default, of which each has 5
  --json <file>                  as above

npm run bench -- --tools [options]: reads of a million rows of usage, and what an invocation adds to its tool

  --seconds <1-600>              how long invocations go on; 15 by default
  --json <file>                  as above

Environment variables reach the hub as they do with npm start: LOG_FORMAT=json npm run bench. Not so those that name a
database, Kafka or S3: the engines are the benchmark's own. Compare figures only within a run, or on a machine with nothing
else to do.

Exit code 1 if a message was lost, doubled, failed or refused, a transfer failed, or nothing was measured. Figures that
aren't reached are only named.`;

const root = path.resolve(import.meta.dirname, '../..');
const bench = path.join(root, '.chat4all/bench');
const settleTime = 3_000;
const idleTime = 5_000;
/** What V8 needs to compile what is used all the time. */
const warmUpSeconds = 5;
const prepareLimit = 120_000;
/** What a run may take beyond its sending: all messages end within 30 s. */
const endLimit = 90_000;
const checkLimit = 180_000;

interface Options {
  engines: EngineReport['engine'][];
  seconds: number;
  users: number;
  rate: number;
  json: string;
  profile: string | undefined;
  /** Messages and files through a hub, the gateway alone, an honest client beside a hostile crowd, logins, credentials, or tools. */
  mode: 'messages' | 'files' | 'gateway' | 'crowd' | 'logins' | 'credentials' | 'tools';
  gib: number;
}

const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(new Error(signal)));

try {
  process.exitCode = await main(readOptions());
} catch (error) {
  console.error(stopped.signal.aborted ? `Stopped: ${(stopped.signal.reason as Error).message}` : error);
  process.exitCode = 1;
}

function readOptions(): Options {
  const names = ['engine', 'seconds', 'users', 'rate', 'json', 'profile', 'gib'] as const;
  try {
    const options = Object.fromEntries(names.map((name) => [name, { type: 'string' as const }]));
    const flags = {
      files: { type: 'boolean' },
      gateway: { type: 'boolean' },
      crowd: { type: 'boolean' },
      logins: { type: 'boolean' },
      credentials: { type: 'boolean' },
      tools: { type: 'boolean' },
      help: { type: 'boolean' },
    } as const;
    const values = parseArgs({ options: { ...options, ...flags } }).values as Partial<
      Record<(typeof names)[number], string> & Record<keyof typeof flags, boolean>
    >;
    if (values.help === true) {
      console.log(usage);
      process.exit(0);
    }
    const own = ['files', 'gateway', 'crowd', 'logins', 'credentials', 'tools'] as const;
    const [mode = 'messages', another] = own.filter((name) => values[name] === true);
    if (another !== undefined) throw new Error(`--${mode} and --${another} are benchmarks of their own`);
    const which = mode === 'messages' ? 'without --files' : `with --${mode}`;
    const meant: readonly (typeof names)[number][] = {
      files: ['engine', 'gib', 'json', 'profile'] as const,
      gateway: ['seconds', 'json', 'profile'] as const,
      crowd: ['seconds', 'json'] as const,
      logins: ['seconds', 'json'] as const,
      credentials: ['seconds', 'json'] as const,
      tools: ['seconds', 'json'] as const,
      messages: names.filter((name) => name !== 'gib'),
    }[mode];
    const others = names.filter((name) => values[name] !== undefined && !meant.includes(name));
    if (others.length > 0) throw new Error(`--${others[0]} has no meaning ${which}`);
    const number = (name: 'seconds' | 'users' | 'rate' | 'gib', fallback: number, least: number, most: number) => {
      const value = values[name] ?? String(fallback);
      if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
      throw new Error(`--${name} must be a whole number from ${least} to ${most}`);
    };
    const engine = values.engine ?? 'both';
    if (!['embedded', 'kafka', 'both'].includes(engine)) throw new Error('--engine must be embedded, kafka or both');
    return {
      engines: engine === 'both' ? ['embedded', 'kafka'] : [engine as EngineReport['engine']],
      seconds: number(
        'seconds',
        { messages: 15, files: 15, gateway: 3, crowd: 30, logins: 15, credentials: 5, tools: 15 }[mode],
        1,
        600,
      ),
      users: number('users', 50, 4, 1_000),
      rate: number('rate', 100, 1, 10_000),
      json: path.resolve(values.json ?? path.join(bench, `${new Date().toISOString().replaceAll(':', '-')}.json`)),
      profile: values.profile === undefined ? undefined : path.resolve(values.profile),
      mode,
      gib: number('gib', 2, 1, 8),
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
}

async function main(options: Options): Promise<number> {
  const { seconds, users, rate, gib } = options;
  if (process.platform === 'win32') throw new Error('The benchmark reads the use of CPU as Linux and macOS tell it');
  const [loadAverage] = os.loadavg() as [number, number, number];
  const report: Report = {
    date: new Date().toISOString(),
    machine: {
      cpus: os.availableParallelism(),
      model: os.cpus()[0]?.model ?? '',
      memoryGiB: Math.round(os.totalmem() / 2 ** 30),
      system: `${os.type()} ${os.release()}`,
      node: process.version,
      loadAverageBefore: loadAverage,
    },
    options: options.mode === 'files' ? { gib } : { seconds, users, rate },
    engines: [],
    files: [],
  };
  const { cpus, model } = report.machine;
  const about = {
    messages: `${users} users, ${seconds} s a run`,
    files: `a file of ${gib} GiB`,
    gateway: `${seconds} s a round`,
    crowd: `${seconds} s a measurement`,
    logins: `${seconds} s a measurement`,
    credentials: `${seconds} s a round`,
    tools: `invocations for ${seconds} s`,
  }[options.mode];
  console.log(`${cpus} cores (${model}), Node ${process.version}, ${about}`);
  if (loadAverage > cpus / 4) {
    console.log(`Something else is at work on this machine (load average ${loadAverage}): the figures will be worse.`);
  }

  if (options.mode === 'gateway') return measureHop(options, report);
  if (options.mode === 'crowd') return measureHarm(options, report);
  if (options.mode === 'logins') return measureDoor(options, report);
  if (options.mode === 'credentials') return measureKeys(options, report);
  if (options.mode === 'tools') return measureInvocations(options, report);
  if (options.mode === 'files') await measureStores(options, report);
  else await measureEngines(options, report);
  if (options.mode === 'files' && options.profile !== undefined) return 0;
  if (report.engines.length + report.files.length === 0) return 1;

  await writeReport(options.json, report);

  const problems = [
    ...report.engines.flatMap(({ engine, runs }) =>
      runs.flatMap((run) => run.problems.map((problem) => `${engine}, ${run.name}: ${problem}`)),
    ),
    ...report.files.flatMap(({ store, problems }) => problems.map((problem) => `${store}: ${problem}`)),
  ];
  if (problems.length === 0) return 0;
  const what =
    options.mode === 'files' ? 'something happened that may not happen' : 'not every message arrived as it should';
  console.error(`\nFAILED: ${what}\n${problems.map((each) => `  ${each}\n`).join('')}`);
  return 1;
}

/** The gateway alone. */
async function measureHop({ seconds, profile, json }: Options, report: Report): Promise<number> {
  const { signal } = stopped;
  const gateways = await inFolder((folder) => measureGateways({ folder, seconds, rounds: 5, profile, signal }));
  printGateways(gateways);
  await writeReport(json, { ...report, gateways });
  return 0;
}

/** An honest client beside a hostile crowd. */
async function measureHarm({ seconds, json }: Options, report: Report): Promise<number> {
  if (process.platform !== 'linux')
    throw new Error('The clients of --crowd need an address each: loopback has them on Linux alone');
  const crowd = await inFolder((folder) => measureCrowd(folder, seconds, stopped.signal));
  printCrowd(crowd);
  await writeReport(json, { ...report, crowd });
  return crowd.problems.length === 0 ? 0 : 1;
}

/** Fifty who log in, again and again. */
async function measureDoor({ seconds, json }: Options, report: Report): Promise<number> {
  const logins = await inFolder((folder) => measureLogins(folder, seconds, stopped.signal));
  printLogins(logins);
  await writeReport(json, { ...report, logins });
  return logins.problems.length === 0 ? 0 : 1;
}

/** Calls with an API key, and with a token. */
async function measureKeys({ seconds, json }: Options, report: Report): Promise<number> {
  const credentials = await inFolder((folder) => measureCredentials(folder, seconds, stopped.signal));
  printCredentials(credentials);
  await writeReport(json, { ...report, credentials });
  return credentials.problems.length === 0 ? 0 : 1;
}

/** Does something with a folder for a hub, which is gone afterwards. */
async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  await mkdir(bench, { recursive: true });
  const folder = await mkdtemp(path.join(bench, 'run-'));
  try {
    // PostgreSQL runs as another user where we are root.
    await chmod(folder, 0o755);
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function writeReport(json: string, report: object): Promise<void> {
  await mkdir(path.dirname(json), { recursive: true });
  await writeFile(json, `${JSON.stringify(report, undefined, 2)}\n`);
  console.log(`\nWritten to ${path.relative(process.cwd(), json)}`);
}

/** Usage, and invocations. */
async function measureInvocations({ seconds, json }: Options, report: Report): Promise<number> {
  const tools = await inFolder((folder) => measureTools(folder, seconds, stopped.signal));
  printTools(tools);
  await writeReport(json, { ...report, tools });
  return tools.problems.length === 0 ? 0 : 1;
}

async function measureEngines(options: Options, report: Report): Promise<void> {
  for (const engine of options.engines) {
    if (engine === 'kafka' && !kafkaAvailable()) {
      report.leftOut = 'Kafka is left out: it needs Java 17 or later (java) and Maven (mvn) on the PATH.';
      console.log(`\n${report.leftOut}`);
      continue;
    }
    const measured = await measureEngine(engine, options);
    report.engines.push(measured);
    printEngine(measured, options.users);
  }
}

async function measureStores({ engines, gib, profile }: Options, report: Report): Promise<void> {
  const isThere = minioAvailable();
  if (!isThere) {
    report.leftOut = `MinIO is left out, and what the figures are compared with: it needs ${minioNeeds}.`;
    console.log(`\n${report.leftOut}`);
  }
  for (const engine of engines) {
    if (engine === 'kafka' && !isThere) continue;
    const store = engine === 'kafka' ? 'minio' : 'disk';
    const options = { store, gib, folder: bench, signal: stopped.signal } as const;
    if (profile !== undefined) {
      await profileFiles(options, path.join(profile, store));
      continue;
    }
    const measured = await measureFiles(options);
    report.files.push(measured);
    printFiles(measured);
  }
}

/** A hub on empty folders, all runs against it, and everything gone again. */
async function measureEngine(engine: EngineReport['engine'], options: Options): Promise<EngineReport> {
  await using started = new AsyncDisposableStack();
  // On the disk that `npm start` uses: a /tmp in memory would make commits cheap.
  await mkdir(bench, { recursive: true });
  const folder = await mkdtemp(path.join(bench, 'run-'));
  started.defer(() => rm(folder, { recursive: true, force: true }));
  // PostgreSQL runs as another user where we are root.
  await chmod(folder, 0o755);

  const kafka =
    engine === 'kafka' ? await startKafka({ dataDir: path.join(folder, 'kafka'), log: console.log }) : undefined;
  if (kafka !== undefined) started.defer(() => kafka.stop());
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: kafka?.brokers,
    BUS_PREFIX: undefined,
    S3_ENDPOINT: undefined,
    FILES_DIR: path.join(folder, 'data/files'),
    SEED_USERS: String(options.users),
    // Logins come before the runs: the least that is allowed.
    BCRYPT_COST: '10',
    ...(options.profile === undefined ? {} : { NODE_OPTIONS: `--cpu-prof --cpu-prof-dir=${options.profile}` }),
  };
  if (options.profile !== undefined) await mkdir(options.profile, { recursive: true });

  const emptyFolder = await startHub(folder, env, stopped.signal);
  await emptyFolder.remote.stop();
  const hub = await startHub(folder, env, stopped.signal);
  started.defer(() => hub.remote.stop());
  stopped.signal.throwIfAborted();

  const load = openRemote<typeof loadCommands>(path.join(import.meta.dirname, 'load.ts'), 'inherit', stopped.signal);
  started.defer(() => load.stop());
  const { users, seconds, rate, profile } = options;
  const messageAddress = `127.0.0.1:${hub.grpcPorts.message}`;
  await load.ask('prepare', { url: hub.url, messageAddress, users }, prepareLimit);

  const processes = async () => ({
    ...(await hub.remote.ask('pids', undefined, 5_000)),
    ...(kafka === undefined ? {} : { kafka: kafka.pid }),
  });
  await sleep(settleTime, undefined, { signal: stopped.signal });
  const idle = await between(processes, () => sleep(idleTime, undefined, { signal: stopped.signal }));

  const measure = async (argument: RunArgument): Promise<RunReport> => {
    stopped.signal.throwIfAborted();
    const limit = argument.seconds * 1_000 + endLimit;
    const all = async () => ({ ...(await processes()), load: load.pid });
    const used = await between(all, () => load.ask('run', argument, limit));
    const checked = await load.ask('check', undefined, checkLimit);
    return runReport(argument, used, checked);
  };
  const runs: RunArgument[] = [
    { mode: 'closed', kind: 'one', via: 'rest', seconds, rate },
    { mode: 'steady', kind: 'one', via: 'rest', seconds, rate },
    { mode: 'closed', kind: 'mixed', via: 'rest', seconds, rate },
    { mode: 'steady', kind: 'mixed', via: 'rest', seconds, rate },
    { mode: 'closed', kind: 'one', via: 'grpc', seconds, rate },
  ];
  const warmUp = await measure({ ...runs[0]!, seconds: warmUpSeconds });
  const reports: RunReport[] = [];
  const begun = Number(process.hrtime.bigint() / 1_000n);
  for (const argument of profile === undefined ? runs : runs.slice(0, 1)) reports.push(await measure(argument));

  reports[0]!.problems.unshift(...warmUp.problems.map((problem) => `while it warmed up, ${problem}`));

  if (profile !== undefined) {
    const pids = await processes();
    const window = { from: begun, to: begun + seconds * 1_000_000 };
    await hub.remote.stop();
    await printProfiles(profile, pids, window, reports[0]!.cpuSecondsPer1000, '1,000 messages');
  }
  return {
    engine,
    readyMs: { emptyFolder: emptyFolder.readyMs, again: hub.readyMs },
    idlePercent: mapValues(idle.cpu, (cpu) => (cpu / idle.seconds) * 100),
    idleMemoryMiB: idle.memoryMiB,
    runs: reports,
  };
}

function runReport(
  argument: RunArgument,
  {
    result,
    seconds,
    cpu,
    memoryMiB,
    restarted,
    machineCpu: machine,
  }: Used<Awaited<ReturnType<(typeof loadCommands)['run']>>>,
  checked: Awaited<ReturnType<(typeof loadCommands)['check']>>,
): RunReport {
  const { mode, kind, via, rate } = argument;
  const { delivered, deliveries, deliveredSeconds, problems } = checked;
  return {
    ...argument,
    name: [
      mode === 'closed' ? 'as fast as it goes' : `${rate}/s`,
      kind === 'one' ? '1 delivery' : 'mixed',
      ...(via === 'grpc' ? ['gRPC'] : []),
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
