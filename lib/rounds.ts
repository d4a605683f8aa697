import { currentContext, withContext, withoutContext, type CallContext } from './context.ts';
import { HubError, TimedOut } from './errors.ts';

/** Work that waits for the next round. */
interface Waiting<Item, Result> {
  item: Item;
  size: number;
  context: CallContext | undefined;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
}

export interface RoundLimits<Item> {
  /** The most items of one round. */
  items: number;
  /** The most that the sizes of a round's items may add up to. A larger item has a round of its own. Not limited by default. */
  size?: { of: (item: Item) => number; most: number };
  /** How many rounds run at once; one by default. */
  atOnce?: number;
  /**
   * The shortest time between the beginnings of two rounds, in milliseconds; 0 by default. An item that comes later than that is worked
   * on at once; one that comes earlier waits for others, unless the round is full.
   */
  interval?: number;
  /**
   * How many items may wait for their round, and what their sizes may add up to: more are refused. By default as many as make up fifty
   * rounds.
   */
  waiting?: { items: number; size?: number };
  /**
   * Whether an error may be the fault of a single item. Then the round is repeated in halves, until the items that fail are found. By
   * default all items fail with their round. A round that took too long (`TimedOut` of lib/errors) is always repeated in halves.
   */
  isOfItem?: (error: unknown) => boolean;
}

const maxWaitingRounds = 50;

/**
 * Does work in rounds (group commit): all items that come while one round runs form the next one. So a single item is worked on at once,
 * and under load many share a cost that each would have alone, such as a commit. A round of one item runs in the context of its call,
 * with its request id and deadline; a round of several runs in none. An item whose deadline passes while it waits is rejected.
 */
export class Rounds<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #limits: RoundLimits<Item>;
  readonly #maxWaiting: { items: number; size: number };
  #waiting: Waiting<Item, Result>[] = [];
  #waitingSize = 0;
  #running = 0;
  #began = Number.NEGATIVE_INFINITY;
  /** The most items of a round at the moment: fewer than allowed after a round that took too long, until rounds succeed again. */
  #maxItems: number;
  /** What ends the pauses before rounds. */
  readonly #pauses = new Set<() => void>();
  #stopped = false;
  #idle = Promise.withResolvers<void>();

  /** @param work returns a result for each item, in their order; if it fails, all of them have failed */
  constructor(work: (items: readonly Item[]) => Promise<readonly Result[]>, limits: RoundLimits<Item>) {
    this.#work = work;
    this.#limits = limits;
    this.#maxItems = limits.items;
    const { items, size, waiting } = limits;
    this.#maxWaiting = {
      items: waiting?.items ?? maxWaitingRounds * items,
      size: waiting?.size ?? maxWaitingRounds * (size?.most ?? Infinity),
    };
    this.#idle.resolve();
  }

  /**
   * @throws what the round throws that the item is in
   * @throws HubError UNAVAILABLE `OVERLOADED` at once, if too much waits already or `stop` was called
   * @throws HubError DEADLINE_EXCEEDED if its call's deadline passed before its round began
   */
  do(item: Item): Promise<Result> {
    const size = this.#limits.size?.of(item) ?? 0;
    const { items: maxItems, size: maxSize } = this.#maxWaiting;
    const isTooMuch =
      this.#waiting.length >= maxItems || (this.#waiting.length > 0 && this.#waitingSize + size > maxSize);
    if (this.#stopped || isTooMuch) {
      const message = 'Too much waits to be done at the moment';
      return Promise.reject(new HubError('UNAVAILABLE', 'OVERLOADED', message, { retryAfter: 1 }));
    }
    const { promise, resolve, reject } = Promise.withResolvers<Result>();
    this.#waiting.push({ item, size, context: currentContext(), resolve, reject });
    this.#waitingSize += size;
    if (this.#running < (this.#limits.atOnce ?? 1)) void withoutContext(() => this.#run());
    else if (this.#isFull()) this.#endPauses();
    return promise;
  }

  /** Waits until all items are done, also those that come meanwhile. */
  async drain(): Promise<void> {
    while (this.#running > 0) {
      this.#endPauses();
      await this.#idle.promise;
    }
  }

  /** Does all items that wait, and refuses any that come from now on. */
  stop(): Promise<void> {
    this.#stopped = true;
    return this.drain();
  }

  async #run(): Promise<void> {
    if (this.#running === 0) this.#idle = Promise.withResolvers();
    this.#running += 1;
    while (this.#waiting.length > 0) {
      const pause = this.#began + (this.#limits.interval ?? 0) - performance.now();
      if (pause > 0 && !this.#stopped && !this.#isFull()) await this.#pause(pause);
      const round = this.#next();
      if (round.length === 0) continue;
      this.#began = performance.now();
      await this.#settle(round);
    }
    this.#running -= 1;
    if (this.#running === 0) this.#idle.resolve();
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      this.#pauses.add(end);
    });
  }

  #endPauses(): void {
    for (const end of this.#pauses) end();
  }

  #isFull(): boolean {
    const { items, size } = this.#limits;
    return this.#waiting.length >= items || this.#waitingSize >= (size?.most ?? Infinity);
  }

  /** Removes the items of the next round from those that wait. */
  #next(): Waiting<Item, Result>[] {
    const { size } = this.#limits;
    const round: Waiting<Item, Result>[] = [];
    let taken = 0;
    let sum = 0;
    for (const each of this.#waiting) {
      if (isInTime(each)) {
        if (round.length >= this.#maxItems) break;
        if (size !== undefined && round.length > 0 && sum + each.size > size.most) break;
        round.push(each);
        sum += each.size;
      }
      taken += 1;
      this.#waitingSize -= each.size;
    }
    this.#waiting.splice(0, taken);
    return round;
  }

  async #settle(round: readonly Waiting<Item, Result>[]): Promise<void> {
    try {
      const work = () => this.#work(round.map(({ item }) => item));
      const [first, ...others] = round;
      const isOfOneCall = others.length === 0 && first?.context !== undefined;
      const results = await (isOfOneCall ? withContext(first.context!, work) : work());
      for (const [index, { resolve }] of round.entries()) resolve(results[index] as Result);
      this.#maxItems = Math.min(this.#limits.items, 2 * this.#maxItems);
    } catch (error) {
      const tookTooLong = error instanceof TimedOut;
      const half = Math.ceil(round.length / 2);
      if (tookTooLong) this.#maxItems = Math.min(this.#maxItems, half);
      if (round.length > 1 && (tookTooLong || this.#limits.isOfItem?.(error) === true)) {
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
