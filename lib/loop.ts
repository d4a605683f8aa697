import { isTransient } from './errors.ts';
import type { Logger } from './log.ts';
import { backoffMs } from './backoff.ts';

/** Background work that a process repeats. */
export interface Loop {
  /** Ends the pause: the work runs at once, or once more if it is running. */
  wake(): void;
  /** Lets the running work finish, and ends the loop. */
  stop(): Promise<void>;
}

const backoff = { firstMs: 100, maxMs: 2_000 };
/** Failures are not logged before this: while processes start or restart, they are unavailable for a moment. */
const unloggedMs = 3_000;

/**
 * Repeats `work`, which returns the pause before the next run, in milliseconds. After a failure the pause grows from 100 ms to 2 s, with
 * jitter of a half. A failure is logged once, at once if it looks like a bug, after 3 s if something is unavailable; and so is that it
 * works again.
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
        // After a failure, being woken doesn't shorten the pause.
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
  /** The maximum number of items that `work` handles at once. */
  batchSize: number;
  /** The pause before the next sweep, after a batch that was not full. */
  everyMs: number;
  /** The pause between the batches of one sweep. */
  pauseMs?: number;
}

/**
 * Repeatedly handles everything that is due, batch by batch.
 *
 * @param work handles a batch of `batchSize` at most, and returns how many items it found
 */
export function sweep(
  what: string,
  log: Logger,
  { batchSize, everyMs, pauseMs = 0 }: SweepOptions,
  work: (batchSize: number) => Promise<number>,
): Loop {
  return repeat(what, log, async () => ((await work(batchSize)) < batchSize ? everyMs : pauseMs));
}
