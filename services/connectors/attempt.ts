import { hubDate, hubTime, ownTimeOf } from '#lib/clock.ts';
import { within } from '#lib/deadline.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { ageHistogram, beginAtZero, counter, durationHistogram } from '#lib/metrics.ts';
import { withTracedContext } from '#lib/tracing.ts';
import type { Connector, DeliveryToMake } from './connector.ts';
import { afterFailure, expired, failed, type Result, type Round } from './delivery.ts';

const attemptsMade = counter('delivery_attempts_total', 'How often a network was tried', ['channel']);

const attemptDuration = durationHistogram('delivery_attempt_duration_seconds', 'What a network takes to answer', [
  'channel',
]);
const attemptedAge = ageHistogram(
  'delivery_attempted_age_seconds',
  'From the acceptance of a message to the first attempt of a delivery, without replays',
  ['channel'],
);

/** A delivery with all that an attempt needs. */
export interface Job extends Round {
  delivery: DeliveryToMake;
  /** When its message was accepted, if its event says so. */
  acceptedAt?: Date | undefined;
  /** UUID that identifies the delivery to the network. */
  idempotencyKey: string;
  /** How often it has been tried before. */
  attempts: number;
  /** Why the last attempt failed; empty if there was none. */
  error: string;
  /** Request id of the call that caused it. */
  callId: string;
}

export interface AttemptOptions {
  connector: Connector;
  log: Logger;
  /** How long one attempt may take, in milliseconds; the delivery's deadline may leave less. */
  timeout: number;
}

export type Attempt = (job: Job) => Promise<Result>;

/**
 * Makes a function that tries a delivery once and returns the result. It never throws, and takes no longer than `timeout`, whether or not the
 * connector observes its signal. Past the deadline the network isn't called.
 */
export function attempting({ connector, log, timeout }: AttemptOptions): Attempt {
  const { name: channel, title } = connector;

  beginAtZero(attemptsMade, { channel: [channel] });
  attemptDuration.zero({ channel });
  attemptedAge.zero({ channel });

  async function ask({ delivery, idempotencyKey, replay }: Job): Promise<'taken' | void> {
    const calledOff = new AbortController();
    const timedOut = () => new HubError('DEADLINE_EXCEEDED', 'NO_ANSWER', `${title} did not answer in time`);
    try {
      const delivering = connector.deliver(delivery, { idempotencyKey, replay, signal: calledOff.signal, log });
      return await within(Math.min(timeout, delivery.deliverBy.getTime() - hubTime()), delivering, () => {
        calledOff.abort();
        return timedOut();
      });
    } catch (error) {
      // After the abort the connector may throw anything.
      throw calledOff.signal.aborted ? timedOut() : error;
    }
  }

  async function tryOnce(job: Job): Promise<Result> {
    const { delivery } = job;
    const { recipientId, deliverBy: deadline } = delivery;
    if (hubTime() >= deadline.getTime()) return expired(job.attempts, job.error, hubDate());
    const attempts = job.attempts + 1;
    attemptsMade.inc({ channel });
    if (attempts === 1 && job.replay === 0 && job.acceptedAt !== undefined) {
      attemptedAge.observe({ channel }, (hubTime() - job.acceptedAt.getTime()) / 1_000);
    }
    const began = performance.now();
    try {
      const taken = await ask(job);
      if (taken === 'taken') return { happening: 'take', attempts };
      return { happening: 'deliver', outcome: { delivered: true, attempts, error: '', endedAt: hubDate() } };
    } catch (error) {
      const now = hubDate();
      if (!(error instanceof HubError)) {
        log.error({ err: error, recipient_id: recipientId }, `The connector of ${title} threw an unexpected error`);
        return failed(attempts, `${title} failed in an unexpected way`, now);
      }
      const result = afterFailure(error, { attempts, now, deadline, chance: Math.random() });
      if (result.happening === 'park') {
        const line = { err: error, recipient_id: recipientId, attempts };
        log[attempts === 1 ? 'warn' : 'debug'](line, `${title} could not take a message; trying again`);
      }
      return result;
    } finally {
      attemptDuration.observe({ channel }, (performance.now() - began) / 1_000);
    }
  }

  return (job) => {
    const { messageId, recipientId, deliverBy } = job.delivery;
    const context = { requestId: job.callId, messageId, deadline: ownTimeOf(deliverBy) };
    const attributes = { 'messaging.message.id': messageId };
    return withTracedContext(context, `deliver ${channel}`, { kind: 'client', attributes }, async () => {
      const result = await tryOnce(job);
      if (result.happening === 'fail') {
        const { attempts, error: reason } = result.outcome;
        log.warn({ recipient_id: recipientId, channel, attempts, reason }, 'delivery failed');
      }
      return result;
    });
  };
}
