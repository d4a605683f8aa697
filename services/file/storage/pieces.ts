import type { Bytes } from './storage.ts';

/**
 * Passes on the pieces of `bytes` that are not empty. Completes only if `bytes` does and has exactly `size` bytes. Throws the signal's
 * reason as soon as it aborts, even while waiting for a piece.
 *
 * @throws RangeError if there are more or fewer bytes, which is a bug of the caller
 */
export async function* exactly(bytes: Bytes, size: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  signal.throwIfAborted();
  const source = bytes[Symbol.asyncIterator]();
  // A new promise for each piece: a single one would keep all pieces in memory until the end (Promise.race).
  let interrupt: (reason: unknown) => void = () => {};
  const abort = () => interrupt(signal.reason);
  signal.addEventListener('abort', abort);
  let left = size;
  let ended = false;
  try {
    for (;;) {
      const next = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        interrupt = reject;
        source.next().then(resolve, reject);
      });
      signal.throwIfAborted();
      if (next.done === true) break;
      left -= next.value.byteLength;
      if (left < 0) throw new RangeError(`There are more than ${size} bytes`);
      if (next.value.byteLength > 0) yield next.value;
    }
    ended = true;
    if (left > 0) throw new RangeError(`There are ${size - left} bytes, not ${size}`);
  } finally {
    signal.removeEventListener('abort', abort);
    // Not awaited: a source that hangs may hang here, too.
    if (!ended) source.return?.().catch(() => {});
  }
}
