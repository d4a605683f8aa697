/** Milliseconds that a timer of Node's takes at most: beyond it one would be over at once. */
export const longestTimer = 2 ** 31 - 1;

/**
 * Waits for `work`, but at most `milliseconds`: what comes of it later is nobody's.
 *
 * @throws what `work` throws, or what `late` makes once the time is over; `late` may also tell the work to stop
 */
export async function within<T>(milliseconds: number, work: Promise<T>, late: () => Error): Promise<T> {
  const over = Promise.withResolvers<never>();
  const timer = setTimeout(() => over.reject(late()), Math.min(milliseconds, longestTimer));
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
  }
}
