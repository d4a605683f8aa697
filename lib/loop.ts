import { isTransient } from './errors.ts';
import type { Logger } from './log.ts';

/** Work that a process does again and again beside its calls. */
export interface Loop {
  /** Cuts the pause short: the work is done at once, or once more if it is being done. */
  wake(): void;
  /** Lets the running work finish, and does it no more. */
  stop(): Promise<void>;
}

const firstBackoff = 100;
const longestBackoff = 2_000;
/** While processes start or restart, others miss them for a moment: that is no news. */
const patience = 3_000;

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
        if (!logged && (!isTransient(error) || Date.now() - failingSince >= patience)) {
          log[isTransient(error) ? 'warn' : 'error']({ err: error }, `${what}: doesn't work`);
          logged = true;
        }
        pause = Math.min(longestBackoff, firstBackoff * 2 ** failures) * (1 - Math.random() / 2);
        failures += 1;
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
