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
