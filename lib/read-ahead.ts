/**
 * Prefetches one value: the next one is asked for while the consumer works on the last one. For pages of a table that are sent one after
 * the other. In the end one value more may have been read than was consumed.
 */
export async function* readAhead<T>(source: AsyncIterable<T>): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  const ask = () => {
    const asked = iterator.next();
    // If the consumer stops early, a failure of the prefetch is ignored.
    asked.catch(() => {});
    return asked;
  };
  try {
    for (let next = ask(); ;) {
      const { done, value } = await next;
      if (done === true) return;
      next = ask();
      yield value;
    }
  } finally {
    // Not awaited: it ends only when the prefetched value is there.
    iterator.return?.()?.catch(() => {});
  }
}
