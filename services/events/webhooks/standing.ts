import { backoffMs } from '#lib/backoff.ts';
import { hubTime } from '#lib/clock.ts';
import type { Schedule } from './schedule.ts';
import type { Sent } from './sender.ts';

/** How an endpoint has taken what it was sent last. */
export interface Standing {
  /** Failures in a row, of whatever was sent. */
  failures: number;
  failingSince: Date | null;
  /** Nothing is sent before. */
  holdUntil: Date | null;
}

/** Of an endpoint that has taken the last event. */
export const wellStanding: Standing = { failures: 0, failingSince: null, holdUntil: null };

/** The standing after one more failure: after several the whole endpoint is held, and a Retry-After is honoured for all of it. */
export function afterFailure(standing: Standing, { at, retryAfterMs = 0 }: Sent, schedule: Schedule): Standing {
  const failures = standing.failures + 1;
  const tooMany = failures - schedule.failuresBeforeHold + 1;
  const holdMs = Math.max(
    tooMany > 0 ? backoffMs(schedule.hold, tooMany) : 0,
    Math.min(retryAfterMs, schedule.maxRetryAfterMs),
  );
  const heldUntil = standing.holdUntil?.getTime() ?? 0;
  return {
    failures,
    failingSince: standing.failingSince ?? at,
    holdUntil: holdMs > 0 ? new Date(Math.max(hubTime() + holdMs, heldUntil)) : standing.holdUntil,
  };
}

/** When to send an event again that has failed so often. */
export function nextAttemptAt({ retryAfterMs = 0 }: Sent, failures: number, schedule: Schedule): Date {
  const { retry, maxRetryAfterMs } = schedule;
  return new Date(hubTime() + Math.max(backoffMs(retry, failures), Math.min(retryAfterMs, maxRetryAfterMs)));
}
