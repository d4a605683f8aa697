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
  /** How many items one round has at most. */
  items: number;
  /** What the sizes of a round's items come to at most. An item that is larger has a round of its own. Not limited by default. */
  size?: { of: (item: Item) => number; most: number };
  /** How many rounds run at once; one by default. */
  atOnce?: number;
  /**
   * The shortest time between the beginnings of two rounds, in milliseconds; none by default. After a quiet moment an item is worked on
   * at once; while more come, a round waits for others, unless it is full.
   */
  interval?: number;
  /**
   * How many items may wait for their round, and what their sizes may come to; whatever comes then is refused. By default as many as
   * make up fifty rounds.
   */
  waiting?: { items: number; size?: number };
  /**
   * Whether an error may be that of a single item. Then the round is done again in halves, until those that fail are found. By default
   * all have failed with their round. One that took too long (`TimedOut` of lib/errors) is always done again in halves.
   */
  isOfItem?: (error: unknown) => boolean;
}

const roundsThatMayWait = 50;

/**
 * Does work in rounds: what comes while one runs is the next one. So a single item is worked on at once, and under load many
 * share what each would cost alone, a commit above all. A round of one item belongs to the call that asks for it, with its request id
 * and its deadline; a round of several belongs to none. What waits beyond its call's deadline is not begun any more.
 */
export class Rounds<Item, Result> {
  readonly #work: (items: readonly Item[]) => Promise<readonly Result[]>;
  readonly #limits: RoundLimits<Item>;
  readonly #mayWait: { items: number; size: number };
  #waiting: Waiting<Item, Result>[] = [];
  #waitingSize = 0;
  #running = 0;
  #began = Number.NEGATIVE_INFINITY;
  /** How many items a round has at the moment: fewer than it may after one that took too long, until rounds work again. */
  #most: number;
  /** What ends the pauses before rounds. */
  readonly #pauses = new Set<() => void>();
  #stopped = false;
  #idle = Promise.withResolvers<void>();

  /** @param work returns a result for each item, in their order; if it fails, all of them have failed */
  constructor(work: (items: readonly Item[]) => Promise<readonly Result[]>, limits: RoundLimits<Item>) {
    this.#work = work;
    this.#limits = limits;
    this.#most = limits.items;
    const { items, size, waiting } = limits;
    this.#mayWait = {
      items: waiting?.items ?? roundsThatMayWait * items,
      size: waiting?.size ?? roundsThatMayWait * (size?.most ?? Infinity),
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
    const { items: most, size: mostSize } = this.#mayWait;
    const isTooMuch = this.#waiting.length >= most || (this.#waiting.length > 0 && this.#waitingSize + size > mostSize);
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

  /** Waits until nothing is left to do, of what came before and of what comes meanwhile. */
  async drain(): Promise<void> {
    while (this.#running > 0) {
      this.#endPauses();
      await this.#idle.promise;
    }
  }

  /** Does what has come, and refuses whatever comes from now on. */
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

  /** Takes those out that the next round has. */
  #next(): Waiting<Item, Result>[] {
    const { size } = this.#limits;
    const round: Waiting<Item, Result>[] = [];
    let taken = 0;
    let sum = 0;
    for (const each of this.#waiting) {
      if (isInTime(each)) {
        if (round.length >= this.#most) break;
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
      this.#most = Math.min(this.#limits.items, 2 * this.#most);
    } catch (error) {
      const tookTooLong = error instanceof TimedOut;
      const half = Math.ceil(round.length / 2);
      if (tookTooLong) this.#most = Math.min(this.#most, half);
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

/** Whether somebody still waits for it. If not, it is rejected: it wasn't done. */
function isInTime<Item, Result>({ context, reject }: Waiting<Item, Result>): boolean {
  if (context?.deadline === undefined || Date.now() < context.deadline) return true;
  reject(new HubError('DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'The call took longer than its deadline'));
  return false;
}
