import { unlessAborted } from '#lib/deadline.ts';

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
