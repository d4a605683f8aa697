/** What one side puts in, and another takes out in the same order. */
export interface Mailbox<Item> {
  put(item: Item): void;
  /** Nothing more is put in. */
  end(): void;
  /** The next item, `ended` if there is none and none will come, or `late` if none came within `milliseconds`. */
  take(milliseconds: number): Promise<{ item: Item } | 'ended' | 'late'>;
}

/** A mailbox for one reader. What is put in is kept until it is taken: whoever puts in much has to limit it. */
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
