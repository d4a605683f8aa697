/** An exponential backoff: the pause doubles after each failure. */
export interface Backoff {
  firstMs: number;
  maxMs: number;
  /**
   * The share of each pause, from 0 to 1, that is random, so that callers that failed together don't all retry together. 0.5 by default.
   */
  jitter?: number;
}

/**
 * The pause after a number of failures in a row.
 *
 * @param failures at least 1
 * @param chance the random number of the jitter: 0 gives the longest pause, 1 the shortest
 */
export function backoffMs({ firstMs, maxMs, jitter = 0.5 }: Backoff, failures: number, chance = Math.random()): number {
  return Math.min(maxMs, firstMs * 2 ** (failures - 1)) * (1 - jitter * chance);
}
