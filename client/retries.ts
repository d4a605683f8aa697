import { ConnectionError, RefusedError } from './errors.ts';

/** When a call that has failed is tried again. */

const firstWait = 200;
const longestWait = 10_000;
/** Statuses of what passes: too much at the moment, or away for a moment. */
const passingStatuses: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** Whether a call that has failed so may succeed a moment later. */
export function passes(error: unknown): error is ConnectionError | RefusedError {
  return error instanceof ConnectionError || (error instanceof RefusedError && passingStatuses.has(error.status));
}

/**
 * Milliseconds to wait before another try: what the hub says at least, and twice as long after each failure. Half of that is left to
 * chance, so that those that failed together don't come back together.
 *
 * @param failures in a row, at least 1
 */
export function waitAfter(error: unknown, failures: number): number {
  const least = error instanceof RefusedError ? (error.retryAfter ?? 0) * 1_000 : 0;
  const most = Math.min(longestWait, firstWait * 2 ** (failures - 1));
  return least + most * (1 - Math.random() / 2);
}

/** Waits. @throws what `signal` is aborted with */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- whatever the caller gave up with
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', end);
      resolve();
    }, milliseconds);
    signal.addEventListener('abort', end, { once: true });
  });
}

/** How many tries the failing calls of a client may cost together: most calls of a hub that is down are tried once. */
const fullBudget = 10;
const refund = 0.1;

/**
 * The retries that all calls of a client share, as gRPC throttles them (A6): each failure takes one from the budget, each success
 * gives a tenth back, and there are retries only while more than half of it is there.
 */
export class RetryBudget {
  #left = fullBudget;

  /** A call has failed. @returns whether it may be tried again */
  spend(): boolean {
    this.#left = Math.max(0, this.#left - 1);
    return this.#left > fullBudget / 2;
  }

  /** A call has succeeded. */
  refund(): void {
    this.#left = Math.min(fullBudget, this.#left + refund);
  }
}
