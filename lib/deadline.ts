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

/** Waits until `work` is done or the time is over, whichever comes first. @throws what `work` throws in that time */
export async function waitAtMost(milliseconds: number, work: Promise<unknown>): Promise<void> {
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, Math.min(milliseconds, longestTimer));
  try {
    await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits for `work`, but no longer than until the signal is aborted: work that doesn't notice the signal keeps nobody waiting.
 *
 * @param discard is given what the work results in if that comes too late
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
