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
 * Milliseconds that a lane stays claimed unless it is renewed: so long the deliveries of a process that crashed stay untouched. A
 * process whose own clock says that its claim is about to run out begins no attempt any more.
 */
export const defaultLease = 5_000;
export const leaseMargin = 500;
/** Milliseconds: lanes that another process parks, or has left behind, are looked for this often. */
const lookEvery = 1_000;
/** Milliseconds between two looks where some lanes are due and there is no slot for them. */
const crowded = 20;
/** Milliseconds: how long work under way may take to finish when the process stops, the network's answer included. */
const drain = 5_000;
/** What is recorded together at most. */
const recordedAtOnce = 500;
const recordBackoff = { firstMs: 50, maxMs: 1_000, jitter: 0 };

const waiting = sharedGauge('deliveries_waiting', 'Deliveries that are parked, in all processes', ['channel']);
const waitingAge = sharedGauge('deliveries_waiting_age_seconds', 'Since when the oldest delivery has been parked', [
  'channel',
]);

/** Has metrics tell how much is parked. Returns what ends that. */
export function watchParked(store: Pick<Store, 'backlog'>): () => void {
  return sample(async (tell) => {
    for (const { channel, waiting: count, age } of await store.backlog()) {
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
  /** Of their own: neither what is parked nor what comes over the bus keeps the other waiting. */
  slots: Slots;
  log: Logger;
  /** UUID that the claims are made in the name of. */
  owner: string;
  lease?: number;
  loads: Pick<Loads, 'count'>;
}

export interface Lanes {
  /** Looks at once for lanes that are due, or will be soon. */
  wake(): void;
  /** Goes on with deliveries that are being tried and have been parked meanwhile, in lanes that `owner` has kept since `since`. */
  adopt(underWay: readonly UnderWay[], since: number): void;
  /** Begins no attempt any more, waits for those that are under way, and gives the lanes back. */
  stop(): Promise<void>;
}

/** An attempt that was begun before its delivery was parked. */
export interface UnderWay {
  lane: LaneKey;
  messageId: string;
  result: Promise<Result>;
}

/** What has become of one parked delivery. */
interface Settlement {
  parked: ParkedDelivery;
  /** Nothing is to be recorded of one that has ended already, or that is nobody's any more. */
  result: Result | undefined;
}

/**
 * Makes the deliveries of one channel that are parked: claims lanes that are due, tries their deliveries in order, records and reports
 * what has come of it, and parks a lane again whose delivery has to wait. Any number of processes share that work; a lane is one's at a
 * time, and when its process dies, another one's once the claim has run out.
 *
 * A delivery stays parked until it is recorded and reported how it ended: after a crash in between the next process finds it ended,
 * and reports it once more.
 */
export function startLanes(options: LanesOptions): Lanes {
  const { channel, store, publish, attempt, slots, log, owner, loads, lease = defaultLease } = options;
  const stopping = new AbortController();
  /** Until when, on this process's own clock, each lane in hand is claimed. */
  const held = new Map<string, { key: LaneKey; until: number }>();
  const workers = new Set<Promise<void>>();

  const mayTry = (lane: LaneKey) => {
    const claim = held.get(laneId(lane));
    return !stopping.signal.aborted && claim !== undefined && performance.now() < claim.until - leaseMargin;
  };

  const settling = new Rounds<Settlement | { released: LaneKey; dueAt: Date }, void>(settle, { items: recordedAtOnce });

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
    { items: 50 },
  );

  /** Records it however long that takes, as long as the lane is ours. @returns whether it is recorded */
  async function recordWhileOurs(
    lane: LaneKey,
    item: Settlement | { released: LaneKey; dueAt: Date },
  ): Promise<boolean> {
    for (let failures = 1; ; failures += 1) {
      try {
        await settling.do(item);
        return true;
      } catch (error) {
        if (stopping.signal.aborted) return false;
        if (!isTransient(error)) log.error({ err: error }, 'What has become of a parked delivery can not be recorded');
        if (!mayTry(lane)) return false;
        await pauseFor(backoffMs(recordBackoff, failures), stopping.signal);
      }
    }
  }

  /** @returns what comes of the delivery; undefined if it is not for us to try it */
  async function tryOnce(lane: LaneKey, parked: ParkedDelivery): Promise<Result | undefined> {
    const job = jobOf(parked);
    // What nobody may begin any more needs no slot, and doesn't wait for one.
    if (hubTime() >= job.delivery.deliverBy.getTime()) return attempt(job);
    return slots.run(async () => (mayTry(lane) ? attempt(job) : undefined));
  }

  /**
   * Goes through the deliveries of a lane until one has to wait.
   *
   * @param known what has come of one of them already
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
      recorded.push(recordWhileOurs(lane, { parked, result }));
      if (result?.happening === 'park') {
        dueAt = result.attempt.nextAt;
        break;
      }
    }
    // What isn't recorded is found, and done again, when the claim runs out.
    const all = await Promise.all(recorded);
    if (all.every(Boolean)) await recordWhileOurs(lane, { released: lane, dueAt });
  }

  function hold({ conversationId, recipientId }: LaneKey, until: number, doing: () => Promise<void>): void {
    const key = { channel, conversationId, recipientId };
    const id = laneId(key);
    held.set(id, { key, until });
    const worker = doing()
      .catch((error: unknown) => log.error({ err: error }, 'A parked delivery could not be tried'))
      .finally(() => {
        held.delete(id);
        workers.delete(worker);
        claiming.wake();
      });
    workers.add(worker);
  }

  const claiming = repeat(`Parked deliveries of ${channel}`, log, async () => {
    if (slots.free === 0) return crowded;
    const wait = (await store.nextDue(channel)) ?? lookEvery;
    if (wait > 0) return Math.min(lookEvery, Math.max(1, Math.ceil(wait)));
    const asked = performance.now();
    const lanes = await store.claimLanes(channel, slots.free, owner, lease);
    for (const lane of lanes) hold(lane, asked + lease, () => work(lane));
    return 0;
  });

  const renewing = repeat(`The claims of parked deliveries of ${channel}`, log, async () => {
    if (held.size > 0) {
      const asked = performance.now();
      const renewed = new Set(
        (
          await store.renewLanes(
            [...held.values()].map(({ key }) => key),
            owner,
            lease,
          )
        ).map(laneId),
      );
      for (const [id, claim] of held) if (renewed.has(id)) claim.until = asked + lease;
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
      await waitAtMost(drain, Promise.all(workers));
      await renewing.stop();
    },
  };
}
