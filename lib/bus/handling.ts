import { hubTime } from '../clock.ts';
import { withContext } from '../context.ts';
import { HubError, isTimeout, isTransient, TimedOut } from '../errors.ts';
import type { Logger } from '../log.ts';
import { backoffMs } from '../backoff.ts';
import { pauseFor, retryUntilDone } from '../retry.ts';
import { deadLetterTopic, type Bus, type ConsumeOptions, type ReceivedEvent } from './bus.ts';

/** The events of one partition in a round. */
export interface PartitionBatch {
  partition: number;
  /** At least one, in order. */
  events: readonly ReceivedEvent[];
  /** Aborted once another consumer may have the partition: then no further event is handled. */
  lost: AbortSignal;
}

/** How far a batch has come. */
export interface Progress<B extends PartitionBatch> {
  batch: B;
  /** How many of its first events are settled and need not come again. */
  count: number;
}

/** What the engine provides for `roundHandler`. */
export interface RoundHandlerOptions<B extends PartitionBatch> {
  options: ConsumeOptions;
  log: Logger;
  publish: Bus['publish'];
  /**
   * Records the progress of several batches with one write. Lost batches are left out; `lost` is aborted of batches that turn out to be
   * lost. Retried until it succeeds.
   */
  commit: (progress: readonly Progress<B>[]) => Promise<void>;
  /** Aborted when the consumer should stop: then no further event is handled. */
  stopping: AbortSignal;
}

export interface RunningRound {
  /** Fulfilled once the round has been tried as a whole. After a failure its partitions go on separately. Never rejects. */
  triedTogether: Promise<void>;
  /** For each batch, whether all of it is settled: false if it was lost or the consumer stopped before its last event. */
  batches: Promise<boolean>[];
}

const defaultRetry = { attempts: 5, firstMs: 100, maxMs: 5_000 };
/** A partition whose events took longer than this has rounds of its own for a while. */
const slowHandlingMs = 2_000;
const apartMs = 10_000;
/** An event whose statement runs into its timeout this many times `retry.attempts` is given up. */
const timeoutsPerAttempt = 4;

/** `tooMuch`: handling took too long, and fewer events at once may succeed. */
type Outcome = 'handled' | 'interrupted' | 'tooMuch' | { error: unknown; attempts: number };

/**
 * Makes the function that handles rounds as `ConsumeOptions` promises: each event is handled, or goes to the dead letters.
 *
 * A round is tried as a whole. If that fails, its partitions go on separately, so that only a partition whose events fail has to wait. A
 * partition whose events were slow also goes on separately, since it would slow down the others again and again. Rounds of different
 * partitions may run at once, rounds of one partition may not.
 */
export function roundHandler<B extends PartitionBatch>(
  handler: RoundHandlerOptions<B>,
): (batches: readonly B[]) => RunningRound {
  const { options, log, publish, stopping } = handler;
  const { handle, group, batchSize = defaultBatchSize, retry = defaultRetry } = options;
  const topicOf = (events: readonly ReceivedEvent[]) => events[0]?.topic;
  /** Until when each partition has rounds of its own, by performance.now(). */
  const apartUntil = new Map<number, number>();

  const backOff = (failures: number, signal: AbortSignal) => pauseFor(backoffMs(retry, failures), signal);

  /** @throws what the handler throws */
  async function handleNow(events: readonly ReceivedEvent[], partitions: readonly number[]): Promise<void> {
    const begun = performance.now();
    try {
      const [first, second] = events;
      const isOfOneCall = first !== undefined && second === undefined;
      await (isOfOneCall ? withContext({ requestId: first.requestId }, () => handle(events)) : handle(events));
    } finally {
      const now = performance.now();
      if (now - begun > slowHandlingMs) for (const partition of partitions) apartUntil.set(partition, now + apartMs);
    }
  }

  /**
   * Handles events of one partition until that succeeds, fails for good or is interrupted.
   *
   * @param firstFailure the failure of an attempt that was already made with exactly these events
   * @param triesTogether how often several events are tried together before each is tried by itself
   */
  async function handleOrGiveUp(
    events: readonly ReceivedEvent[],
    signal: AbortSignal,
    firstFailure: { error: unknown } | undefined,
    triesTogether: number,
  ): Promise<Outcome> {
    const { partition } = events[0]!;
    const isAlone = events.length === 1;
    let known = firstFailure;
    let lastingFailures = 0;
    let timeouts = 0;
    for (let failures = 1; ; failures++) {
      let error: unknown;
      if (known === undefined) {
        if (signal.aborted) return 'interrupted';
        try {
          await handleNow(events, [partition]);
          return 'handled';
        } catch (thrown) {
          error = thrown;
        }
      } else {
        ({ error } = known);
        known = undefined;
      }
      if (!isTransient(error)) lastingFailures++;
      else if (isAlone && error instanceof TimedOut) timeouts++;
      const line = { err: error, topic: topicOf(events), group, partition, events: events.length, failures };
      if (failures === 1 || failures % 10 === 0) log.warn(line, 'events could not be handled; trying again');
      else log.debug(line, 'events could not be handled; trying again');
      if (lastingFailures >= (isAlone ? retry.attempts : triesTogether)) return { error, attempts: lastingFailures };
      if (timeouts >= retry.attempts * timeoutsPerAttempt) return { error, attempts: timeouts };
      if (!(await backOff(failures, signal))) return 'interrupted';
      if (!isAlone && isTimeout(error)) return 'tooMuch';
    }
  }

  /** Retries `work` until it succeeds. @returns false if the signal ended that */
  function mustSucceed(what: string, fields: object, signal: AbortSignal, work: () => Promise<void>): Promise<boolean> {
    return retryUntilDone(work, {
      backoff: retry,
      signal,
      onFailure: (error, failures) =>
        log.warn({ err: error, group, ...fields, failures }, `${what} failed; trying again`),
    });
  }

  async function moveToDeadLetters(
    event: ReceivedEvent,
    { error, attempts }: { error: unknown; attempts: number },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { topic, partition, ...plain } = event;
    const origin = { topic, partition };
    log.error(
      { err: error, ...origin, group, event: event.id, type: event.type, request_id: event.requestId },
      `event given up after ${attempts} attempts`,
    );
    const { onDeadLetter } = options;
    if (onDeadLetter !== undefined) {
      const tell = () => withContext({ requestId: event.requestId }, () => onDeadLetter(event, error));
      if (!(await mustSucceed('onDeadLetter', origin, signal, tell))) return false;
    }
    const deadLetter = { ...origin, group, reason: reasonOf(error), attempts, failedAt: hubTime() };
    return mustSucceed('publishing a dead letter', origin, signal, () =>
      publish(deadLetterTopic(topic), [{ ...plain, deadLetter }]),
    );
  }

  async function commit(progress: readonly Progress<B>[], signal: AbortSignal): Promise<boolean> {
    const partitions = progress.map(({ batch }) => batch.partition);
    const fields = { topic: topicOf(progress[0]!.batch.events), partitions };
    return mustSucceed('acknowledging events', fields, signal, () => handler.commit(progress));
  }

  /**
   * Handles one batch by itself.
   *
   * @param failed how the whole round failed before, if it did; `isSame` if that round was exactly this batch
   */
  async function handleBatch(batch: B, failed?: { error: unknown; isSame: boolean }): Promise<boolean> {
    const { events } = batch;
    const signal = AbortSignal.any([stopping, batch.lost]);
    if (failed?.isSame === false && isTransient(failed.error) && !(await backOff(1, signal))) return false;
    let firstFailure = failed?.isSame === true ? { error: failed.error } : undefined;
    let triesTogether = failed?.isSame === false ? 1 : 2;
    let maxEvents = batchSize;
    let done = 0;
    while (done < events.length) {
      const some = events.slice(done, done + maxEvents);
      const outcome = await handleOrGiveUp(some, signal, firstFailure, triesTogether);
      firstFailure = undefined;
      if (outcome === 'interrupted') return false;
      if (outcome === 'tooMuch') {
        maxEvents = Math.ceil(some.length / 2);
        continue;
      }
      triesTogether = 2;
      if (outcome === 'handled') {
        maxEvents = Math.min(batchSize, 2 * maxEvents);
        done += some.length;
        if (!(await commit([{ batch, count: done }], signal)) || batch.lost.aborted) return false;
        continue;
      }
      for (const event of some) {
        const alone = some.length === 1 ? outcome : await handleOrGiveUp([event], signal, undefined, triesTogether);
        if (alone === 'interrupted') return false;
        if (typeof alone === 'object' && !(await moveToDeadLetters(event, alone, signal))) return false;
        done += 1;
        if (!(await commit([{ batch, count: done }], signal)) || batch.lost.aborted) return false;
      }
    }
    return true;
  }

  /** @returns the failure, if each batch should be handled by itself now; otherwise whether the round is acknowledged */
  async function handleTogether(batches: readonly B[]): Promise<{ error: unknown } | boolean> {
    const events = batches.flatMap((batch) => batch.events);
    const partitions = batches.map(({ partition }) => partition);
    try {
      await handleNow(events, partitions);
    } catch (error) {
      const line = { err: error, topic: topicOf(events), group, partitions, events: events.length };
      if (batches.length > 1) log.warn(line, 'a round could not be handled; trying its partitions one by one');
      return { error };
    }
    return commit(
      batches.map((batch) => ({ batch, count: batch.events.length })),
      stopping,
    );
  }

  return (batches) => {
    const now = performance.now();
    for (const [partition, until] of apartUntil) if (until < now) apartUntil.delete(partition);
    const joint = batches.filter(({ partition }) => !apartUntil.has(partition));
    const together = joint.length === 0 ? Promise.resolve(true) : handleTogether(joint);
    const isSame = joint.length === 1;
    return {
      triedTogether: together.then(() => {}),
      batches: batches.map(async (batch) => {
        if (!joint.includes(batch)) return handleBatch(batch);
        const outcome = await together;
        if (typeof outcome === 'object') return handleBatch(batch, { ...outcome, isSame });
        return outcome && !batch.lost.aborted;
      }),
    };
  };
}

export const defaultBatchSize = 200;

function reasonOf(error: unknown): string {
  const text = error instanceof HubError ? `${error.reason}: ${error.message}` : String(error);
  return text.slice(0, 1_000);
}
