import { setTimeout as wait } from 'node:timers/promises';
import { withContext } from '../context.ts';
import { HubError, isTransient } from '../errors.ts';
import type { Logger } from '../log.ts';
import { deadLetterTopic, type Bus, type ConsumeOptions, type ReceivedEvent } from './bus.ts';

/** What the engine does for `handleBatch`. */
export interface Handling {
  options: ConsumeOptions;
  log: Logger;
  publish: Bus['publish'];
  /**
   * Records that the first `count` events of the batch need not come again. Tried until it works, so it must be repeatable.
   * Throws, and aborts `signal`, if the batch belongs to somebody else by now.
   */
  through: (count: number) => Promise<void>;
  /** Aborted when the consumer is to stop or the batch belongs to somebody else: nothing new is begun then. */
  signal: AbortSignal;
}

const defaultRetry = { attempts: 5, minDelay: 100, maxDelay: 5_000 };

type Outcome = 'handled' | 'interrupted' | { error: unknown; attempts: number };

/**
 * Sees the events of one partition through, in order, as `ConsumeOptions` promises: handled, or among the dead letters.
 *
 * @returns false if `signal` ended it before the last event
 */
export async function handleBatch(events: readonly ReceivedEvent[], handling: Handling): Promise<boolean> {
  const { options, log, signal } = handling;
  const { handle, group, batchSize = 200, retry = defaultRetry } = options;

  /** Waits before the next try; false if there is to be none. */
  async function backOff(failures: number): Promise<boolean> {
    const longest = Math.min(retry.maxDelay, retry.minDelay * 2 ** Math.min(failures - 1, 20));
    // Half of it is left to chance, so that partitions that failed together don't come back together.
    await wait(longest * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
    return !signal.aborted;
  }

  async function tryHandling(some: readonly ReceivedEvent[], attempts: number): Promise<Outcome> {
    const [first] = some;
    if (first === undefined) return 'handled';
    let lasting = 0;
    for (let failures = 1; !signal.aborted; failures++) {
      try {
        await (some.length === 1 ? withContext({ requestId: first.requestId }, () => handle(some)) : handle(some));
        return 'handled';
      } catch (error) {
        if (!isTransient(error)) lasting++;
        const line = {
          err: error,
          topic: first.topic,
          group,
          partition: first.partition,
          events: some.length,
          failures,
        };
        if (failures === 1 || failures % 10 === 0) log.warn(line, 'events could not be handled; trying again');
        else log.debug(line, 'events could not be handled; trying again');
        if (lasting >= attempts) return { error, attempts: lasting };
        if (!(await backOff(failures))) break;
      }
    }
    return 'interrupted';
  }

  /** Does what must not fail, for as long as it takes. False if it was given up because of `signal`. */
  async function insist(what: string, event: ReceivedEvent | undefined, work: () => Promise<void>): Promise<boolean> {
    for (let failures = 1; ; failures++) {
      try {
        await work();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        log.warn(
          { err: error, topic: event?.topic, group, partition: event?.partition, failures },
          `${what} failed; trying again`,
        );
        if (!(await backOff(failures))) return false;
      }
    }
  }

  async function bury(event: ReceivedEvent, failed: { error: unknown; attempts: number }): Promise<boolean> {
    const { topic, partition, ...plain } = event;
    const reason = reasonOf(failed.error);
    log.error(
      { err: failed.error, topic, group, partition, event: event.id, type: event.type, request_id: event.requestId },
      `event given up after ${failed.attempts} attempts`,
    );
    const inContext = (work: () => Promise<void>) => () => withContext({ requestId: event.requestId }, work);
    const { onDeadLetter } = options;
    if (onDeadLetter !== undefined) {
      const ended = await insist(
        'onDeadLetter',
        event,
        inContext(() => onDeadLetter(event, failed.error)),
      );
      if (!ended) return false;
    }
    const deadLetter = { topic, partition, group, reason, attempts: failed.attempts, failedAt: Date.now() };
    return insist('publishing a dead letter', event, () =>
      handling.publish(deadLetterTopic(topic), [{ ...plain, deadLetter }]),
    );
  }

  const settle = (count: number) => insist('acknowledging events', events[0], () => handling.through(count));

  let done = 0;
  while (done < events.length) {
    const chunk = events.slice(done, done + batchSize);
    const alone = chunk.length === 1;
    const together = await tryHandling(chunk, alone ? retry.attempts : 2);
    if (together === 'interrupted') return false;
    if (together === 'handled') {
      done += chunk.length;
      if (!(await settle(done))) return false;
      continue;
    }
    for (const event of chunk) {
      const outcome = alone ? together : await tryHandling([event], retry.attempts);
      if (outcome === 'interrupted') return false;
      if (outcome !== 'handled' && !(await bury(event, outcome))) return false;
      done += 1;
      if (!(await settle(done))) return false;
    }
  }
  return true;
}

function reasonOf(error: unknown): string {
  const text = error instanceof HubError ? `${error.reason}: ${error.message}` : String(error);
  return text.slice(0, 1_000);
}
