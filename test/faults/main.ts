import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { kafkaAvailable, kafkaNeeds } from '../../dev/engines/kafka.ts';
import { minioAvailable, minioNeeds } from '../../dev/engines/minio.ts';
import { mayMount } from './disk.ts';
import { kinds, type FaultKind, type Scale } from './plan.ts';
import { printReport } from './report.ts';
import { run, type RunReport } from './run.ts';
import type { EngineKind } from './system.ts';

const usage = `npm run faults -- [options]: breaks a whole hub under load, and proves that nothing accepted is lost or doubled

  --engines real|embedded|both  Kafka, PostgreSQL and MinIO, or PostgreSQL and a folder; both by default
  --short                       20 faults, 5,000 messages, within 5 minutes: the default
  --long                        100 faults, 100,000 messages; processes are frozen for 20 to 40 s
  --tiny                        6 faults, 300 messages
  --faults <1-10000>            that many faults instead
  --messages <1-10000000>       that many messages instead, at least
  --only <kind>,<kind>          faults of these kinds only: ${kinds.join(', ')}
  --replicas <1-5>              how many of each service run; 1 by default
  --seed <0-4294967295>         which faults, for how long, in which order; a new one by default
  --json <file>                 where the report goes

Exit code 1 if a promise was broken: then the whole history of the messages is printed, and the logs are kept.`;

const root = path.resolve(import.meta.dirname, '../..');
const home = path.join(root, '.chat4all/faults');

interface Options {
  engines: EngineKind[];
  scale: Scale;
  faults: number;
  messages: number;
  only: FaultKind[] | undefined;
  replicas: number;
  seed: number;
  json: string | undefined;
}

const scales: Record<Scale, { faults: number; messages: number }> = {
  tiny: { faults: 6, messages: 300 },
  short: { faults: 20, messages: 5_000 },
  long: { faults: 100, messages: 100_000 },
};

/** Set in the process that has a mount namespace of its own. */
const marker = 'CHAT4ALL_FAULTS_MOUNTS';

const options = readOptions();
// Disks that are mounted in a namespace of its own are gone with the last process in there, however this one ends.
if (mayMount() && process.env[marker] === undefined) await passOn();
else await main(options);

function readOptions(): Options {
  try {
    const text = { type: 'string' } as const;
    const flag = { type: 'boolean' } as const;
    const { values } = parseArgs({
      options: {
        engines: text,
        short: flag,
        long: flag,
        tiny: flag,
        faults: text,
        messages: text,
        only: text,
        replicas: text,
        seed: text,
        json: text,
        help: flag,
      },
    });
    if (values.help === true) {
      console.log(usage);
      process.exit(0);
    }
    const chosen = (['short', 'long', 'tiny'] as const).filter((scale) => values[scale] === true);
    if (chosen.length > 1) throw new Error('only one of --short, --long and --tiny');
    const scale = chosen[0] ?? 'short';
    const number = (
      name: 'faults' | 'messages' | 'replicas' | 'seed',
      fallback: number,
      least: number,
      most: number,
    ) => {
      const value = values[name] ?? String(fallback);
      if (/^\d+$/.test(value) && Number(value) >= least && Number(value) <= most) return Number(value);
      throw new Error(`--${name} must be a whole number from ${least} to ${most}`);
    };
    const engines = values.engines ?? 'both';
    if (!['real', 'embedded', 'both'].includes(engines)) throw new Error('--engines must be real, embedded or both');
    const only = values.only?.split(',').map((name) => {
      const kind = kinds.find((each) => each === name.trim());
      if (kind === undefined) throw new Error(`--only: there is no fault of the kind ${name}`);
      return kind;
    });
    return {
      only,
      engines: engines === 'both' ? ['real', 'embedded'] : [engines as EngineKind],
      scale,
      faults: number('faults', scales[scale].faults, 1, 10_000),
      messages: number('messages', scales[scale].messages, 1, 10_000_000),
      replicas: number('replicas', 1, 1, 5),
      seed: number('seed', Math.floor(Math.random() * 2 ** 32), 0, 2 ** 32 - 1),
      json: values.json === undefined ? undefined : path.resolve(values.json),
    };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
}

/** Runs the same once more, in a mount namespace of its own. */
async function passOn(): Promise<void> {
  const args = ['--mount', process.execPath, ...process.execArgv, import.meta.filename, ...process.argv.slice(2)];
  const child = spawn('unshare', args, { stdio: 'inherit', env: { ...process.env, [marker]: '1' } });
  // Ctrl-C in the terminal reaches the child by itself, a second one does no harm.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  process.exitCode = await new Promise<number>((resolve) => {
    child.once('error', (error) => {
      console.error(error.message);
      resolve(1);
    });
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function main({ engines, json, ...rest }: Options): Promise<void> {
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => stopped.abort(new Error(signal)));
  }
  const reports: RunReport[] = [];
  try {
    for (const kind of engines) {
      const missing = kind === 'real' ? missingEngines() : [];
      if (missing.length > 0) {
        console.log(`The real engines are left out: ${missing.join('; ')}`);
        if (engines.length === 1) process.exitCode = 1;
        continue;
      }
      const report = await runOn(kind, rest, stopped.signal);
      reports.push(report);
      printReport(report);
      if (report.breaches.length > 0) process.exitCode = 1;
    }
  } catch (error) {
    console.error(stopped.signal.aborted ? `Stopped: ${(stopped.signal.reason as Error).message}` : error);
    process.exitCode = 1;
  }
  if (json !== undefined) await writeReport(json, reports);
}

async function writeReport(file: string, report: RunReport | RunReport[]): Promise<void> {
  await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`);
}

function missingEngines(): string[] {
  return [
    ...(kafkaAvailable() ? [] : [`Kafka needs ${kafkaNeeds}`]),
    ...(minioAvailable() ? [] : [`MinIO needs ${minioNeeds}`]),
  ];
}

async function runOn(
  engines: EngineKind,
  options: Omit<Options, 'engines' | 'json'>,
  signal: AbortSignal,
): Promise<RunReport> {
  const { seed, faults, messages } = options;
  const begun = Date.now();
  const tell = (line: string) => console.log(`${((Date.now() - begun) / 1_000).toFixed(1).padStart(7)}  ${line}`);
  console.log(`\n${engines} engines: ${faults} faults, ${messages} messages, --seed ${seed}`);
  await mkdir(home, { recursive: true });
  const folder = await mkdtemp(path.join(home, 'run-'));
  try {
    // PostgreSQL runs as another user where we are root.
    await chmod(folder, 0o755);
    const keepIn = path.join(home, `${new Date().toISOString().replaceAll(':', '-')}-${engines}-${seed}`);
    const report = await run({
      ...options,
      engines,
      folder,
      keepIn,
      disks: process.env[marker] !== undefined,
      signal,
      tell,
    });
    if (report.breaches.length > 0) await writeReport(path.join(keepIn, 'report.json'), report);
    return report;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
