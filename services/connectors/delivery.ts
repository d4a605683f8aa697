import { isTransient, type HubError } from '#lib/errors.ts';
import { backoffMs } from '#lib/backoff.ts';

/**
 * How far a delivery has come in its newest round:
 * - `pending`: it is on the bus, and nobody has it;
 * - `claimed`: a process that has its event from the bus works on it;
 * - `waiting`: it is parked in the connectors' own tables, and its event is acknowledged;
 * - `taken`: the network has it, and reports later how it ended;
 * - `delivered`, `failed`: it has ended.
 */
export type State = 'pending' | 'claimed' | 'waiting' | 'taken' | 'delivered' | 'failed';

/**
 * What can happen to it: a process claims it; the claim is given back, or runs out; it is parked by whoever claimed it last;
 * the network takes it, has delivered it, or it fails for good; a process claims it for a later round.
 */
export type Happening = 'claim' | 'release' | 'park' | 'take' | 'deliver' | 'fail' | 'replay';

/**
 * The state that follows. What has ended stays as it is, save that a later round begins anew with what was not delivered. That a
 * delivery was taken, was delivered or has failed counts from whoever says so: also from a process whose claim has run out.
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

/** Which round of a delivery something is about: 0 at first, 1 more for each time that its message was replayed. */
export interface Round {
  replay: number;
}

/** How a delivery ended. */
export interface Outcome {
  delivered: boolean;
  /** How often the network was tried. */
  attempts: number;
  /** Why it failed, for people; empty if it didn't. */
  error: string;
  endedAt: Date;
}

export type EndedDelivery = DeliveryKey & Outcome & Round;

/** An attempt that failed, and after which there will be another one. */
export interface FailedAttempt {
  /** How many there have been. */
  attempts: number;
  /** Why it failed, for people. */
  error: string;
  at: Date;
  nextAt: Date;
}

/** What an attempt comes to, and what happens to the delivery by it. */
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
/** Milliseconds within which those come back that a network tells when: the less time one has left of these, the sooner. */
const spread = { over: 400, of: 60_000 };

/**
 * What follows from a failed attempt: another one later, or the end, if the failure is final or if the wait would last until after
 * the deadline.
 *
 * @param attempts how many there have been, this one included
 * Who isn't told when to come back waits longer each time. Who is told comes a little later than that: first those with the nearest
 * deadline, so that a network with a limit is given the oldest first.
 *
 * @param chance from 0 to 1: all that were sent away together are not to come back together
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

/** The end of a delivery whose deadline has passed. `lastAnswer` is that of the last attempt; empty if there was none. */
export function expired(attempts: number, lastAnswer: string, now: Date): Failure {
  const passed = 'The delivery deadline had passed';
  return failed(attempts, lastAnswer === '' ? passed : `${passed}; the last answer was: ${lastAnswer}`, now);
}

export function failed(attempts: number, error: string, now: Date): Failure {
  return { happening: 'fail', outcome: { delivered: false, attempts, error: printable(error), endedAt: now } };
}

/** A connector may quote its network: PostgreSQL takes no NUL in a text, and nobody reads a page of reasons. */
export function printable(reason: string): string {
  return reason.replaceAll('\0', '').slice(0, 1_000);
}
