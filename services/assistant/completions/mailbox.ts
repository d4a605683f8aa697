/** A queue between one writer and one reader. */
export interface Mailbox<Item> {
  put(item: Item): void;
  /** Ends the queue. */
  end(): void;
  /** The next item, `ended` if there is none and none will come, or `late` if none came within `milliseconds`. */
  take(milliseconds: number): Promise<{ item: Item } | 'ended' | 'late'>;
}

/** Opens a mailbox. It is unbounded: the writer must limit what it puts in. */
export function openMailbox<Item>(): Mailbox<Item> {
  const items: Item[] = [];
  let hasEnded = false;
  let wake = () => {};

  return {
    put(item) {
      items.push(item);
      wake();
    },
    end() {
      hasEnded = true;
      wake();
    },
    async take(milliseconds) {
      if (items.length === 0 && !hasEnded) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const timer = setTimeout(resolve, milliseconds);
        await promise;
        clearTimeout(timer);
      }
      if (items.length > 0) return { item: items.shift() as Item };
      return hasEnded ? 'ended' : 'late';
    },
  };
}
