export interface RateFloorOptions {
  /** The window over which bytes are counted; also the longest silence. */
  window: number;
  /** The minimum rate in bytes per second. */
  rate: number;
}

/**
 * The minimum rate at which a client must send or read a body, like Apache's mod_reqtimeout: 1 KiB/s over each 20 s. At that rate even the
 * smallest chunk, 5 MiB, would take longer than the hour that a call may take.
 */
export const minBodyRate: RateFloorOptions = { window: 20_000, rate: 1_024 };

/**
 * The minimum rate at which a client must read a download. The client's kernel buffers up to some megabytes and asks for more only when a
 * third is consumed, so a reader at 20 KiB/s seems to read nothing for half a minute.
 */
export const minDownloadRate: RateFloorOptions = { window: 60_000, rate: 2_048 };

/**
 * Watches whether a client sends or reads at least `rate` bytes per second in each window. Time in which something other than the client is
 * waited for doesn't count (`pause`).
 */
export class RateFloor {
  readonly #window: number;
  readonly #least: number;
  readonly #onSlow: () => void;
  #timer: NodeJS.Timeout | undefined;
  #bytes = 0;
  /** When the current pause began. */
  #pausedAt: number | undefined;
  /** The time of this window that doesn't count, in milliseconds. */
  #paused = 0;

  /** @param onSlow called once, if the client is too slow */
  constructor({ window, rate }: RateFloorOptions, onSlow: () => void) {
    this.#window = window;
    this.#least = (rate * window) / 1_000;
    this.#onSlow = onSlow;
    this.#begin(window);
  }

  count(bytes: number): void {
    this.#bytes += bytes;
  }

  /** Something other than the client is being waited for. */
  pause(): void {
    this.#pausedAt ??= performance.now();
  }

  /** The client is being waited for again. */
  resume(): void {
    if (this.#pausedAt === undefined) return;
    this.#paused += performance.now() - this.#pausedAt;
    this.#pausedAt = undefined;
  }

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
    // The paused time is added to this window.
    if (left >= 1) this.#begin(left);
    else if (this.#bytes < this.#least) this.#onSlow();
    else {
      this.#bytes = 0;
      this.#begin(this.#window);
    }
  }
}
