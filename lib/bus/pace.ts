const defaultIntervalMs = 30;
/**
 * How long a running round delays the next one, so that the events that come meanwhile share it. A round that takes longer doesn't delay
 * the next one any more.
 */
const maxDelayMs = 200;

/**
 * Decides when a consumer may begin its next round: at once after a pause without events; while events keep coming, once per interval, and
 * not before the last round is over, unless that takes long. So events are handled together, at hardly more than the cost of one.
 *
 * After a full round, which has left events behind, the next one begins as soon as that one is over: otherwise the interval would limit how
 * many events a second are handled at most, and a consumer with less would fall behind for ever.
 */
export class Pace {
  readonly #interval: number;
  readonly #changed: () => void;
  #began = -Infinity;
  #running: Promise<void> | undefined;
  #wasFull = false;

  /** @param changed called when the next round may begin earlier than `wait` said */
  constructor(interval = defaultIntervalMs, changed: () => void) {
    this.#interval = interval;
    this.#changed = changed;
  }

  /** Milliseconds until the next round may begin. */
  wait(): number {
    if (this.#running === undefined && this.#wasFull) return 0;
    const shortest = this.#running === undefined ? this.#interval : Math.max(this.#interval, maxDelayMs);
    return Math.max(0, this.#began + shortest - performance.now());
  }

  /** Restarts the interval without a round: there were no events. */
  rest(): void {
    this.#began = performance.now();
    // While a round is running, its partitions are not free: that nothing was found doesn't mean that nothing is left.
    if (this.#running === undefined) this.#wasFull = false;
  }

  /**
   * A round has begun; it is over when `round` settles.
   *
   * @param isFull whether it has as many events as a round may have
   */
  begin(round: Promise<void>, isFull: boolean): void {
    this.#began = performance.now();
    this.#running = round;
    this.#wasFull = isFull;
    void round.then(() => {
      if (this.#running !== round) return;
      this.#running = undefined;
      this.#changed();
    });
  }
}
