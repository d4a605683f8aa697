import { HubError } from './errors.ts';

/**
 * Says beside why something failed that it was certainly not done, and will not be later either: whoever does it never heard of it.
 * Of other failures that isn't known.
 */
export class NotTried extends HubError {}

/** A failure of something that did answer: it is not away, so a breaker does not count this against it. */
export class Answered extends HubError {}

/** So many failures in a row mean that it is away, unless all of them came at once: that may be a moment's load. */
const mostFailures = 5;
/** Milliseconds that they are spread over at least, and from one try to the next while it is away. */
const usual = { patience: 2_000, pause: 1_000 };

/**
 * Stops asking what doesn't answer, so that nobody waits in vain and it isn't kept busy: after five failures in a row, over two
 * seconds or more, all work fails at once, as the last did, but for one try a second, which shows that it is back.
 */
export class Breaker {
  readonly #reason: string;
  readonly #patience: number;
  readonly #pause: number;
  #failures = 0;
  #failingSince = 0;
  /** The last failure, once it counts as away. */
  #away: HubError | undefined;
  #nextTry = 0;

  /** @param reason that of the HubErrors which mean that it is away */
  constructor(reason: string, { patience = usual.patience, pause = usual.pause } = {}) {
    this.#reason = reason;
    this.#patience = patience;
    this.#pause = pause;
  }

  /** @throws what `work` throws, or without doing it NotTried, UNAVAILABLE with the reason */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#away !== undefined) {
      const now = performance.now();
      if (now < this.#nextTry) {
        const { kind, reason, message, retryAfter, cause } = this.#away;
        throw new NotTried(kind, reason, message, { retryAfter, cause });
      }
      this.#nextTry = now + this.#pause;
    }
    try {
      const result = await work();
      this.#works();
      return result;
    } catch (error) {
      const isAway = error instanceof HubError && error.reason === this.#reason && !(error instanceof Answered);
      if (isAway) this.#failed(error);
      // Any other answer is one.
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
    if (this.#failures < mostFailures || now - this.#failingSince < this.#patience) return;
    if (this.#away === undefined) this.#nextTry = now + this.#pause;
    this.#away = error;
  }
}
