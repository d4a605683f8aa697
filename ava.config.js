import { inOrder, testFiles } from './test/order.ts';
import { observeRun } from './test/progress.ts';

export default {
  files: [testFiles],
  extensions: ['ts'],
  // Processes, not threads: tests send signals, and native addons and timers end with their file.
  workerThreads: false,
  concurrency: 2,
  sortTestFiles: inOrder,
  // Longer than the silence after which `test/runner.ts` ends the run, and tells what is still open.
  timeout: '4m',
  // kafkajs computes a timeout in the past now and then, which Node 24 reports and treats as none.
  nodeArguments: ['--disable-warning=TimeoutNegativeWarning'],
  nonSemVerExperiments: { observeRunsFromConfig: true },
  observeRun,
};
