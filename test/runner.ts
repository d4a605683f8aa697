import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Progress, Stats } from './progress.ts';

/** What AVA may take to end its workers. */
const stopLimit = 10_000;
/** What Node may take to report what keeps a process running. */
const reportLimit = 3_000;

export interface AvaOptions {
  /** The folder with AVA's configuration, whose `observeRun` is that of `progress.ts`. */
  cwd: string;
  /** Files, patterns and options. */
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  /** Where AVA writes its progress. */
  report: string;
  /** Milliseconds without news, neither of a file nor of a test, after which the run has failed. */
  quietLimit: number;
  /** Stops it. */
  signal: AbortSignal;
}

/** How a run of AVA has ended. */
export interface AvaRun {
  /** Of AVA; never 0 if anything has failed. */
  code: number;
  passed: number;
  failed: number;
  skipped: number;
  /** The files that have not ended by themselves. Each counts as failed. */
  hung: string[];
  failures: Progress['failures'];
  /** The files that have ended, with the milliseconds that each took. */
  ended: Progress['ended'];
}

/**
 * Runs AVA. A run from which nothing more comes is ended; the files that have begun and not ended are named, and what keeps their
 * processes running.
 */
export async function runAva({ cwd, args, env, report, quietLimit, signal }: AvaOptions): Promise<AvaRun> {
  const ava = fileURLToPath(new URL('cli.js', import.meta.resolve('ava')));
  // A process group of its own, so that Ctrl-C reaches AVA once, from here.
  const reports = path.dirname(report);
  const reporting = `--report-on-signal --report-exclude-env --report-exclude-network --report-directory=${reports}`;
  const child = spawn(process.execPath, [ava, `--node-arguments=${reporting}`, ...args], {
    cwd,
    env: { ...env, TEST_REPORT: report },
    stdio: 'inherit',
    detached: true,
  });
  const began = Date.now();
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const ended = new AbortController();
  void exited.then(() => ended.abort());
  const stop = () => {
    child.kill('SIGINT');
    setTimeout(() => {
      try {
        process.kill(-child.pid!, 'SIGKILL');
      } catch {
        // It has ended.
      }
    }, stopLimit).unref();
  };
  signal.addEventListener('abort', stop, { once: true });

  let hung: string[] = [];
  while (!ended.signal.aborted && hung.length === 0) {
    await sleep(Math.min(1_000, quietLimit / 4), undefined, { signal: ended.signal }).catch(() => {});
    const { heardAt = 0, patientUntil = 0, running = [] } = readProgress(report) ?? {};
    if (Date.now() < Math.max(Math.max(began, heardAt) + quietLimit, patientUntil) || signal.aborted) continue;
    hung = running.length > 0 ? running : ['before the first file'];
    console.log(`\nNothing has come for ${Math.round(quietLimit / 1_000)} s. These have begun and not ended:`);
    for (const file of hung) console.log(`  ${path.relative(cwd, file)}`);
    for (const line of await whatIsOpen(child.pid!, reports)) console.log(line);
    stop();
  }
  const [code] = await exited;
  signal.removeEventListener('abort', stop);
  const progress = readProgress(report);
  if (progress === undefined && hung.length === 0 && !signal.aborted) {
    throw new Error(`AVA ran no test file (exit code ${code})`);
  }
  if (hung.length === 0 && progress !== undefined && progress.hung.length > 0) {
    hung = progress.hung;
    console.log('\nThese were ended, since nothing came from them for too long:');
    for (const file of hung) console.log(`  ${path.relative(cwd, file)}`);
  }
  const sums = summed(progress?.stats ?? {});
  const failed = sums.failed + hung.length;
  return {
    ...sums,
    failed,
    hung,
    failures: progress?.failures ?? [],
    ended: progress?.ended ?? [],
    code: failed > 0 ? code || 1 : (code ?? 1),
  };
}

/** What Node's diagnostic report tells of a handle: https://nodejs.org/api/report.html */
interface Handle {
  type: string;
  is_active: boolean;
  is_referenced: boolean;
  localEndpoint?: { host: string; port: number } | null;
  remoteEndpoint?: { host: string; port: number } | null;
  firesInMsFromNow?: number;
  pid?: number;
}

/** The handles that keep the workers of an AVA running, a line for each. Which processes these are is only known where there is `/proc`. */
async function whatIsOpen(ava: number, folder: string): Promise<string[]> {
  const workers = globSync(`/proc/${ava}/task/*/children`).flatMap((file) =>
    readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number),
  );
  for (const pid of workers) process.kill(pid, 'SIGUSR2');
  await sleep(reportLimit);
  return globSync(path.join(folder, 'report.*.*.json')).flatMap((file) => {
    const { header, libuv } = JSON.parse(readFileSync(file, 'utf8')) as {
      header: { processId: number };
      libuv: Handle[];
    };
    const at = (end: Handle['localEndpoint']) => (end ? ` ${end.host}:${end.port}` : '');
    const open = libuv
      .filter((handle) => handle.is_active && handle.is_referenced)
      .map(({ type, localEndpoint, remoteEndpoint, firesInMsFromNow, pid }) => {
        const due = firesInMsFromNow === undefined ? '' : ` in ${firesInMsFromNow} ms`;
        return `    ${type}${at(localEndpoint)}${remoteEndpoint ? ` to${at(remoteEndpoint)}` : ''}${due}${pid === undefined ? '' : ` ${pid}`}`;
      });
    return [`  In the process ${header.processId} is open:`, ...open];
  });
}

function readProgress(report: string): Progress | undefined {
  return existsSync(report) ? (JSON.parse(readFileSync(report, 'utf8')) as Progress) : undefined;
}

function summed(stats: Partial<Stats>): Pick<AvaRun, 'passed' | 'failed' | 'skipped'> {
  const sum = (...names: (keyof Stats)[]) => names.reduce((total, name) => total + (stats[name] ?? 0), 0);
  return {
    passed: sum('passedTests', 'passedKnownFailingTests'),
    failed: sum(
      'failedTests',
      'failedHooks',
      'timedOutTests',
      'uncaughtExceptions',
      'unhandledRejections',
      'unexpectedProcessExits',
      'internalErrors',
      'failedWorkers',
    ),
    skipped: sum('skippedTests', 'todoTests'),
  };
}

/** The slowest files of a run, a line for each, the slowest first. */
export function slowest(ended: Progress['ended'], cwd: string, count = 10): string[] {
  return ended
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([file, took]) => `${(took / 1_000).toFixed(1).padStart(7)} s  ${path.relative(cwd, file)}`);
}

/** What has failed in a run, each with its file and its error: for the end of an output of which the beginning may be lost. */
export function failuresOf(failures: Progress['failures'], cwd: string): string[] {
  return failures.flatMap(({ file, what, error }) => [
    `  ${path.relative(cwd, file)}: ${what}`,
    ...error.split('\n').map((line) => `    ${line}`),
  ]);
}
