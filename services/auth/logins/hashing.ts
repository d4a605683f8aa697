import { Piscina } from 'piscina';
import type * as worker from './hashing-worker.ts';

/** bcrypt, off the event loop. */
export interface Hashing {
  /** @param cost log2 of the number of rounds */
  hash(password: string, cost: number): Promise<string>;
  /** Whether a hash is that of the password. */
  compare(password: string, hash: string): Promise<boolean>;
  /** Gives up what is still being hashed. */
  close(): Promise<void>;
}

/**
 * On Linux, where a thread has a nice value of its own (sched(7)): whatever answers in milliseconds goes before what takes a quarter of
 * a second, so that nobody who only tries passwords slows down everybody else on the machine. Elsewhere it would be the process's.
 */
const niceIncrement = process.platform === 'linux' ? 10 : 0;
/** Milliseconds after which a thread that has nothing to do ends. */
const idleTimeout = 60_000;

/**
 * Threads of their own rather than libuv's four, which are for files and names: with all services in one process, who downloads a file
 * would wait behind those who log in.
 *
 * @param threads how many there are at most; they begin when they are needed
 */
export function openHashing({ threads }: { threads: number }): Hashing {
  const pool = new Piscina<unknown, unknown>({
    filename: new URL('./hashing-worker.ts', import.meta.url).href,
    minThreads: 0,
    maxThreads: threads,
    idleTimeout,
    niceIncrement,
    resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 },
    recordTiming: false,
  });
  return {
    hash: (password, cost) =>
      pool.run({ password, cost } satisfies Parameters<typeof worker.hash>[0], { name: 'hash' }) as Promise<string>,
    compare: (password, hash) =>
      pool.run({ password, hash } satisfies Parameters<typeof worker.compare>[0], {
        name: 'compare',
      }) as Promise<boolean>,
    close: () => pool.destroy(),
  };
}
