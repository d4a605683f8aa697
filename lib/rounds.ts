import {
  activeSpans,
  currentContext,
  withActiveSpans,
  withContext,
  withoutContext,
  type ActiveSpans,
  type CallContext,
} from './context.ts';
import { HubError, TimedOut } from './errors.ts';
import { sizeHistogram } from './metrics.ts';
import { inBatch } from './tracing.ts';

const roundItems = sizeHistogram('round_items', 'Items that are worked on together, in one round', ['of']);

/** Work that waits for the next round. */
interface Waiting<Item, Result> {
  item: Item;
  size: number;
  context: CallContext | undefined;
  spans: ActiveSpans | undefined;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export interface RoundLimits<Item> {
  /** What the items are, for metrics: the same for rounds that run beside each other. */
  name: string;
  /** The maximum number of items of a round. */
  items: number;
  /** The maximum that the sizes of a round's items may add up to. A larger item has a round of its own. Not limited by default. */
  size?: { of: (item: Item) => number; max: number };
  /** How many rounds run at once; one by default. */
  atOnce?: number;
  /**
   * How many items may wait for their round, and what their sizes may add up to: more are refused. By default fifty rounds' worth.
   */
  waiting?: { items: number; size?: number };
  /**
   * Whether an error may be the fault of a single item: then the round is repeated in halves, until the items that fail are found. By
   * default all items fail with their round. A round that timed out (`TimedOut` of lib/errors) is always repeated in halves.
   */
  mayBeOfOneItem?: (error: unknown) => boolean;
}

const maxWaitingRounds = 50;

/**
 * Does work in rounds (group commit): the items that come while a round runs form the next one. So a single item is worked on at once,
 * and under load many items share a cost, such as a commit. A round of one item runs in the context of its call,
 * with its request id and deadline; a round of several runs in none. An item whose deadline passes while it waits is rejected.
 */
export class Rounds<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #limits: RoundLimits<Item>;
  readonly #maxWaiting: { items: number; size: number };
  #waiting: Waiting<Item, Result>[] = [];
  #waitingSize = 0;
  #running = 0;
  /** The maximum number of items of a round now: less than the limit after a round that timed out, until rounds succeed again. */
  #maxItems: number;

  /** @param work returns a result for each item, in their order; if it fails, all of them have failed */
  constructor(work: (items: readonly Item[]) => Promise<readonly Result[]>, limits: RoundLimits<Item>) {
    this.#work = work;
    this.#limits = limits;
    this.#maxItems = limits.items;
    roundItems.zero({ of: limits.name });
    const { items, size, waiting } = limits;
    this.#maxWaiting = {
      items: waiting?.items ?? maxWaitingRounds * items,
      size: waiting?.size ?? maxWaitingRounds * (size?.max ?? Infinity),
    };
  }

  /**
   * @throws what the item's round throws
   * @throws HubError UNAVAILABLE `OVERLOADED` at once, if too much waits already
   * @throws HubError DEADLINE_EXCEEDED if its call's deadline passed before its round began
   */
  do(item: Item): Promise<Result> {
    const size = this.#limits.size?.of(item) ?? 0;
    const { items: maxItems, size: maxSize } = this.#maxWaiting;
    const isTooMuch =
      this.#waiting.length >= maxItems || (this.#waiting.length > 0 && this.#waitingSize + size > maxSize);
    if (isTooMuch) {
      const message = 'Too much waits to be done at the moment';
      return Promise.reject(new HubError('UNAVAILABLE', 'OVERLOADED', message, { retryAfter: 1 }));
    }
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#waiting.push({ item, size, context: currentContext(), spans: activeSpans(), resolve, reject });
    this.#waitingSize += size;
    if (this.#running < (this.#limits.atOnce ?? 1)) void withoutContext(() => this.#run());
    return promise;
  }

  async #run(): Promise<void> {
    this.#running += 1;
    while (this.#waiting.length > 0) {
      const round = this.#next();
      if (round.length > 0) await this.#settle(round);
    }
    this.#running -= 1;
  }

  /** Removes the items of the next round from those that wait. */
  #next(): Waiting<Item, Result>[] {
    const { size } = this.#limits;
    const round: Waiting<Item, Result>[] = [];
    let removed = 0;
    let sum = 0;
    for (const each of this.#waiting) {
      if (isInTime(each)) {
        if (round.length >= this.#maxItems) break;
        if (size !== undefined && round.length > 0 && sum + each.size > size.max) break;
        round.push(each);
        sum += each.size;
      }
      removed += 1;
      this.#waitingSize -= each.size;
    }
    this.#waiting.splice(0, removed);
    return round;
  }

  async #settle(round: readonly Waiting<Item, Result>[]): Promise<void> {
    roundItems.observe({ of: this.#limits.name }, round.length);
    try {
      const work = () => this.#work(round.map(({ item }) => item));
      const results = await inContextOf(this.#limits.name, round, work);
      for (const [index, { resolve }] of round.entries()) resolve(results[index] as Result);
      this.#maxItems = Math.min(this.#limits.items, 2 * this.#maxItems);
    } catch (error) {
      const timedOut = error instanceof TimedOut;
      const half = Math.ceil(round.length / 2);
      if (timedOut) this.#maxItems = Math.min(this.#maxItems, half);
      if (round.length > 1 && (timedOut || this.#limits.mayBeOfOneItem?.(error) === true)) {
        for (const some of [round.slice(0, half), round.slice(half)]) {
          const left = some.filter(isInTime);
          if (left.length > 0) await this.#settle(left);
        }
      } else {
        for (const { reject } of round) reject(error);
      }
    }
  }
}

/** Whether the deadline of an item's call has not passed. If it has, the item is rejected. */
function isInTime<Item, Result>({ context, reject }: Waiting<Item, Result>): boolean {
  if (context?.deadline === undefined || Date.now() < context.deadline) return true;
  reject(new HubError('DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'The call took longer than its deadline'));
  return false;
}

/** Does the work of a round: for one call in its context, for several in none. */
function inContextOf<Item, Result>(
  name: string,
  round: readonly Waiting<Item, Result>[],
  work: () => Promise<readonly Result[]>,
) {
  const [first, ...others] = round;
  if (others.length > 0 || first?.context === undefined) {
    return inBatch(
      `round of ${name}`,
      round.flatMap(({ spans }) => spans?.span.spanContext() ?? []),
      work,
    );
  }
  const { context, spans } = first;
  const inContext = () => withContext(context, work);
  return spans === undefined ? inContext() : withActiveSpans(spans, inContext);
}
