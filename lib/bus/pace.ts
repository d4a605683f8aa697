/** Milliseconds between the beginnings of two rounds, unless a consumer says otherwise. */
const usualInterval = 30;
/** Milliseconds that a round keeps the next one from beginning: what comes meanwhile shares that. One that is slower holds up nobody. */
const patience = 200;

/**
 * Says when a consumer may begin its next round: after a quiet moment at once; while more comes, once in an interval and not before
 * the last round is over, unless that takes long. So events are handled together, and a round costs hardly more than one event.
 */
export class Pace {
  readonly #interval: number;
  readonly #changed: () => void;
  #began = -Infinity;
  #running: Promise<void> | undefined;

  /** @param changed called when the next round may begin earlier than `wait` said */
  constructor(interval = usualInterval, changed: () => void) {
    this.#interval = interval;
    this.#changed = changed;
  }

  /** Milliseconds until the next round may begin. */
  wait(): number {
    const shortest = this.#running === undefined ? this.#interval : Math.max(this.#interval, patience);
    return Math.max(0, this.#began + shortest - performance.now());
  }

  /** There was nothing to begin a round with: it isn't looked for again at once. */
  rest(): void {
    this.#began = performance.now();
  }

  /** A round begins, which is over when `round` settles. */
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
