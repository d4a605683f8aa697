import { HubError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { Shares } from '../shares.ts';

/**
 * The kinds of calls that take a place. Each kind has its own places, so that calls of one kind never make those of another be refused:
 *
 * - `short`: unary calls with the usual timeout.
 * - `long`: streams, and unary calls whose proto gives them more time (`timeout_seconds`).
 * - `listening`: calls that wait for events: their protos say that they are `standing`.
 * - `opening`: streams whose first message has not arrived. After it they take a `long` place.
 * - `unknown`: calls whose API key is being looked up. After it they take a place of their own kind.
 * - `standing`: streams that stay open and are idle most of the time: health and reflection.
 */
export type PlaceKind = 'short' | 'long' | 'listening' | 'opening' | 'unknown' | 'standing';

/** The reasons of the two errors of `take`. */
const refusals = { full: 'OVERLOADED', share: 'TOO_MANY_CALLS' } as const;

/** The errors of calls for which there is no place. */
export const placeRefusals: readonly Pick<HubError, 'kind' | 'reason'>[] = [
  { kind: 'UNAVAILABLE', reason: refusals.full },
  { kind: 'RESOURCE_EXHAUSTED', reason: refusals.share },
];

/** Streams that wait for their first message cost almost nothing, so there are this many times more places for them. */
const openingFactor = 10;
/** So do calls that have next to nothing to do. */
const listeningFactor = 20;

/** Between two log lines about refused calls: a line for each would add to the overload. */
const logPauseMs = 10_000;

/** The places of a server for calls, shared fairly by clients (`Shares`). */
export class Places {
  readonly #log: Logger;
  readonly #shares: Record<PlaceKind, Shares>;
  readonly #refused = { full: 0, share: 0 };
  #loggedAt = Number.NEGATIVE_INFINITY;
  /** Counts the calls that services make for themselves. */
  #ownWork = 0;

  /** @param count the places of each kind, at least 2; `opening` has ten times as many, `listening` twenty times */
  constructor(count: number, log: Logger) {
    this.#log = log;
    const shares = () => new Shares(count);
    const opening = new Shares(openingFactor * count);
    const listening = new Shares(listeningFactor * count);
    this.#shares = { short: shares(), long: shares(), listening, opening, unknown: shares(), standing: shares() };
  }

  /** @throws HubError UNAVAILABLE `OVERLOADED` if all places of that kind are in use */
  requireRoom(kind: PlaceKind): void {
    if (!this.#shares[kind].isFull) return;
    this.#countRefusal('full');
    throw new HubError('UNAVAILABLE', refusals.full, 'Too many calls at once', { retryAfter: 1 });
  }

  /**
   * Takes a place.
   *
   * @param client the client that the call is for; undefined for a service's own work, which is for everybody and only limited by the
   *   number of places
   * @returns a function that gives the place back
   * @throws HubError UNAVAILABLE `OVERLOADED` if there is none, RESOURCE_EXHAUSTED `TOO_MANY_CALLS` if the client has its share
   */
  take(kind: PlaceKind, client: string | undefined): () => void {
    this.requireRoom(kind);
    const release = this.#shares[kind].take(client ?? `own work ${(this.#ownWork += 1)}`);
    if (release !== undefined) return release;
    this.#countRefusal('share');
    const message = 'Too many calls of yours are running at once: wait for some of them to end';
    throw new HubError('RESOURCE_EXHAUSTED', refusals.share, message, { retryAfter: 1 });
  }

  #countRefusal(why: keyof typeof refusals): void {
    this.#refused[why] += 1;
    if (performance.now() - this.#loggedAt < logPauseMs) return;
    this.#loggedAt = performance.now();
    const { full, share } = this.#refused;
    this.#log.warn(
      { [refusals.full]: full, [refusals.share]: share },
      'there is no place for some calls: they are refused',
    );
    this.#refused.full = 0;
    this.#refused.share = 0;
  }
}

/** Whether a call was refused because there was no place for it. */
export function isWithoutPlace({ reason }: HubError): boolean {
  return reason === refusals.full || reason === refusals.share;
}
