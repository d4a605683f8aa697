import cluster, { type Worker } from 'node:cluster';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ReadyMessage, Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';

/** How long after a worker has ended by itself another one is started. */
const restartPauseMs = 1_000;

/**
 * Runs this program `count` times more, as workers that take the connections of one port by turns: Node computes on one core
 * for each process. If the first of them doesn't start, this process ends with its exit code, since it has said why.
 */
export async function startWorkers(count: number, log: Logger): Promise<Running> {
  const ended = new Map<Worker, Promise<void>>();
  let stopping = false;

  /** Starts one. @returns the port that it listens on, once it does */
  function start(onFailure: (code: number) => void): Promise<number> {
    // Each worker would repeat the lines of this process.
    const worker = cluster.fork({ LOG_LEVEL: log.level === 'info' ? 'warn' : log.level });
    return new Promise((resolve) => {
      let isReady = false;
      worker.on('message', (message: Partial<ReadyMessage>) => {
        if (message.ready !== true) return;
        isReady = true;
        resolve(message.port as number);
      });
      const over = new Promise<void>((done) => {
        worker.once('exit', (code: number | null) => {
          ended.delete(worker);
          done();
          if (stopping) return;
          if (isReady) void replace(worker, code);
          else onFailure(code ?? 1);
        });
      });
      ended.set(worker, over);
    });
  }

  async function replace({ process: { pid } }: Worker, code: number | null): Promise<void> {
    log.error({ worker: pid, code }, 'a worker has ended; another one starts');
    await sleep(restartPauseMs);
    if (!stopping) await start(() => void sleep(restartPauseMs).then(() => process.exit(1)));
  }

  const port = await start((code) => process.exit(code));
  await Promise.all(Array.from({ length: count - 1 }, () => start((code) => process.exit(code))));
  return {
    port,
    // Each worker retires by itself at SIGTERM.
    retire() {
      stopping = true;
      for (const { process: worker } of ended.keys()) worker.kill('SIGTERM');
    },
    async stop() {
      await Promise.all(ended.values());
    },
  };
}
