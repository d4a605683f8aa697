import { setTimeout as sleep } from 'node:timers/promises';

/** How long to pause before another try: twice as long after each failure. */
export interface Backoff {
  firstMs: number;
  maxMs: number;
  /**
   * The share of each pause, from 0 to 1, that is left to chance, so that those that failed together don't come back together. Half of it
   * by default.
   */
  jitter?: number;
}

/**
 * The pause in milliseconds after so many failures in a row.
 *
 * @param failures at least 1
 * @param chance from 0, for the longest pause, to 1
 */
export function backoffMs({ firstMs, maxMs, jitter = 0.5 }: Backoff, failures: number, chance = Math.random()): number {
  return Math.min(maxMs, firstMs * 2 ** (failures - 1)) * (1 - jitter * chance);
}

/** Pauses before another try. @returns false as soon as the signal is aborted: then there is to be none */
export async function pauseFor(milliseconds: number, signal?: AbortSignal): Promise<boolean> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
  return signal?.aborted !== true;
}

export interface RetryOptions {
  backoff: Backoff;
  /** Once it is aborted, what fails is not tried again. */
  signal?: AbortSignal;
  /** Is told of each failure after which there is another try. To give up it throws. */
  onFailure(error: unknown, failures: number): void;
}

/**
 * Does `work`, again and again until it succeeds.
 *
 * @returns false if it was given up because of the signal
 * @throws what `onFailure` throws
 */
export async function retryUntilDone(
  work: () => Promise<void>,
  { backoff, signal, onFailure }: RetryOptions,
): Promise<boolean> {
  for (let failures = 1; ; failures += 1) {
    try {
      await work();
      return true;
    } catch (error) {
      if (signal?.aborted === true) return false;
      onFailure(error, failures);
    }
    if (!(await pauseFor(backoffMs(backoff, failures), signal))) return false;
  }
}
