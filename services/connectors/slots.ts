/** Milliseconds after which a call counts as a long one. */
const longCall = 1_000;
/** How many long calls there may be for each slot, before they count again. */
const longPerSlot = 3;

/**
 * A bound on the calls of a process to one network at once. A call that takes longer than a second gives its slot to the next one
 * that waits, so that the recipients whom a network is silent about don't hold up everybody else's messages; such long calls may
 * be three times as many as there are slots.
 */
export class Slots {
  readonly most: number;
  #used = 0;
  #long = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(most: number) {
    this.most = most;
  }

  /** How many calls could begin at once. */
  get free(): number {
    return Math.max(0, this.most - this.#used - this.#waiting.length);
  }

  /** Does `call` once there is a slot for it, those that have waited longer first. */
  async run<T>(call: () => Promise<T>): Promise<T> {
    if (this.#used >= this.most) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
    else this.#used += 1;
    let isLong = false;
    const timer = setTimeout(() => {
      if (this.#long >= this.most * longPerSlot) return;
      isLong = true;
      this.#long += 1;
      this.#leave();
    }, longCall);
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
