const defaultIntervalMs = 30;
/**
 * How long a running round delays the next one, so that the events that come meanwhile share it. A round that takes longer doesn't delay
 * the next one any more.
 */
const maxDelayMs = 200;

/**
 * Decides when a consumer may begin its next round: at once after a pause without events; while events keep coming, once per interval, and
 * not before the last round is over, unless that takes long. So events are handled together, at hardly more than the cost of one.
 */
export class Pace {
  readonly #interval: number;
  readonly #changed: () => void;
  #began = -Infinity;
  #running: Promise<void> | undefined;

  /** @param changed called when the next round may begin earlier than `wait` said */
  constructor(interval = defaultIntervalMs, changed: () => void) {
    this.#interval = interval;
    this.#changed = changed;
  }

  /** Milliseconds until the next round may begin. */
  wait(): number {
    const shortest = this.#running === undefined ? this.#interval : Math.max(this.#interval, maxDelayMs);
    return Math.max(0, this.#began + shortest - performance.now());
  }

  /** Restarts the interval without a round: there were no events. */
  rest(): void {
    this.#began = performance.now();
  }

  /** A round has begun; it is over when `round` settles. */
  begin(round: Promise<void>): void {
    this.rest();
    this.#running = round;
    void round.then(() => {
      if (this.#running !== round) return;
      this.#running = undefined;
      this.#changed();
    });
  }
}
