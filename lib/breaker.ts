import { HubError } from './errors.ts';
import { gauge } from './metrics.ts';

const openBreakers = gauge(
  'breaker_open',
  'How many circuit breakers are open: work behind them fails at once, until the other side has answered again',
  ['breaker'],
);

/** A failure of work that was never sent, so that it certainly has no effect. Other failures leave that open. */
export class NotTried extends HubError {}

/** A failure that the other side answered with: it is available, so a breaker doesn't count it. */
export class Answered extends HubError {}

/** This many failures in a row open the breaker, unless all of them came within `minSpanMs`: that may be a short burst of load. */
const maxFailures = 5;

export interface BreakerOptions {
  /** For metrics. */
  name: string;
  /** The reason of the HubErrors that count as failures. */
  reason: string;
  /** 2,000 by default. */
  minSpanMs?: number;
  /** While the breaker is open, one call is let through this often; every 1,000 ms by default. */
  pauseMs?: number;
}

/**
 * A circuit breaker: after five failures in a row over at least two seconds it opens, and all work fails at once with the last error. One
 * call a second is let through to find out whether the other side is back.
 */
export class Breaker {
  readonly #name: string;
  readonly #reason: string;
  readonly #minSpanMs: number;
  readonly #pauseMs: number;
  #failures = 0;
  #failingSince = 0;
  /** The last failure, while the breaker is open. */
  #away: HubError | undefined;
  #nextTry = 0;

  constructor({ name, reason, minSpanMs = 2_000, pauseMs = 1_000 }: BreakerOptions) {
    this.#name = name;
    this.#reason = reason;
    this.#minSpanMs = minSpanMs;
    this.#pauseMs = pauseMs;
    openBreakers.inc({ breaker: name }, 0);
  }

  /** @throws what `work` throws; NotTried, UNAVAILABLE with the reason, if the breaker is open and `work` was not called */
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
      // Any other error is an answer: the other side is available.
      else this.#works();
      throw error;
    }
  }

  #works(): void {
    this.#failures = 0;
    if (this.#away !== undefined) openBreakers.dec({ breaker: this.#name });
    this.#away = undefined;
  }

  #failed(error: HubError): void {
    const now = performance.now();
    if (this.#failures === 0) this.#failingSince = now;
    this.#failures += 1;
    if (this.#failures < maxFailures || now - this.#failingSince < this.#minSpanMs) return;
    if (this.#away === undefined) {
      this.#nextTry = now + this.#pauseMs;
      openBreakers.inc({ breaker: this.#name });
    }
    this.#away = error;
  }
}
