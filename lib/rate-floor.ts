export interface RateFloorOptions {
  /** Milliseconds over which the bytes are counted, and after which a sender that is silent is given up. */
  window: number;
  /** Bytes in a second below which a sender is given up. */
  rate: number;
}

/**
 * The least that is expected of whoever sends a body or takes one, as Apache's mod_reqtimeout does it: no more than 20 s without
 * anything, and 1 KiB a second from then on. A chunk of 5 MiB, the smallest, would take longer than the hour that it may take.
 */
export const leastRate: RateFloorOptions = { window: 20_000, rate: 1_024 };

/**
 * The least that is expected of whoever reads a download. What a system holds for a connection is up to some megabytes, of which it
 * asks for more only when a third is gone: to us, a reader at 20 KiB/s is one that takes nothing for half a minute.
 */
export const leastTaken: RateFloorOptions = { window: 60_000, rate: 2_048 };

/**
 * Watches over how fast a client sends or takes bytes: in each window at least `rate` of them in a second, or it is given up. Time in
 * which not the client is waited for, but something else, doesn't count.
 */
export class RateFloor {
  readonly #window: number;
  readonly #least: number;
  readonly #onSlow: () => void;
  #timer: NodeJS.Timeout | undefined;
  #bytes = 0;
  /** When the pause began that lasts. */
  #pausedAt: number | undefined;
  /** Milliseconds of this window that don't count. */
  #paused = 0;

  /** Begins to watch. @param onSlow called once, when the client was too slow */
  constructor({ window, rate }: RateFloorOptions, onSlow: () => void) {
    this.#window = window;
    this.#least = (rate * window) / 1_000;
    this.#onSlow = onSlow;
    this.#begin(window);
  }

  count(bytes: number): void {
    this.#bytes += bytes;
  }

  /** From now on the client isn't waited for. */
  pause(): void {
    this.#pausedAt ??= performance.now();
  }

  /** From now on it is waited for again. */
  resume(): void {
    if (this.#pausedAt === undefined) return;
    this.#paused += performance.now() - this.#pausedAt;
    this.#pausedAt = undefined;
  }

  /** Watches no more. */
  stop(): void {
    clearTimeout(this.#timer);
  }

  #begin(milliseconds: number): void {
    this.#timer = setTimeout(() => this.#look(), milliseconds);
  }

  #look(): void {
    const isPaused = this.#pausedAt !== undefined;
    this.resume();
    if (isPaused) this.pause();
    const left = this.#paused;
    this.#paused = 0;
    // The time in which it was not waited for is given to it now.
    if (left >= 1) this.#begin(left);
    else if (this.#bytes < this.#least) this.#onSlow();
    else {
      this.#bytes = 0;
      this.#begin(this.#window);
    }
  }
}
