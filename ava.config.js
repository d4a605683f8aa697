import { writeFileSync } from 'node:fs';

/** What `test/run.ts` counts by: AVA's own statistics, written down as they change. */
async function observeRun({ events }) {
  // oxlint-disable-next-line node/no-process-env -- AVA's configuration is no part of the hub
  const report = process.env.TEST_REPORT;
  if (!report) return;
  for await (const event of events) {
    if (event.type !== 'stats') continue;
    const { byFile: _, ...stats } = event.stats;
    writeFileSync(report, JSON.stringify(stats));
  }
}

export default {
  files: ['{client,lib,services,gateway,dev,test}/**/*.test.ts'],
  extensions: ['ts'],
  // Processes, not threads: tests send signals, and native addons and timers end with their file.
  workerThreads: false,
  concurrency: 2,
  timeout: '2m',
  // kafkajs computes a timeout in the past now and then, which Node 24 reports and treats as none.
  nodeArguments: ['--disable-warning=TimeoutNegativeWarning'],
  nonSemVerExperiments: { observeRunsFromConfig: true },
  observeRun,
};
