import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { kafkaAvailable, kafkaNeeds } from '../../dev/engines/kafka.ts';
import { minioAvailable, minioNeeds } from '../../dev/engines/minio.ts';
import { printComparison } from './baseline.ts';
import { measureAssistant, printAssistant } from './assistant.ts';
import { measureCredentials, printCredentials } from './credentials.ts';
import { measureCrowd, printCrowd } from './crowd.ts';
import { measureEvents, printEvents } from './events.ts';
import { measureFiles, profileFiles } from './files.ts';
import { printFiles } from './files-report.ts';
import { measureGateways, printGateways } from './gateway.ts';
import { measureLogins, printLogins } from './logins.ts';
import { measureEngine } from './messages.ts';
import { timeMachine } from './speed.ts';
import { measureOverload, printOverload, type OverloadReport } from './overload.ts';
import { measureReplicas, printReplicas } from './replicas.ts';
import { measureStorage, printStorage } from './storage.ts';
import { measureTools, printTools } from './tools.ts';
import { printEngine, whole, type EngineReport, type Report } from './report.ts';

const usage = `npm run bench -- [options]: how fast a hub on this machine is, and what a message or a file costs

  --engine embedded|kafka|both   which engines; both by default, Kafka where Java and Maven are
  --seconds <1-600>              how long each run sends; 15 by default
  --users <4-1000>               how many users send at once; 50 by default
  --rate <1-10000>               messages a second of the runs at a steady rate; 100 by default
  --processes one|each           the hub in one process, or each part in its own, whose share of the CPU is known then;
                                 one with embedded engines, as npm start has it, and each with Kafka by default
  --json <file>                  where the figures go; .chat4all/bench/<time>.json by default
  --baseline <file>              compares with the figures of an earlier run, as they would be on the machine as it is now
  --profile <folder>             one run only, in which each process keeps a CPU profile there

npm run bench -- --files [options]: the same of files

  --engine embedded|kafka|both   where the hub keeps them: on disk or in MinIO; both by default, MinIO where Go is
  --gib <1-8>                    size of the large file; 2 by default
  --json <file>                  as above
  --profile <folder>             the large file only, while each process keeps a CPU profile there

npm run bench -- --overload [options]: what becomes of twice and five times as many messages as the hub can take

  --engine embedded|kafka|both   which engines; embedded by default
  --seconds <1-600>              how long each run sends; 10 by default
  --users <4-1000>               how many users send at once, beside 200; 50 by default
  --processes one|each           as above
  --json <file>                  as above

npm run bench -- --replicas [options]: what more connectors and routers deliver behind a network that takes 50 ms a message, and how
long work takes to move to one more, or away from one that is killed. Over Kafka, on Linux

  --seconds <1-600>              how long each run is counted; 15 by default
  --json <file>                  as above

npm run bench -- --gateway [options]: the hop through the gateway alone, against Go's grpc-gateway. Needs Go

  --seconds <1-600>              how long each round sends; 3 by default, of which each request has 5
  --json <file>                  as above
  --profile <folder>             where our gateway keeps a CPU profile

npm run bench -- --crowd [options]: what an honest client waits for beside a hundred that mean harm. On Linux

  --seconds <1-600>              how long each measurement takes; 30 by default
  --json <file>                  as above

npm run bench -- --logins [options]: how many log in, fifty at once, against what the machine can hash, and what a read waits for beside

  --seconds <1-600>              how long each measurement takes; 15 by default
  --processes one|each           as above
  --json <file>                  as above

npm run bench -- --credentials [options]: what a small read costs with an API key, against a token

  --seconds <1-600>              how long each round sends; 5 by default, of which each has 5
  --json <file>                  as above

npm run bench -- --tools [options]: reads of a million rows of usage, and what an invocation adds to its tool

  --seconds <1-600>              how long invocations go on; 15 by default
  --processes one|each           as above
  --json <file>                  as above

npm run bench -- --assistant [options]: what an answer takes beyond its model, what open streams cost, and long reads

  --json <file>                  as above

npm run bench -- --events [options]: how soon clients are told what happens, and what that and many open streams cost

  --json <file>                  as above
  --profile <folder>             where each process keeps a CPU profile

npm run bench -- --storage [options]: what the tables of messages cost when there is a lot in them, and the audit of all of it

  --messages <n>                 how many there are, half of them in one conversation; 2,000,000 by default, which takes some minutes
  --json <file>                  as above

Environment variables reach the hub as they do with npm start: LOG_LEVEL=warn npm run bench. Not so those that name a
database, Kafka or S3: the engines are the benchmark's own. The hub writes its log to a file, as JSON. Compare times only within
a run, with --baseline, or on a machine with nothing else to do; what a message makes the hub do is the same everywhere.

Exit code 1 if a message was lost, doubled, failed or refused, a transfer failed, or nothing was measured. Figures that
aren't reached are only named.`;

const root = path.resolve(import.meta.dirname, '../..');
const bench = path.join(root, '.chat4all/bench');

/** How a hub is run with its engines: on a laptop, and beyond. */
const usualProcesses = { embedded: 'one', kafka: 'each' } as const;

interface Options {
  engines: EngineReport['engine'][];
  seconds: number;
  users: number;
  rate: number;
  json: string;
  /** What an earlier run found, and where that was read. */
  baseline: { file: string; report: Report } | undefined;
  /** By default as it is run with the engine. */
  processes: 'one' | 'each' | undefined;
  profile: string | undefined;
  /** Messages through a hub, too many of them, more processes, files, the gateway alone, an honest client beside a hostile crowd, logins, credentials, tools, the assistant, events, or tables. */
  mode:
    | 'messages'
    | 'overload'
    | 'replicas'
    | 'files'
    | 'gateway'
    | 'crowd'
    | 'logins'
    | 'credentials'
    | 'tools'
    | 'assistant'
    | 'events'
    | 'storage';
  gib: number;
  messages: number;
}

const stopped = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopped.abort(new Error(signal)));

try {
  process.exitCode = await main(await readOptions());
} catch (error) {
  console.error(stopped.signal.aborted ? `Stopped: ${(stopped.signal.reason as Error).message}` : error);
  process.exitCode = 1;
}

async function readOptions(): Promise<Options> {
  const names = [
    'engine',
    'seconds',
    'users',
    'rate',
    'processes',
    'json',
    'baseline',
    'profile',
    'gib',
    'messages',
  ] as const;
  try {
    const options = Object.fromEntries(names.map((name) => [name, { type: 'string' as const }]));
    const flags = {
      overload: { type: 'boolean' },
      replicas: { type: 'boolean' },
      files: { type: 'boolean' },
      gateway: { type: 'boolean' },
      crowd: { type: 'boolean' },
      logins: { type: 'boolean' },
      credentials: { type: 'boolean' },
      tools: { type: 'boolean' },
      assistant: { type: 'boolean' },
      events: { type: 'boolean' },
      storage: { type: 'boolean' },
      help: { type: 'boolean' },
    } as const;
    const values = parseArgs({ options: { ...options, ...flags } }).values as Partial<
      Record<(typeof names)[number], string> & Record<keyof typeof flags, boolean>
    >;
    if (values.help === true) {
      console.log(usage);
      process.exit(0);
    }
    const own = [
      'overload',
      'replicas',
      'files',
      'gateway',
      'crowd',
      'logins',
      'credentials',
      'tools',
      'assistant',
      'events',
      'storage',
    ] as const;
    const [mode = 'messages', another] = own.filter((name) => values[name] === true);
    if (another !== undefined) throw new Error(`--${mode} and --${another} are benchmarks of their own`);
    const which = mode === 'messages' ? 'without --files' : `with --${mode}`;
    const meant: readonly (typeof names)[number][] = {
      replicas: ['seconds', 'json'] as const,
      overload: ['engine', 'seconds', 'users', 'processes', 'json'] as const,
      files: ['engine', 'gib', 'json', 'profile'] as const,
      gateway: ['seconds', 'json', 'profile'] as const,
      crowd: ['seconds', 'json'] as const,
      logins: ['seconds', 'processes', 'json'] as const,
      credentials: ['seconds', 'json'] as const,
      tools: ['seconds', 'processes', 'json'] as const,
      assistant: ['json'] as const,
      events: ['json', 'profile'] as const,
      storage: ['messages', 'json'] as const,
      messages: names.filter((name) => name !== 'gib' && name !== 'messages'),
    }[mode];
    const others = names.filter((name) => values[name] !== undefined && !meant.includes(name));
    if (others.length > 0) throw new Error(`--${others[0]} has no meaning ${which}`);
    const number = (
      name: 'seconds' | 'users' | 'rate' | 'gib' | 'messages',
      fallback: number,
      least: number,
      most: number,
    ) => {
      const value = values[name] ?? String(fallback);
      if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
      throw new Error(`--${name} must be a whole number from ${least} to ${most}`);
    };
    const engine = values.engine ?? (mode === 'overload' ? 'embedded' : 'both');
    if (!['embedded', 'kafka', 'both'].includes(engine)) throw new Error('--engine must be embedded, kafka or both');
    const { processes } = values;
    if (processes !== undefined && processes !== 'one' && processes !== 'each') {
      throw new Error('--processes must be one or each');
    }
    return {
      engines: engine === 'both' ? ['embedded', 'kafka'] : [engine as EngineReport['engine']],
      seconds: number(
        'seconds',
        {
          messages: 15,
          overload: 10,
          replicas: 15,
          files: 15,
          gateway: 3,
          crowd: 30,
          logins: 15,
          credentials: 5,
          tools: 15,
          assistant: 15,
          events: 15,
          storage: 15,
        }[mode],
        1,
        600,
      ),
      users: number('users', 50, 4, 1_000),
      rate: number('rate', 100, 1, 10_000),
      json: path.resolve(values.json ?? path.join(bench, `${new Date().toISOString().replaceAll(':', '-')}.json`)),
      baseline: values.baseline === undefined ? undefined : await readBaseline(values.baseline),
      processes,
      profile: values.profile === undefined ? undefined : path.resolve(values.profile),
      mode,
      gib: number('gib', 2, 1, 8),
      messages: number('messages', 2_000_000, 10_000, 100_000_000),
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
}

/** @throws Error unless the file is what an earlier run has written */
async function readBaseline(file: string): Promise<Options['baseline']> {
  const report = await readFile(file, 'utf8')
    .then((text) => JSON.parse(text) as Partial<Report>)
    .catch((error: Error) => {
      throw new Error(`--baseline: ${error.message}`);
    });
  if (!Array.isArray(report.engines)) throw new Error(`--baseline: ${file} has no figures of messages`);
  return { file, report: report as Report };
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
    overload: `${users} users, ${seconds} s a run`,
    replicas: `${seconds} s a run`,
    files: `a file of ${gib} GiB`,
    gateway: `${seconds} s a round`,
    crowd: `${seconds} s a measurement`,
    logins: `${seconds} s a measurement`,
    credentials: `${seconds} s a round`,
    tools: `invocations for ${seconds} s`,
    assistant: 'a model of our own',
    events: 'streams of server-sent events',
    storage: `${options.messages} messages`,
  }[options.mode];
  console.log(`${cpus} cores (${model}), Node ${process.version}, ${about}`);
  if (loadAverage > cpus / 4) {
    console.log(`Something else is at work on this machine (load average ${loadAverage}): the figures will be worse.`);
  }

  if (options.mode === 'overload') return measureTooMuch(options, report);
  if (options.mode === 'replicas') return measureMore(options, report);
  if (options.mode === 'gateway') return measureHop(options, report);
  if (options.mode === 'crowd') return measureHarm(options, report);
  if (options.mode === 'logins') return measureDoor(options, report);
  if (options.mode === 'credentials') return measureKeys(options, report);
  if (options.mode === 'tools') return measureInvocations(options, report);
  if (options.mode === 'assistant') return measureAnswers(options, report);
  if (options.mode === 'events') return measureTelling(options, report);
  if (options.mode === 'storage') return measureTables(options, report);
  if (options.mode === 'files') await measureStores(options, report);
  else await measureMessages(options, report);
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

/** More messages than the hub can take. */
async function measureTooMuch(options: Options, report: Report): Promise<number> {
  const overload: OverloadReport[] = [];
  for (const engine of options.engines) {
    const { seconds, users } = options;
    const processes = options.processes ?? usualProcesses[engine];
    const how = { engine, processes, folder: bench, seconds, users, signal: stopped.signal };
    const measured = await measureOverload(how);
    printOverload(measured);
    overload.push(measured);
  }
  await writeReport(options.json, { ...report, overload });
  return overload.every(({ problems }) => problems.length === 0) ? 0 : 1;
}

/** More processes of a service. */
async function measureMore({ seconds, json }: Options, report: Report): Promise<number> {
  if (process.platform !== 'linux') throw new Error('--replicas reads from /proc what a process was started with');
  if (!kafkaAvailable()) throw new Error(`--replicas needs Kafka, and that needs ${kafkaNeeds}`);
  const replicas = await measureReplicas({ folder: bench, seconds, signal: stopped.signal });
  printReplicas(replicas);
  await writeReport(json, { ...report, replicas });
  return replicas.problems.length === 0 ? 0 : 1;
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
async function measureDoor(
  { seconds, processes = usualProcesses.embedded, json }: Options,
  report: Report,
): Promise<number> {
  const logins = await inFolder((folder) => measureLogins({ folder, seconds, processes, signal: stopped.signal }));
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
async function measureInvocations(
  { seconds, processes = usualProcesses.embedded, json }: Options,
  report: Report,
): Promise<number> {
  const tools = await inFolder((folder) => measureTools({ folder, seconds, processes, signal: stopped.signal }));
  printTools(tools);
  await writeReport(json, { ...report, tools });
  return tools.problems.length === 0 ? 0 : 1;
}

/** Answers of the assistant. */
async function measureAnswers({ json }: Options, report: Report): Promise<number> {
  const assistant = await inFolder((folder) => measureAssistant(folder, stopped.signal));
  printAssistant(assistant);
  await writeReport(json, { ...report, assistant });
  return assistant.problems.length === 0 ? 0 : 1;
}

/** Events and their streams. */
async function measureTelling({ json, profile }: Options, report: Report): Promise<number> {
  const events = await inFolder((folder) => measureEvents({ folder, profile, signal: stopped.signal }));
  printEvents(events);
  await writeReport(json, { ...report, events });
  return events.problems.length === 0 ? 0 : 1;
}

/** The tables of messages. */
async function measureTables({ messages, json }: Options, report: Report): Promise<number> {
  const storage = await inFolder((folder) => measureStorage(folder, messages, stopped.signal));
  printStorage(storage);
  await writeReport(json, { ...report, storage });
  return storage.problems.length === 0 ? 0 : 1;
}

/** All engines, and how fast the machine is before and after. */
async function measureMessages(options: Options, report: Report): Promise<void> {
  const before = await timeMachine();
  await measureEngines(options, report);
  report.machine.loopMs = { before, after: await timeMachine() };
  console.log(
    `\nA fixed piece of work took ${whole(before)} ms of each core at the beginning and ${whole(report.machine.loopMs.after)} ms in the end`,
  );
  if (options.baseline !== undefined) printComparison(report, options.baseline.report, options.baseline.file);
}

async function measureEngines(options: Options, report: Report): Promise<void> {
  for (const engine of options.engines) {
    if (engine === 'kafka' && !kafkaAvailable()) {
      report.leftOut = 'Kafka is left out: it needs Java 17 or later (java) and Maven (mvn) on the PATH.';
      console.log(`\n${report.leftOut}`);
      continue;
    }
    const processes = options.processes ?? usualProcesses[engine];
    const measured = await measureEngine(engine, { ...options, processes, folder: bench, signal: stopped.signal });
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
