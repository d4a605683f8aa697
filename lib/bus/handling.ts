import { setTimeout as wait } from 'node:timers/promises';
import { hubTime } from '../clock.ts';
import { withContext } from '../context.ts';
import { HubError, isTimeout, isTransient, TimedOut } from '../errors.ts';
import type { Logger } from '../log.ts';
import { deadLetterTopic, type Bus, type ConsumeOptions, type ReceivedEvent } from './bus.ts';

/** What a round has of one partition. */
export interface Part {
  partition: number;
  /** In order; at least one. */
  events: readonly ReceivedEvent[];
  /** Aborted when the partition is somebody else's by now: nothing new is begun then. */
  lost: AbortSignal;
}

/** How much of a part need not come again. */
export interface Step<P extends Part> {
  part: P;
  /** Its first events, so many. */
  count: number;
}

/** What the engine does for `roundHandler`. */
export interface Handling<P extends Part> {
  options: ConsumeOptions;
  log: Logger;
  publish: Bus['publish'];
  /**
   * Records how far parts have come, all with one write; parts that are lost are left out, and `lost` is aborted of those that turn
   * out to be. Tried until it works, so it must be repeatable.
   */
  through: (steps: readonly Step<P>[]) => Promise<void>;
  /** Aborted when the consumer is to stop: nothing new is begun then. */
  stopping: AbortSignal;
}

export interface RunningRound {
  /** Settles once the round has been tried as a whole: what is left of it then goes on by partitions. Never rejects. */
  together: Promise<void>;
  /** For each part, whether it was seen through: false if it was lost or the consumer stopped before its last event. */
  parts: Promise<boolean>[];
}

const defaultRetry = { attempts: 5, minDelay: 100, maxDelay: 5_000 };
/** Milliseconds. A partition whose events took longer is handled by itself for a while. */
const slow = { from: 2_000, apart: 10_000 };
/** Statements that exceed their time limit with a single event count as lasting after so many times `retry.attempts`. */
const timeoutsPerAttempt = 4;

/**
 * `tooMuch`: it took too long, and is worth trying again with less at once.
 */
type Outcome = 'handled' | 'interrupted' | 'tooMuch' | { error: unknown; attempts: number };

/**
 * Makes what sees rounds through as `ConsumeOptions` promises: each event handled, or among the dead letters.
 *
 * A round is tried as a whole. If that fails, each of its partitions goes on by itself, so that only the one waits whose events
 * fail. So does a partition whose events were slow, which would slow down the others time and again. Rounds of different partitions
 * may run at once, those of one may not.
 */
export function roundHandler<P extends Part>(handling: Handling<P>): (parts: readonly P[]) => RunningRound {
  const { options, log, publish, stopping } = handling;
  const { handle, group, batchSize = defaultBatchSize, retry = defaultRetry } = options;
  const topic = (events: readonly ReceivedEvent[]) => events[0]?.topic;
  /** Partitions that are handled apart from others, and until when, in milliseconds since the start of the process. */
  const apart = new Map<number, number>();

  /** Waits before the next try; false if there is to be none. */
  async function backOff(failures: number, signal: AbortSignal): Promise<boolean> {
    const longest = Math.min(retry.maxDelay, retry.minDelay * 2 ** Math.min(failures - 1, 20));
    // Half of it is left to chance, so that partitions that failed together don't come back together.
    await wait(longest * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {});
    return !signal.aborted;
  }

  /** @throws what the handler throws */
  async function handleNow(events: readonly ReceivedEvent[], partitions: readonly number[]): Promise<void> {
    const begun = performance.now();
    try {
      const [first, another] = events;
      const isOfOneCall = first !== undefined && another === undefined;
      await (isOfOneCall ? withContext({ requestId: first.requestId }, () => handle(events)) : handle(events));
    } finally {
      const now = performance.now();
      if (now - begun > slow.from) for (const partition of partitions) apart.set(partition, now + slow.apart);
    }
  }

  /**
   * Handles events of one partition, until that works, fails for good or is interrupted.
   *
   * @param failed the failure of a first try, if there was one with just these
   * @param togetherTries how often several events are tried before each is tried by itself
   */
  async function tryHandling(
    events: readonly ReceivedEvent[],
    signal: AbortSignal,
    failed: { error: unknown } | undefined,
    togetherTries: number,
  ): Promise<Outcome> {
    const { partition } = events[0]!;
    const isAlone = events.length === 1;
    let earlier = failed;
    let lasting = 0;
    let timeouts = 0;
    for (let failures = 1; ; failures++) {
      let error: unknown;
      if (earlier === undefined) {
        if (signal.aborted) return 'interrupted';
        try {
          await handleNow(events, [partition]);
          return 'handled';
        } catch (thrown) {
          error = thrown;
        }
      } else {
        ({ error } = earlier);
        earlier = undefined;
      }
      if (!isTransient(error)) lasting++;
      else if (isAlone && error instanceof TimedOut) timeouts++;
      const line = { err: error, topic: topic(events), group, partition, events: events.length, failures };
      if (failures === 1 || failures % 10 === 0) log.warn(line, 'events could not be handled; trying again');
      else log.debug(line, 'events could not be handled; trying again');
      if (lasting >= (isAlone ? retry.attempts : togetherTries)) return { error, attempts: lasting };
      if (timeouts >= retry.attempts * timeoutsPerAttempt) return { error, attempts: timeouts };
      if (!(await backOff(failures, signal))) return 'interrupted';
      if (!isAlone && isTimeout(error)) return 'tooMuch';
    }
  }

  /** Does what must not fail, for as long as it takes. False if it was given up because of `signal`. */
  async function insist(what: string, about: object, signal: AbortSignal, work: () => Promise<void>): Promise<boolean> {
    for (let failures = 1; ; failures++) {
      try {
        await work();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        log.warn({ err: error, group, ...about, failures }, `${what} failed; trying again`);
        if (!(await backOff(failures, signal))) return false;
      }
    }
  }

  async function bury(
    event: ReceivedEvent,
    failed: { error: unknown; attempts: number },
    signal: AbortSignal,
  ): Promise<boolean> {
    const { topic: from, partition, ...plain } = event;
    const about = { topic: from, partition };
    const reason = reasonOf(failed.error);
    log.error(
      { err: failed.error, ...about, group, event: event.id, type: event.type, request_id: event.requestId },
      `event given up after ${failed.attempts} attempts`,
    );
    const inContext = (work: () => Promise<void>) => () => withContext({ requestId: event.requestId }, work);
    const { onDeadLetter } = options;
    if (onDeadLetter !== undefined) {
      const end = inContext(() => onDeadLetter(event, failed.error));
      if (!(await insist('onDeadLetter', about, signal, end))) return false;
    }
    const deadLetter = { ...about, group, reason, attempts: failed.attempts, failedAt: hubTime() };
    return insist('publishing a dead letter', about, signal, () =>
      publish(deadLetterTopic(from), [{ ...plain, deadLetter }]),
    );
  }

  async function settle(steps: readonly Step<P>[], signal: AbortSignal): Promise<boolean> {
    const about = { topic: topic(steps[0]!.part.events), partitions: steps.map(({ part }) => part.partition) };
    return insist('acknowledging events', about, signal, () => handling.through(steps));
  }

  /**
   * Sees a part through by itself.
   *
   * @param failed how the round failed that was tried as a whole, if it was; `isPart` if it was this part and nothing else
   */
  async function seeThrough(part: P, failed?: { error: unknown; isPart: boolean }): Promise<boolean> {
    const { events } = part;
    const signal = AbortSignal.any([stopping, part.lost]);
    if (failed !== undefined && !failed.isPart && isTransient(failed.error) && !(await backOff(1, signal)))
      return false;
    let earlier = failed?.isPart === true ? { error: failed.error } : undefined;
    let togetherTries = failed !== undefined && !failed.isPart ? 1 : 2;
    let most = batchSize;
    let done = 0;
    while (done < events.length) {
      const some = events.slice(done, done + most);
      const outcome = await tryHandling(some, signal, earlier, togetherTries);
      earlier = undefined;
      if (outcome === 'interrupted') return false;
      if (outcome === 'tooMuch') {
        most = Math.ceil(some.length / 2);
        continue;
      }
      togetherTries = 2;
      if (outcome === 'handled') {
        most = Math.min(batchSize, 2 * most);
        done += some.length;
        if (!(await settle([{ part, count: done }], signal)) || part.lost.aborted) return false;
        continue;
      }
      for (const event of some) {
        const alone = some.length === 1 ? outcome : await tryHandling([event], signal, undefined, togetherTries);
        if (alone === 'interrupted') return false;
        if (typeof alone === 'object' && !(await bury(event, alone, signal))) return false;
        done += 1;
        if (!(await settle([{ part, count: done }], signal)) || part.lost.aborted) return false;
      }
    }
    return true;
  }

  /** @returns the failure, of which each part is to be seen through by itself, or whether the round is acknowledged */
  async function tryTogether(parts: readonly P[]): Promise<{ error: unknown } | boolean> {
    const events = parts.flatMap((part) => part.events);
    const partitions = parts.map(({ partition }) => partition);
    try {
      await handleNow(events, partitions);
    } catch (error) {
      const line = { err: error, topic: topic(events), group, partitions, events: events.length };
      if (parts.length > 1) log.warn(line, 'a round could not be handled; trying its partitions one by one');
      return { error };
    }
    const steps = parts.map((part) => ({ part, count: part.events.length }));
    return settle(steps, stopping);
  }

  return (parts) => {
    const now = performance.now();
    for (const [partition, until] of apart) if (until < now) apart.delete(partition);
    const joint = parts.filter(({ partition }) => !apart.has(partition));
    const tried = joint.length === 0 ? Promise.resolve(true) : tryTogether(joint);
    const isPart = joint.length === 1;
    return {
      together: tried.then(() => {}),
      parts: parts.map(async (part) => {
        if (!joint.includes(part)) return seeThrough(part);
        const outcome = await tried;
        if (typeof outcome === 'object') return seeThrough(part, { ...outcome, isPart });
        return outcome && !part.lost.aborted;
      }),
    };
  };
}

/** Events that a handler is given at once, unless it says otherwise. */
export const defaultBatchSize = 200;

function reasonOf(error: unknown): string {
  const text = error instanceof HubError ? `${error.reason}: ${error.message}` : String(error);
  return text.slice(0, 1_000);
}
