import type { Bytes } from './storage.ts';

/**
 * The pieces of `bytes`, of which none is empty. Ends well only if they are exactly `size` bytes and `bytes` itself has
 * ended well; with the signal's reason as soon as it aborts, even while a piece is being waited for.
 *
 * @throws RangeError if there are more or fewer bytes: a bug of the caller, who has promised the number
 */
export async function* exactly(bytes: Bytes, size: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
  signal.throwIfAborted();
  const source = bytes[Symbol.asyncIterator]();
  // One promise for each piece: one for all of them would hold on to every piece until the end.
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
    // Not waited for: a source that hangs would hang in this as well.
    if (!ended) source.return?.().catch(() => {});
  }
}
