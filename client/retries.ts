import { ConnectionError, RefusedError } from './errors.ts';

/** Which failed calls are retried, and when. */

const firstWait = 200;
const longestWait = 10_000;
/** Statuses of transient failures. */
const passingStatuses: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** Whether an error is transient: the call may succeed a moment later. */
export function isTransient(error: unknown): error is ConnectionError | RefusedError {
  return error instanceof ConnectionError || (error instanceof RefusedError && passingStatuses.has(error.status));
}

/**
 * Milliseconds to wait before a retry: the hub's Retry-After, and on top of it a backoff that doubles with each failure. Half of the backoff
 * is random, so that clients that failed together don't return together.
 *
 * @param failures in a row, at least 1
 */
export function waitAfter(error: unknown, failures: number): number {
  const least = error instanceof RefusedError ? (error.retryAfter ?? 0) * 1_000 : 0;
  const most = Math.min(longestWait, firstWait * 2 ** (failures - 1));
  return least + most * (1 - Math.random() / 2);
}

/** Waits. @throws the reason of the signal when it is aborted */
export function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const end = () => {
      clearTimeout(timer);
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- the caller's own reason
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', end);
      resolve();
    }, milliseconds);
    signal.addEventListener('abort', end, { once: true });
  });
}

const fullBudget = 10;
const refund = 0.1;

/**
 * The retry budget that all calls of a client share, as in gRPC's retry throttling (A6): each failure takes a token, each success returns a
 * tenth of one, and calls are retried only while more than half of the tokens are left. So most calls to a hub that is down are
 * attempted once.
 */
export class RetryBudget {
  #left = fullBudget;

  /** Counts a failure. @returns whether a retry is allowed */
  spend(): boolean {
    this.#left = Math.max(0, this.#left - 1);
    return this.#left > fullBudget / 2;
  }

  /** Counts a success. */
  refund(): void {
    this.#left = Math.min(fullBudget, this.#left + refund);
  }
}
