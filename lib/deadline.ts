/** The longest delay of a timer in Node: a longer one fires at once. */
export const maxTimerMs = 2 ** 31 - 1;

/**
 * Waits for `work`, but at most `milliseconds`. A later result or failure is ignored.
 *
 * @param late makes the error to throw when the time is up; it may also tell the work to stop
 * @throws what `work` throws, or what `late` makes
 */
export async function within<T>(milliseconds: number, work: Promise<T>, late: () => Error): Promise<T> {
  const over = Promise.withResolvers<never>();
  const timer = setTimeout(() => over.reject(late()), Math.min(milliseconds, maxTimerMs));
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits until `work` is done or the time is up, whichever comes first.
 *
 * @throws what `work` throws in that time
 */
export async function waitAtMost(milliseconds: number, work: Promise<unknown>): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, Math.min(milliseconds, maxTimerMs));
  try {
    await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits for `work` until the signal is aborted, even if the work itself ignores the signal.
 *
 * @param discard is given the result if it comes after the abort
 * @throws the signal's reason, or what the work throws
 */
export async function unlessAborted<T>(
  signal: AbortSignal,
  work: Promise<T>,
  discard?: (late: T) => Promise<void>,
): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason as Error);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([aborted, work]);
  } catch (error) {
    if (signal.aborted) void work.then(discard).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
