import { open, readFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { commands as hubCommands, StartArgument, StartedHub } from './hub.ts';
import { openRemote, type Remote } from './remote.ts';
import { usageOf, type Usage } from './usage.ts';

type HubRemote = Remote<typeof hubCommands>;

/** A hub in a process of its own. */
export interface BenchedHub extends StartedHub {
  remote: HubRemote;
  /** Milliseconds until it was ready. */
  readyMs: number;
  /** What it writes. */
  logFile: string;
}

/** The processes that are measured, by name, as they are now. */
export type Processes = () => Promise<Record<string, number>>;

const startLimit = 70_000;
/** Of these the processes below count, too. */
const trees = ['postgres', 'gateway and workers'];

/**
 * Starts a hub with its data and its log in `folder`.
 *
 * @throws Error with the end of its output
 */
export async function startHub(
  folder: string,
  env: Record<string, string | undefined>,
  signal: AbortSignal,
  how: Pick<StartArgument, 'processes' | 'replicas'> = {},
): Promise<BenchedHub> {
  const logFile = path.join(folder, 'hub.log');
  const log = await open(logFile, 'a');
  const began = performance.now();
  const remote: HubRemote = openRemote(path.join(import.meta.dirname, 'hub.ts'), log.fd, signal);
  await log.close();
  try {
    const hub = await remote.ask(
      'start',
      { dataDir: path.join(folder, 'data'), env: { LOG_FORMAT: process.env.LOG_FORMAT ?? 'json', ...env }, ...how },
      startLimit,
    );
    return { ...hub, remote, readyMs: performance.now() - began, logFile };
  } catch (error) {
    await remote.stop();
    const written = (await readFile(logFile, 'utf8')).trim().split('\n').slice(-30).join('\n');
    throw new Error(`The hub doesn't start. The end of its output:\n${written}`, { cause: error });
  }
}

/** What processes use while something is done. */
export interface Used<T> {
  result: T;
  seconds: number;
  /** Seconds, by process. */
  cpu: Record<string, number>;
  /** At the end, by process. */
  memoryMiB: Record<string, number>;
  /** Those that ended meanwhile. */
  restarted: string[];
  /** Seconds of CPU that everything on the machine used, these processes included. */
  machineCpu: number;
}

/** What the processes use while `work` is done. */
export async function between<T>(processes: Processes, work: () => Promise<T>): Promise<Used<T>> {
  const before = await processes();
  const usedBefore = await usageOf(before, trees);
  const machineBefore = machineCpu();
  const began = performance.now();
  const result = await work();
  const seconds = (performance.now() - began) / 1000;
  const machine = machineCpu() - machineBefore;
  const after = await processes();
  const used = await usageOf(after, trees);
  const restarted = Object.keys({ ...before, ...after }).filter((name) => before[name] !== after[name]);
  const since = (name: string, { cpu }: Usage) =>
    restarted.includes(name) ? cpu : cpu - (usedBefore[name] as Usage).cpu;
  return {
    result,
    seconds,
    cpu: Object.fromEntries(Object.entries(used).map(([name, each]) => [name, since(name, each)])),
    memoryMiB: mapValues(used, ({ memory }) => memory / 2 ** 20),
    restarted,
    machineCpu: machine,
  };
}

/** How much memory processes have, in MiB, by name. */
export async function memoryOf(processes: Processes): Promise<Record<string, number>> {
  return mapValues(await usageOf(await processes(), trees), ({ memory }) => memory / 2 ** 20);
}

/** Seconds of CPU that everything on this machine has used. */
function machineCpu(): number {
  const milliseconds = os.cpus().map(({ times: { user, nice, sys, irq } }) => user + nice + sys + irq);
  return milliseconds.reduce((sum, each) => sum + each, 0) / 1000;
}

export function mapValues<T, U>(values: Record<string, T>, change: (value: T, name: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, change(value, name)]));
}
