import { renameSync, writeFileSync } from 'node:fs';

/** AVA's own statistics, as far as the last line and the exit code are made of them. */
export interface Stats {
  passedTests: number;
  passedKnownFailingTests: number;
  failedTests: number;
  failedHooks: number;
  timedOutTests: number;
  uncaughtExceptions: number;
  unhandledRejections: number;
  unexpectedProcessExits: number;
  internalErrors: number;
  failedWorkers: number;
  skippedTests: number;
  todoTests: number;
}

/** What an AVA that runs tests writes down for who has started it. Times are in milliseconds since the epoch. */
export interface Progress {
  stats: Stats;
  /** Absolute paths of the files that have ended, with the milliseconds that each took. */
  ended: [file: string, took: number][];
  /** Those that have begun and not ended. */
  running: string[];
  /** Those that AVA ended, since nothing came from them for too long. */
  hung: string[];
  /** What has failed: the first hundred. */
  failures: Failure[];
  /** When the last news came. */
  heardAt: number;
  /** Until when silence means nothing: a test that runs has asked for that much time. */
  patientUntil: number;
}

/** A test or hook that has failed, or an error outside of both. */
export interface Failure {
  /** Absolute path. */
  file: string;
  /** The title of the test or hook, or the kind of the error. */
  what: string;
  /** The error, at most `longestError` characters of it. */
  error: string;
}

/** An event of AVA's, as far as it is used here. */
export interface RunEvent {
  type: string;
  testFile?: string;
  period?: number;
  stats?: Stats & { byFile: Map<string, { remainingTests: number }> };
  title?: string;
  err?: {
    message?: string;
    stack?: string;
    formattedError?: string;
    formattedDetails?: { label: string; formatted: string }[];
  };
}

const mostFailures = 100;
const longestError = 2_000;
const failing = new Set([
  'hook-failed',
  'internal-error',
  'process-exit',
  'test-failed',
  'uncaught-exception',
  'unhandled-rejection',
  'worker-failed',
]);

function failureOf({ type, testFile = '', title, err }: RunEvent): Failure {
  const { message = '', stack = '', formattedError = '', formattedDetails = [] } = err ?? {};
  const details = formattedDetails.map(({ label, formatted }) => `${label}\n${formatted}`);
  const ours = stack.split('\n').filter((line) => !/node_modules|node:internal/.test(line));
  const error = [stack.includes(message) ? '' : message, ...details, formattedError, ...ours]
    .filter(Boolean)
    .join('\n');
  return {
    file: testFile,
    what: title ?? type,
    // oxlint-disable-next-line no-control-regex -- the colours of a terminal
    error: error.replaceAll(/\u001B\[[\d;]*m/g, '').slice(0, longestError),
  };
}

/** AVA's `observeRun`: writes the progress to the file `TEST_REPORT`, whenever there are news. */
export async function observeRun({ events }: { events: AsyncIterable<RunEvent> }): Promise<void> {
  // oxlint-disable-next-line node/no-process-env -- AVA's configuration is no part of the hub
  const report = process.env.TEST_REPORT;
  if (!report) return;
  const running = new Map<string, { since: number; patientUntil: number }>();
  const progress: Progress = {
    stats: {} as Stats,
    ended: [],
    running: [],
    hung: [],
    failures: [],
    heardAt: 0,
    patientUntil: 0,
  };
  let remaining = (_file: string) => 0;
  for await (const event of events) {
    const { type, testFile, period, stats } = event;
    const now = Date.now();
    // What a file writes is no news: it may do so for ever.
    if (type === 'worker-stdout' || type === 'worker-stderr') continue;
    if (stats !== undefined) {
      const { byFile, ...sums } = stats;
      progress.stats = sums;
      remaining = (file) => byFile.get(file)?.remainingTests ?? 0;
    }
    if (testFile !== undefined) {
      const state = running.get(testFile) ?? { since: now, patientUntil: 0 };
      running.set(testFile, state);
      if (type === 'test-timeout-configured') state.patientUntil = Math.max(state.patientUntil, now + (period ?? 0));
      if (type === 'worker-finished' || type === 'worker-failed') {
        running.delete(testFile);
        progress.ended.push([testFile, now - state.since]);
      }
    }
    if (failing.has(type) && progress.failures.length < mostFailures) progress.failures.push(failureOf(event));
    if (type === 'timeout') progress.hung = [...running.keys()];
    progress.heardAt = now;
    progress.running = [...running.keys()];
    progress.patientUntil = Math.max(
      0,
      ...[...running].map(([file, { patientUntil }]) => (remaining(file) > 0 ? patientUntil : 0)),
    );
    // Whole at any moment.
    writeFileSync(`${report}.new`, JSON.stringify(progress));
    renameSync(`${report}.new`, report);
  }
}
