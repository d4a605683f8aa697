import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs, type Backoff } from './backoff.ts';

/** Pauses before another attempt. @returns false as soon as the signal is aborted: then there should be none */
export async function pauseFor(milliseconds: number, signal?: AbortSignal): Promise<boolean> {
  await sleep(milliseconds, undefined, { signal }).catch(() => {});
  return signal?.aborted !== true;
}

export interface RetryOptions {
  backoff: Backoff;
  /** Once it is aborted, there are no further attempts. */
  signal?: AbortSignal;
  /** Called with each failure before the next attempt. Throws to give up. */
  onFailure(error: unknown, failures: number): void;
}

/**
 * Repeats `work` until it succeeds.
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
