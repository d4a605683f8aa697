import { isTransient } from './errors.ts';
import type { Logger } from './log.ts';
import { backoffMs } from './backoff.ts';

/** Work that a process does again and again beside its calls. */
export interface Loop {
  /** Cuts the pause short: the work is done at once, or once more if it is being done. */
  wake(): void;
  /** Lets the running work finish, and does it no more. */
  stop(): Promise<void>;
}

const backoff = { firstMs: 100, maxMs: 2_000 };
/** While processes start or restart, others miss them for a moment, which is not worth a line in the log. */
const unloggedMs = 3_000;

/**
 * Does `work` again and again; it returns the pause until the next time, in milliseconds. After a failure the pause grows
 * from 100 ms to 2 s, less up to a half, so that not all processes come back at the same moment. A failure is logged once: at once if it looks like a bug, after 3 s if something is just away; and
 * then, that it works again.
 */
export function repeat(what: string, log: Logger, work: () => Promise<number>): Loop {
  let stopped = false;
  let awake = false;
  let endPause = () => {};

  async function run() {
    let failures = 0;
    let failingSince = 0;
    let logged = false;
    while (!stopped) {
      awake = false;
      let pause: number;
      try {
        pause = await work();
        if (logged) log.info(`${what}: works again`);
        failures = 0;
        logged = false;
      } catch (error) {
        if (failures === 0) failingSince = Date.now();
        if (!logged && (!isTransient(error) || Date.now() - failingSince >= unloggedMs)) {
          log[isTransient(error) ? 'warn' : 'error']({ err: error }, `${what}: doesn't work`);
          logged = true;
        }
        failures += 1;
        pause = backoffMs(backoff, failures);
        // Being woken is no reason to try sooner what has just failed.
        awake = false;
      }
      if (stopped || awake || pause === 0) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, pause);
        endPause = () => {
          if (failures > 0 && !stopped) return;
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
  const running = run();

  return {
    wake() {
      awake = true;
      endPause();
    },
    stop() {
      stopped = true;
      endPause();
      return running;
    },
  };
}

export interface SweepOptions {
  /** How many things are dealt with at once. */
  batchSize: number;
  /** Milliseconds to the next sweep after one that has found less than a batch, and so left nothing. */
  everyMs: number;
  /** Milliseconds between the batches of one sweep. */
  pauseMs?: number;
}

/**
 * Deals again and again with all that is due, a batch at a time.
 *
 * @param work deals with a batch, and returns how many it found
 */
export function sweep(
  what: string,
  log: Logger,
  { batchSize, everyMs, pauseMs = 0 }: SweepOptions,
  work: (batchSize: number) => Promise<number>,
): Loop {
  return repeat(what, log, async () => ((await work(batchSize)) < batchSize ? everyMs : pauseMs));
}
