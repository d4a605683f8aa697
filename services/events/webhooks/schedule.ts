import type { Backoff } from '#lib/backoff.ts';

/** When a webhook is sent something again, and when not any more. All in milliseconds. */
export interface Schedule {
  /** For one request with its answer. */
  timeoutMs: number;
  /** Between the attempts of an event. */
  retry: Backoff;
  /** An event is given up once it has failed for so long; an endpoint is paused once everything has. */
  giveUpMs: number;
  /** After so many failures in a row the whole endpoint is left alone for a while, whatever is due. */
  failuresBeforeHold: number;
  hold: Backoff;
  /** The longest time that a Retry-After is honoured for. */
  maxRetryAfterMs: number;
  /** How long a process has an endpoint to itself without saying so again, and how often it does say so. */
  leaseMs: number;
  renewMs: number;
  /** How often processes look for work by themselves. */
  pollMs: number;
}

const second = 1_000;
const hour = 3_600 * second;

export const usualSchedule: Schedule = {
  timeoutMs: 15 * second,
  retry: { firstMs: 5 * second, maxMs: 4 * hour },
  giveUpMs: 72 * hour,
  failuresBeforeHold: 10,
  hold: { firstMs: second, maxMs: 300 * second },
  maxRetryAfterMs: 24 * hour,
  leaseMs: 6 * second,
  renewMs: 2 * second,
  pollMs: second,
};
