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
  /** When the last news came. */
  heardAt: number;
  /** Until when silence means nothing: a test that runs has asked for that much time. */
  patientUntil: number;
}

/** An event of AVA's, as far as it is used here. */
export interface RunEvent {
  type: string;
  testFile?: string;
  period?: number;
  stats?: Stats & { byFile: Map<string, { remainingTests: number }> };
}

/** AVA's `observeRun`: writes the progress to the file `TEST_REPORT`, whenever there are news. */
export async function observeRun({ events }: { events: AsyncIterable<RunEvent> }): Promise<void> {
  // oxlint-disable-next-line node/no-process-env -- AVA's configuration is no part of the hub
  const report = process.env.TEST_REPORT;
  if (!report) return;
  const running = new Map<string, { since: number; patientUntil: number }>();
  const progress: Progress = { stats: {} as Stats, ended: [], running: [], hung: [], heardAt: 0, patientUntil: 0 };
  let remaining = (_file: string) => 0;
  for await (const { type, testFile, period, stats } of events) {
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
