import { HubError } from './errors.ts';

/**
 * A failure of work that certainly was not done and will not be: it was never sent. Of other failures that isn't known.
 */
export class NotTried extends HubError {}

/** A failure that the other side answered with: it is not away, so a breaker doesn't count it. */
export class Answered extends HubError {}

/** So many failures in a row open the breaker, unless all of them came within `minSpanMs`: that may be a moment's load. */
const maxFailures = 5;
/** While the breaker is open, work is tried once every `pauseMs`. */
const defaults = { minSpanMs: 2_000, pauseMs: 1_000 };

/**
 * A circuit breaker: after five failures in a row, over two seconds or more, all work fails at once with the last error, save for one
 * try a second, which shows when the other side is back. So nobody waits in vain, and the other side isn't kept busy.
 */
export class Breaker {
  readonly #reason: string;
  readonly #minSpanMs: number;
  readonly #pauseMs: number;
  #failures = 0;
  #failingSince = 0;
  /** The last failure, once it counts as away. */
  #away: HubError | undefined;
  #nextTry = 0;

  /** @param reason of the HubErrors that count as failures */
  constructor(reason: string, { minSpanMs = defaults.minSpanMs, pauseMs = defaults.pauseMs } = {}) {
    this.#reason = reason;
    this.#minSpanMs = minSpanMs;
    this.#pauseMs = pauseMs;
  }

  /** @throws what `work` throws, or without doing it NotTried, UNAVAILABLE with the reason */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#away !== undefined) {
      const now = performance.now();
      if (now < this.#nextTry) {
        const { kind, reason, message, retryAfter, cause } = this.#away;
        throw new NotTried(kind, reason, message, { retryAfter, cause });
      }
      this.#nextTry = now + this.#pauseMs;
    }
    try {
      const result = await work();
      this.#works();
      return result;
    } catch (error) {
      const isAway = error instanceof HubError && error.reason === this.#reason && !(error instanceof Answered);
      if (isAway) this.#failed(error);
      // Any other error is an answer.
      else this.#works();
      throw error;
    }
  }

  #works(): void {
    this.#failures = 0;
    this.#away = undefined;
  }

  #failed(error: HubError): void {
    const now = performance.now();
    if (this.#failures === 0) this.#failingSince = now;
    this.#failures += 1;
    if (this.#failures < maxFailures || now - this.#failingSince < this.#minSpanMs) return;
    if (this.#away === undefined) this.#nextTry = now + this.#pauseMs;
    this.#away = error;
  }
}
