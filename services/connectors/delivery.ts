import { isTransient, type HubError } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';

/**
 * The state of a delivery in its newest round:
 * - `pending`: its event is on the bus, and no process has claimed it;
 * - `claimed`: a process that has its event from the bus works on it;
 * - `waiting`: it is parked in the connectors' own tables, and its event is acknowledged;
 * - `taken`: the network has it, and reports later how it ended;
 * - `delivered`, `failed`: it has ended.
 */
export type State = 'pending' | 'claimed' | 'waiting' | 'taken' | 'delivered' | 'failed';

/**
 * The events of a delivery: a process claims it; the claim is released, or expires; its last claimant parks it; the network accepts it,
 * delivers it, or it fails for good; a process claims it for a later round.
 */
export type Happening = 'claim' | 'release' | 'park' | 'take' | 'deliver' | 'fail' | 'replay';

/**
 * The next state. An ended delivery stays as it is, except that a later round reopens a failed one. That a delivery was accepted, was
 * delivered or has failed counts from any process, also from one whose claim has expired.
 */
export const nextState: Record<State, Record<Happening, State>> = {
  pending: {
    claim: 'claimed',
    release: 'pending',
    park: 'waiting',
    take: 'taken',
    deliver: 'delivered',
    fail: 'failed',
    replay: 'claimed',
  },
  claimed: {
    claim: 'claimed',
    release: 'pending',
    park: 'waiting',
    take: 'taken',
    deliver: 'delivered',
    fail: 'failed',
    replay: 'claimed',
  },
  waiting: {
    claim: 'waiting',
    release: 'waiting',
    park: 'waiting',
    take: 'taken',
    deliver: 'delivered',
    fail: 'failed',
    replay: 'claimed',
  },
  taken: {
    claim: 'taken',
    release: 'taken',
    park: 'taken',
    take: 'taken',
    deliver: 'delivered',
    fail: 'failed',
    replay: 'claimed',
  },
  delivered: {
    claim: 'delivered',
    release: 'delivered',
    park: 'delivered',
    take: 'delivered',
    deliver: 'delivered',
    fail: 'delivered',
    replay: 'delivered',
  },
  failed: {
    claim: 'failed',
    release: 'failed',
    park: 'failed',
    take: 'failed',
    deliver: 'failed',
    fail: 'failed',
    replay: 'claimed',
  },
};

/** What identifies a delivery. */
export interface DeliveryKey {
  messageId: string;
  recipientId: string;
  channel: string;
}

/** The round of a delivery: 0 at first, increased by 1 whenever its message is replayed. */
export interface Round {
  replay: number;
}

/** How a delivery ended. */
export interface Outcome {
  delivered: boolean;
  /** The number of attempts. */
  attempts: number;
  /** Why it failed, for people; empty if it didn't. */
  error: string;
  endedAt: Date;
}

export type EndedDelivery = DeliveryKey & Outcome & Round;

/** A failed attempt that will be followed by another one. */
export interface FailedAttempt {
  /** The number of attempts so far. */
  attempts: number;
  /** Why it failed, for people. */
  error: string;
  at: Date;
  nextAt: Date;
}

/** The result of an attempt, with the event of the delivery that it causes. */
export type Result =
  | Failure
  | { happening: 'deliver'; outcome: Outcome }
  | { happening: 'take'; attempts: number }
  | { happening: 'park'; attempt: FailedAttempt };

export interface Failure {
  happening: 'fail';
  outcome: Outcome;
}

const backoff = { firstMs: 100, maxMs: 3_000 };
/**
 * Retries at a time that the network names are spread over `over` milliseconds: deliveries with less than `of` milliseconds left come
 * earlier.
 */
const spread = { over: 400, of: 60_000 };

/**
 * Decides what follows a failed attempt: another one later, or the end if the failure is final or the deadline comes before the next
 * attempt.
 *
 * Without a time from the network, the wait grows with each attempt. With one, the next attempt comes a little later than that, first the
 * deliveries with the nearest deadline, so that a network with a rate limit gets the oldest first.
 *
 * @param attempts the number of attempts, including this one
 * @param chance a random number from 0 to 1, so that deliveries that were refused together don't all come back together
 */
export function afterFailure(
  error: HubError,
  { attempts, now, deadline, chance }: { attempts: number; now: Date; deadline: Date; chance: number },
): Result {
  if (!isTransient(error)) return failed(attempts, error.message || error.reason, now);
  const left = Math.min(deadline.getTime() - now.getTime(), spread.of);
  const wait =
    error.retryAfter === undefined
      ? backoffMs(backoff, attempts, 1 - chance)
      : error.retryAfter * 1_000 + (spread.over * left) / spread.of + 10 * chance;
  const nextAt = new Date(now.getTime() + wait);
  if (nextAt >= deadline) return expired(attempts, error.message, now);
  return { happening: 'park', attempt: { attempts, error: printable(error.message), at: now, nextAt } };
}

/** The end of a delivery whose deadline has passed. `lastAnswer` is the error of the last attempt; empty if there was none. */
export function expired(attempts: number, lastAnswer: string, now: Date): Failure {
  const passed = 'The delivery deadline had passed';
  return failed(attempts, lastAnswer === '' ? passed : `${passed}; the last answer was: ${lastAnswer}`, now);
}

export function failed(attempts: number, error: string, now: Date): Failure {
  return { happening: 'fail', outcome: { delivered: false, attempts, error: printable(error), endedAt: now } };
}

/** A reason that can be stored: without NUL, which PostgreSQL refuses, and not too long. It may quote the network's answer. */
export function printable(reason: string): string {
  return reason.replaceAll('\0', '').slice(0, 1_000);
}
