import { setTimeout as sleep } from 'node:timers/promises';
import { within } from '#lib/deadline.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import type { Connector, DeliveryContext, DeliveryToMake } from './connector.ts';

/** How a delivery ended. */
export interface Outcome {
  delivered: boolean;
  /** How often the network was tried. */
  attempts: number;
  /** Why it failed, for people; empty if it didn't. */
  error: string;
  endedAt: Date;
}

/** Which round of a delivery something is about: 0 at first, 1 more for each time that its message was replayed. */
export interface Round {
  replay: number;
}

/** The network has it, and reports later how it ended. */
export interface Taken {
  taken: true;
  attempts: number;
}

/** An attempt that failed, and after which there will be another one. */
export interface FailedAttempt {
  /** How many there have been. */
  attempts: number;
  /** Why it failed, for people. */
  error: string;
  at: Date;
  nextAt: Date;
}

export interface Making extends Omit<DeliveryContext, 'signal'> {
  /** Asked before each attempt: false if it is not for us to make one any more. */
  mayTry: () => boolean;
  /** Ends the wait between two attempts. */
  halted: AbortSignal;
  /** How often it has been tried before. */
  attemptsBefore?: number;
  /** Told of each attempt that is not the last. */
  onFailure?: (attempt: FailedAttempt) => void;
}

/** Milliseconds between attempts, the wait doubling. */
const backoff = { first: 100, most: 3_000 };

/**
 * Sees a delivery through: tries until the network has it, refuses it for good, or the deadline has passed.
 *
 * @returns undefined if it was halted before an attempt: the delivery is still to be made
 */
export async function makeDelivery(
  connector: Connector,
  delivery: DeliveryToMake,
  { idempotencyKey, log, mayTry, halted, attemptsBefore = 0, onFailure }: Making,
): Promise<Outcome | Taken | undefined> {
  const deadline = delivery.deliverBy.getTime();
  const ended = (attempts: number, error = ''): Outcome => ({
    delivered: error === '',
    attempts,
    error: printable(error),
    endedAt: new Date(),
  });

  let passed = 'The delivery deadline had passed';
  let wait = backoff.first;
  for (let attempts = attemptsBefore; ;) {
    if (Date.now() >= deadline) return ended(attempts, passed);
    if (!mayTry()) return undefined;
    attempts += 1;
    let pause: number;
    let failure: HubError;
    try {
      const taken = await attempt(connector, delivery, { idempotencyKey, log });
      return taken === 'taken' ? { taken: true, attempts } : ended(attempts);
    } catch (error) {
      if (!(error instanceof HubError)) {
        log.error({ err: error, recipient_id: delivery.recipientId }, `${connector.title} failed as it should not`);
        return ended(attempts, `${connector.title} failed in an unexpected way`);
      }
      if (!isTransient(error)) return ended(attempts, error.message || error.reason);
      failure = error;
      passed = `The delivery deadline had passed; the last answer was: ${error.message}`;
      // All that were sent away together are not to come back together.
      pause = wait * (0.5 + Math.random() / 2) + (error.retryAfter ?? 0) * 1_000;
      const line = { err: error, recipient_id: delivery.recipientId, attempts };
      log[attempts === 1 ? 'warn' : 'debug'](line, `${connector.title} could not take a message; trying again`);
    }
    wait = Math.min(wait * 2, backoff.most);
    const at = new Date();
    const nextAt = new Date(at.getTime() + pause);
    // Nothing can come of a wait until after the deadline.
    if (nextAt.getTime() >= deadline) return ended(attempts, passed);
    onFailure?.({ attempts, error: printable(failure.message), at, nextAt });
    await sleep(pause, undefined, { signal: halted }).catch(() => {});
  }
}

/** A connector may quote its network: PostgreSQL takes no NUL in a text, and nobody reads a page of reasons. */
export function printable(reason: string): string {
  return reason.replaceAll('\0', '').slice(0, 1_000);
}

/** Tries once, until the deadline at most, whether or not the connector heeds its signal. */
async function attempt(
  connector: Connector,
  delivery: DeliveryToMake,
  context: Omit<DeliveryContext, 'signal'>,
): Promise<'taken' | void> {
  const controller = new AbortController();
  const delivering = connector.deliver(delivery, { ...context, signal: controller.signal });
  return within(delivery.deliverBy.getTime() - Date.now(), delivering, () => {
    controller.abort();
    return new HubError('DEADLINE_EXCEEDED', 'DELIVERY_DEADLINE', `${connector.title} did not answer in time`);
  });
}
