import { HubError } from './errors.ts';

/** So many failures in a row mean that it is away. */
const mostFailures = 5;
/** Milliseconds from one try to the next while it is away. */
const usualPause = 1_000;

/**
 * Stops asking what doesn't answer, so that nobody waits in vain and it isn't kept busy: after five failures in a row all work
 * fails at once, as the last did, but for one try a second, which shows that it is back.
 */
export class Breaker {
  readonly #reason: string;
  readonly #pause: number;
  #failures = 0;
  #last: HubError | undefined;
  #nextTry = 0;

  /** @param reason that of the HubErrors which mean that it is away */
  constructor(reason: string, { pause = usualPause } = {}) {
    this.#reason = reason;
    this.#pause = pause;
  }

  /** @throws what `work` throws, or without doing it HubError UNAVAILABLE with the reason */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#last !== undefined && this.#failures >= mostFailures) {
      const now = performance.now();
      if (now < this.#nextTry) {
        const { kind, reason, message, retryAfter } = this.#last;
        throw new HubError(kind, reason, message, { retryAfter, cause: this.#last.cause });
      }
      this.#nextTry = now + this.#pause;
    }
    try {
      const result = await work();
      this.#failures = 0;
      return result;
    } catch (error) {
      if (error instanceof HubError && error.reason === this.#reason) this.#failed(error);
      // Any other answer is one.
      else this.#failures = 0;
      throw error;
    }
  }

  #failed(error: HubError): void {
    this.#failures += 1;
    this.#last = error;
    if (this.#failures === mostFailures) this.#nextTry = performance.now() + this.#pause;
  }
}
