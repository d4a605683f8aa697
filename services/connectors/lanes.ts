import { topics } from '#gen/events.ts';
import { backoffMs } from '#lib/backoff.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import { waitAtMost } from '#lib/deadline.ts';
import { isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { sample, sharedGauge } from '#lib/metrics.ts';
import { repeat } from '#lib/loop.ts';
import { pauseFor } from '#lib/retry.ts';
import { Rounds } from '#lib/rounds.ts';
import type { Attempt } from './attempt.ts';
import type { Result } from './delivery.ts';
import { laneId, type ClaimedLane, type LaneKey, type ParkedDelivery } from './lanes-store.ts';
import { attemptReport, countEnded, endReport, isReported } from './reports.ts';
import type { Loads } from './load.ts';
import type { Slots } from './slots.ts';
import type { Store } from './store.ts';
import { jobOf } from './wire.ts';

/**
 * How long the claim on a lane lasts, in milliseconds, unless it is renewed: for so long the lanes of a crashed process stay untouched. A
 * process begins no attempt when its claim is about to expire by its own clock.
 */
export const defaultLeaseMs = 5_000;
export const leaseMargin = 500;
/** How often lanes are looked for that another process has parked or left behind. */
const lookEveryMs = 1_000;
/** The pause before the next look if lanes are due and no slot is free. */
const noSlotPauseMs = 20;
/** How long attempts in flight may take to finish when the process stops. */
const drainTimeoutMs = 5_000;
const recordedAtOnce = 500;
const recordBackoff = { firstMs: 50, maxMs: 1_000, jitter: 0 };

const waiting = sharedGauge('deliveries_waiting', 'Deliveries that are parked, in all processes', ['channel']);
const waitingAge = sharedGauge('deliveries_waiting_age_seconds', 'Since when the oldest delivery has been parked', [
  'channel',
]);

/** Shows the parked deliveries of these channels, and of others that have some, as metrics. @returns a function that ends that */
export function watchParked(store: Pick<Store, 'backlog'>, channels: readonly string[]): () => void {
  return sample(async (tell) => {
    const none = channels.map((channel) => ({ channel, waiting: 0, age: 0 }));
    for (const { channel, waiting: count, age } of [...none, ...(await store.backlog())]) {
      tell(waiting, { channel }, count);
      tell(waitingAge, { channel }, age);
    }
  });
}

export interface LanesOptions {
  channel: string;
  store: Pick<Store, 'nextDue' | 'claimLanes' | 'reloadLanes' | 'renewLanes' | 'advance' | 'record' | 'recordTaken'>;
  publish: Bus['publish'];
  attempt: Attempt;
  /** Separate from the slots for deliveries from the bus, so that neither kind keeps the other waiting. */
  slots: Slots;
  log: Logger;
  /** UUID of the owner of claims. */
  owner: string;
  lease?: number;
  loads: Pick<Loads, 'count'>;
}

export interface Lanes {
  /** Looks for due lanes at once. */
  wake(): void;
  /** Takes over deliveries that were parked while their attempt was in flight, in lanes that `owner` has kept since `since`. */
  adopt(underWay: readonly UnderWay[], since: number): void;
  /** Begins no further attempts, waits for those in flight, and releases the lanes. */
  stop(): Promise<void>;
}

/** An attempt that was begun before its delivery was parked. */
export interface UnderWay {
  lane: LaneKey;
  messageId: string;
  result: Promise<Result>;
}

/** The result of one parked delivery. */
interface Settlement {
  parked: ParkedDelivery;
  /** Undefined if the delivery has ended before, or is over. */
  result: Result | undefined;
}

/**
 * Makes the parked deliveries of one channel: claims due lanes, tries their deliveries in order, records and reports the results, and parks
 * a lane again when a delivery has to wait. Any number of processes share that work; a lane belongs to one at a time, and when that process
 * dies, to another one once the claim expires.
 *
 * A delivery stays parked until its end is recorded and reported: after a crash in between, the next process finds it ended, and reports it
 * once more.
 */
export function startLanes(options: LanesOptions): Lanes {
  const { channel, store, publish, attempt, slots, log, owner, loads, lease = defaultLeaseMs } = options;
  const stopping = new AbortController();
  /** The lanes that this process has claimed, and until when by its own clock. */
  const claimed = new Map<string, { key: LaneKey; until: number }>();
  const workers = new Set<Promise<void>>();

  const mayTry = (lane: LaneKey) => {
    const claim = claimed.get(laneId(lane));
    return !stopping.signal.aborted && claim !== undefined && performance.now() < claim.until - leaseMargin;
  };

  const settling = new Rounds<Settlement | { released: LaneKey; dueAt: Date }, void>(settle, {
    name: 'connectors.settled',
    items: recordedAtOnce,
  });

  async function settle(items: readonly (Settlement | { released: LaneKey; dueAt: Date })[]): Promise<void[]> {
    const settlements = items.filter((item) => 'parked' in item);
    const causeOf = ({ conversationId, request }: ParkedDelivery) => ({ conversationId, callId: request.callId });
    const keyOf = ({ messageId, recipientId, replay }: ParkedDelivery) => ({ messageId, recipientId, channel, replay });
    const ended = settlements.flatMap(({ parked, result }) =>
      result && 'outcome' in result ? [{ parked, outcome: result.outcome }] : [],
    );
    const taken = settlements.flatMap(({ parked, result }) =>
      result?.happening === 'take'
        ? [{ ...keyOf(parked), attempts: result.attempts, callId: parked.request.callId }]
        : [],
    );
    const tried = settlements.flatMap(({ parked, result }) =>
      result?.happening === 'park' ? [{ parked, failed: result.attempt }] : [],
    );
    const standing =
      ended.length === 0
        ? []
        : await store.record(ended.map(({ parked, outcome }) => ({ ...keyOf(parked), ...outcome })));
    if (taken.length > 0) await store.recordTaken(taken);
    const reports = [
      ...tried
        .filter(({ failed }) => isReported(failed))
        .map(({ parked, failed }) => attemptReport(causeOf(parked), { ...keyOf(parked), ...failed })),
      ...ended.map(({ parked }, index) => endReport(causeOf(parked), standing[index]!)),
      ...settlements.flatMap(({ parked }) =>
        parked.ended === undefined ? [] : [endReport(causeOf(parked), parked.ended)],
      ),
    ];
    if (reports.length > 0) await publish(topics.messageStatus, reports);
    await store.advance({
      done: settlements
        .filter(({ result }) => result?.happening !== 'park')
        .map(({ parked }) => ({ id: parked.id, requestId: parked.request.id })),
      tried: tried.map(({ parked, failed }) => ({ id: parked.id, attempts: failed.attempts, error: failed.error })),
      released: items.flatMap((item) => ('released' in item ? [{ ...item.released, dueAt: item.dueAt }] : [])),
      owner,
    });
    for (const each of standing) countEnded(each);
    const delivered = ended.filter(({ outcome }) => outcome.delivered);
    if (delivered.length + taken.length > 0) loads.count(channel, 'taken', delivered.length + taken.length);
    return items.map(() => {});
  }

  const reloading = new Rounds<LaneKey, ClaimedLane | undefined>(
    async (lanes) => {
      const loaded = new Map((await store.reloadLanes(lanes, owner, lease)).map((lane) => [laneId(lane), lane]));
      return lanes.map((lane) => loaded.get(laneId(lane)));
    },
    { name: 'connectors.reloaded', items: 50 },
  );

  /** Retries to record a result as long as this process has the lane. @returns whether it is recorded */
  async function recordWhileClaimed(
    lane: LaneKey,
    item: Settlement | { released: LaneKey; dueAt: Date },
  ): Promise<boolean> {
    for (let failures = 1; ; failures += 1) {
      try {
        await settling.do(item);
        return true;
      } catch (error) {
        if (stopping.signal.aborted) return false;
        if (!isTransient(error)) log.error({ err: error }, 'The result of a parked delivery can not be recorded');
        if (!mayTry(lane)) return false;
        await pauseFor(backoffMs(recordBackoff, failures), stopping.signal);
      }
    }
  }

  /** @returns undefined if this process may not try it any more */
  async function tryOnce(lane: LaneKey, parked: ParkedDelivery): Promise<Result | undefined> {
    const job = jobOf(parked);
    // A delivery past its deadline makes no call, so it needs no slot.
    if (hubTime() >= job.delivery.deliverBy.getTime()) return attempt(job);
    return slots.run(async () => (mayTry(lane) ? attempt(job) : undefined));
  }

  /**
   * Makes the deliveries of a lane until one has to wait.
   *
   * @param known the result of one of them, if it is known already
   */
  async function work(lane: ClaimedLane, known?: { messageId: string; result: Result }): Promise<void> {
    const recorded: Promise<boolean>[] = [];
    let dueAt = hubDate();
    for (const parked of lane.deliveries) {
      let result: Result | undefined;
      if (parked.state === 'open') {
        result = parked.messageId === known?.messageId ? known.result : await tryOnce(lane, parked);
        if (result === undefined) break;
      }
      recorded.push(recordWhileClaimed(lane, { parked, result }));
      if (result?.happening === 'park') {
        dueAt = result.attempt.nextAt;
        break;
      }
    }
    // If something could not be recorded, the lane is kept, and handled again when its claim expires.
    const all = await Promise.all(recorded);
    if (all.every(Boolean)) await recordWhileClaimed(lane, { released: lane, dueAt });
  }

  function hold({ conversationId, recipientId }: LaneKey, until: number, doing: () => Promise<void>): void {
    const key = { channel, conversationId, recipientId };
    const id = laneId(key);
    claimed.set(id, { key, until });
    const worker = doing()
      .catch((error: unknown) => log.error({ err: error }, 'A parked delivery could not be tried'))
      .finally(() => {
        claimed.delete(id);
        workers.delete(worker);
        claiming.wake();
      });
    workers.add(worker);
  }

  const claiming = repeat(`Parked deliveries of ${channel}`, log, async () => {
    if (slots.free === 0) return noSlotPauseMs;
    const wait = (await store.nextDue(channel)) ?? lookEveryMs;
    if (wait > 0) return Math.min(lookEveryMs, Math.max(1, Math.ceil(wait)));
    const asked = performance.now();
    const lanes = await store.claimLanes(channel, slots.free, owner, lease);
    for (const lane of lanes) hold(lane, asked + lease, () => work(lane));
    return 0;
  });

  const renewing = repeat(`The claims of parked deliveries of ${channel}`, log, async () => {
    if (claimed.size > 0) {
      const asked = performance.now();
      const renewed = new Set(
        (
          await store.renewLanes(
            [...claimed.values()].map(({ key }) => key),
            owner,
            lease,
          )
        ).map(laneId),
      );
      for (const [id, claim] of claimed) if (renewed.has(id)) claim.until = asked + lease;
    }
    return lease / 3;
  });

  return {
    wake: () => claiming.wake(),
    adopt(underWay, since) {
      for (const { lane, messageId, result: coming } of underWay) {
        hold(lane, since + lease, async () => {
          const result = await coming;
          const loaded = await reloading.do(lane);
          if (loaded !== undefined) await work(loaded, { messageId, result });
        });
      }
    },
    async stop() {
      stopping.abort();
      await claiming.stop();
      await waitAtMost(drainTimeoutMs, Promise.all(workers));
      await renewing.stop();
    },
  };
}
