/**
 * Waits for work, but no longer than until the signal is aborted: work that doesn't notice the signal keeps nobody waiting.
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

/** The items of a stream until the signal is aborted, whether the stream notices the signal or not. */
export async function* eachUnlessAborted<T>(signal: AbortSignal, stream: AsyncIterable<T>): AsyncGenerator<T> {
  const iterator = stream[Symbol.asyncIterator]();
  let isOver = false;
  try {
    for (;;) {
      const next = await unlessAborted(signal, iterator.next());
      isOver = next.done === true;
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    // The stream is told that nobody reads on; how it ends doesn't matter.
    if (!isOver) iterator.return?.().catch(() => {});
  }
}
