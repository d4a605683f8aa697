const longCallMs = 1_000;
/** How many long calls there may be for each slot. */
const longPerSlot = 3;

/**
 * Limits the concurrent calls of a process to one network. A call that takes longer than a second gives its slot to the next one, so that
 * recipients for whom the network doesn't answer don't hold up everybody else's messages; there may be three times as many of these long
 * calls as there are slots.
 */
export class Slots {
  readonly size: number;
  #used = 0;
  #long = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(size: number) {
    this.size = size;
  }

  /** The number of calls that could begin now. */
  get free(): number {
    return Math.max(0, this.size - this.#used - this.#waiting.length);
  }

  /** Runs `call` once a slot is free, in the order of the requests. */
  async run<T>(call: () => Promise<T>): Promise<T> {
    if (this.#used >= this.size) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
    else this.#used += 1;
    let isLong = false;
    const timer = setTimeout(() => {
      if (this.#long >= this.size * longPerSlot) return;
      isLong = true;
      this.#long += 1;
      this.#leave();
    }, longCallMs);
    try {
      return await call();
    } finally {
      clearTimeout(timer);
      if (isLong) this.#long -= 1;
      else this.#leave();
    }
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#used -= 1;
    else next();
  }
}
