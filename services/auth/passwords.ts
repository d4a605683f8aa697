import bcrypt from 'bcrypt';
import { HubError } from '#lib/errors.ts';

/** Passwords as bcrypt keeps them, hashed off the event loop. */
export interface Passwords {
  hash(password: string): Promise<string>;
  /** Takes as long, and answers false, where there is no hash to compare with. */
  matches(password: string, hash: string | undefined): Promise<boolean>;
}

/** @param cost log2 of the number of rounds; each step doubles the time */
export function openPasswords(cost: number, compare: typeof bcrypt.compare = bcrypt.compare): Passwords {
  // A salt with a made-up sum: no password has that hash, and comparing with it does all the work.
  const nobody = bcrypt.genSaltSync(cost) + '.'.repeat(31);
  return {
    hash: (password) => bcrypt.hash(password, cost),
    async matches(password, hash) {
      const same = await compare(password, hash ?? nobody);
      return hash !== undefined && same;
    },
  };
}

/** Lets so many work at once and so many more wait, in the order in which they came. */
export interface Turns {
  /**
   * Runs `work` when its turn has come.
   *
   * @throws HubError UNAVAILABLE `TOO_BUSY` if too many wait already, CANCELLED if `signal` ends the wait
   */
  take<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T>;
}

/** Hashing shares libuv's few threads with file and DNS work: without turns, many logins at once would stop all of it. */
export function openTurns({ atOnce, waiting }: { atOnce: number; waiting: number }): Turns {
  const queue = new Set<() => void>();
  let running = 0;

  async function enter(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw goneAway();
    if (running < atOnce) {
      running += 1;
      return;
    }
    if (queue.size >= waiting) {
      throw new HubError('UNAVAILABLE', 'TOO_BUSY', 'Too many logins at once: try again in a moment', {
        retryAfter: 2,
      });
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        signal.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        queue.delete(go);
        reject(goneAway());
      };
      queue.add(go);
      signal.addEventListener('abort', leave, { once: true });
    });
  }

  function exit(): void {
    const [next] = queue;
    if (next === undefined) {
      running -= 1;
      return;
    }
    queue.delete(next);
    next();
  }

  return {
    async take(signal, work) {
      await enter(signal);
      try {
        return await work();
      } finally {
        exit();
      }
    },
  };
}

function goneAway(): HubError {
  return new HubError('CANCELLED', 'CANCELLED', 'The caller has stopped waiting');
}
