/**
 * The same values, each of which is asked for while the one before is worked on: for pages of a table that are sent one after the other.
 * One value more than was taken may have been read in the end.
 */
export async function* readAhead<T>(source: AsyncIterable<T>): AsyncGenerator<T, void> {
  const iterator = source[Symbol.asyncIterator]();
  const ask = () => {
    const asked = iterator.next();
    // Whoever stops before it comes doesn't hear of its failure.
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
    // Not waited for: it ends when the value has come that was asked for last.
    iterator.return?.()?.catch(() => {});
  }
}
