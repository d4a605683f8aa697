import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs, type Backoff } from './backoff.ts';

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
