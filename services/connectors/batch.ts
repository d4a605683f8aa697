import { topics } from '#gen/events.ts';
import type { Bus, BusEvent } from '#lib/bus/bus.ts';
import { hubDate } from '#lib/clock.ts';
import { waitAtMost } from '#lib/deadline.ts';
import { HubError } from '#lib/errors.ts';
import type { Attempt, Job } from './attempt.ts';
import type { Connector } from './connector.ts';
import type { Claim } from './deliveries-store.ts';
import { nextState, type EndedDelivery, type Result, type State } from './delivery.ts';
import { defaultLeaseMs, leaseMargin, type Lanes } from './lanes.ts';
import { laneId, type LaneKey, type LaneToPark, type ParkedRequest } from './lanes-store.ts';
import type { Loads } from './load.ts';
import { attemptReport, countEnded, endReport, isReported } from './reports.ts';
import type { Slots } from './slots.ts';
import type { Store } from './store.ts';

const recordEveryMs = 100;
const defaultBatchMs = 250;

export interface DeliveringOptions {
  connector: Pick<Connector, 'name'>;
  store: Pick<Store, 'claim' | 'record' | 'recordTaken' | 'release' | 'park'>;
  publish: Bus['publish'];
  attempt: Attempt;
  slots: Slots;
  lanes: Pick<Lanes, 'wake' | 'adopt'>;
  loads: Pick<Loads, 'count' | 'countBehind'>;
  /** UUID of this process as the owner of claims on deliveries and lanes. */
  owner: string;
  /** Once it is aborted, no further attempt begins. */
  stopping: AbortSignal;
  lease?: number;
  /** How long a batch of events waits for its deliveries; those that are still open then are parked. 250 by default. */
  maxBatchMs?: number;
}

/** A delivery that an event asks for. */
export interface Asked extends Job {
  lane: LaneKey;
  request: ParkedRequest;
  state: State;
}

interface Ended {
  asked: Asked;
  delivery: EndedDelivery;
  /** Whether the outcome is on record already, and only its report may be missing. */
  isRecorded: boolean;
}

/** Outcomes that could not be recorded yet, by `idOf`. */
export type Unrecorded = Map<string, Result & { replay: number }>;

/**
 * Claims deliveries, tries each once, records and reports how they ended, and parks those that have to wait.
 *
 * @param leftUnderWay receives the attempts that are still in flight if this throws
 * @throws HubError UNAVAILABLE `DELIVERIES_LEFT` if another process has some of the deliveries, or was left some: their events must come
 *   again
 */
export async function deliver(
  {
    connector: { name: channel },
    store,
    publish,
    attempt,
    slots,
    lanes,
    loads,
    owner,
    stopping,
    lease = defaultLeaseMs,
    maxBatchMs = defaultBatchMs,
  }: DeliveringOptions,
  unrecorded: Unrecorded,
  asked: readonly Asked[],
  leftUnderWay: Promise<unknown>[],
): Promise<void> {
  const claimedAt = performance.now();
  const claims = await store.claim(
    asked.map(({ delivery, idempotencyKey, replay }) => ({ ...delivery, channel, idempotencyKey, replay })),
    owner,
    lease,
  );
  const ended: Ended[] = [];
  const taken: { asked: Asked; attempts: number }[] = [];
  const toPark: LaneToPark[] = [];
  const attempts: Parameters<typeof attemptReport>[] = [];
  const underWay = new Map<string, { asked: Asked; result: Promise<Result> }>();

  /** By lane, the deliveries to be made here: none that is behind one that another process is making. */
  const open = new Map<string, Asked[]>();
  let areLeft = false;
  for (const [id, lane] of Map.groupBy(asked.keys(), (index) => laneId(asked[index]!.lane))) {
    const toMake: Asked[] = [];
    const behind: Asked[] = [];
    for (const index of lane) {
      const each = asked[index]!;
      const claim = claims[index]!;
      if (claim.state === 'claimedElsewhere') {
        areLeft = true;
        break;
      }
      if (claim.state === 'ended')
        ended.push({ asked: each, delivery: endedOf(each, channel, claim), isRecorded: true });
      if (claim.state !== 'claimed') continue;
      each.state = nextState[each.state].claim;
      each.idempotencyKey = claim.idempotencyKey;
      each.attempts = claim.attempts;
      (claim.isBehind ? behind : toMake).push(each);
    }
    if (behind.length > 0) {
      loads.countBehind(channel, id);
      toPark.push({ deliveries: behind.map(parkable) });
    }
    if (toMake.length > 0) open.set(id, toMake);
  }

  let isOver = false;
  const mayTry = () => !isOver && !stopping.aborted && performance.now() < claimedAt + lease - leaseMargin;

  async function deliverLane(id: string, lane: Asked[]): Promise<void> {
    while (lane.length > 0) {
      const each = lane[0]!;
      const made = await slots.run(async () => {
        if (!mayTry()) return undefined;
        const result = earlierResult(each) ?? attempt(each);
        underWay.set(id, { asked: each, result });
        return await result;
      });
      // A result after the end of the batch is recorded by the new owner of the lane.
      if (made === undefined || isOver) return;
      underWay.delete(id);
      each.state = nextState[each.state][made.happening];
      if (made.happening === 'deliver' || made.happening === 'take') loads.count(channel, 'taken');
      loads.count(channel, made.happening === 'park' ? 'held' : 'prompt');
      if (made.happening === 'park') {
        const { attempt: failedAttempt } = made;
        each.attempts = failedAttempt.attempts;
        each.error = failedAttempt.error;
        if (isReported(failedAttempt))
          attempts.push([causeOf(each), { ...keyOf(each, channel), replay: each.replay, ...failedAttempt }]);
        toPark.push({ deliveries: lane.splice(0).map(parkable), dueAt: failedAttempt.nextAt });
        return;
      }
      lane.shift();
      if (made.happening === 'take') {
        taken.push({ asked: each, attempts: made.attempts });
      } else {
        unrecorded.set(idOf(each.delivery), { ...made, replay: each.replay });
        ended.push({
          asked: each,
          delivery: { ...keyOf(each, channel), ...made.outcome, replay: each.replay },
          isRecorded: false,
        });
      }
    }
  }

  /** The result of an earlier attempt that could not be recorded then. */
  function earlierResult({ delivery, replay }: Asked): Promise<Result> | undefined {
    const earlier = unrecorded.get(idOf(delivery));
    const stands = earlier !== undefined && (earlier.happening === 'deliver' || earlier.replay === replay);
    return stands ? Promise.resolve(earlier) : undefined;
  }

  async function record(): Promise<void> {
    const some = ended.splice(0);
    const handedOver = taken.splice(0);
    const fresh = some.filter(({ isRecorded }) => !isRecorded);
    const [recorded] = await Promise.all([
      fresh.length === 0 ? [] : store.record(fresh.map(({ delivery }) => delivery)),
      handedOver.length === 0
        ? undefined
        : store.recordTaken(
            handedOver.map(({ asked: each, attempts: count }) => ({
              ...keyOf(each, channel),
              replay: each.replay,
              attempts: count,
              callId: each.callId,
            })),
          ),
    ]);
    fresh.forEach((each, index) => {
      each.delivery = recorded[index]!;
      unrecorded.delete(idOf(each.delivery));
      countEnded(each.delivery);
    });
    const reports: BusEvent[] = [
      ...attempts.splice(0).map((given) => attemptReport(...given)),
      ...some.map(({ asked: each, delivery }) => endReport(causeOf(each), delivery)),
    ];
    if (reports.length > 0) await publish(topics.messageStatus, reports);
    if (toPark.length === 0) return;
    const waiting = toPark.splice(0);
    const parked = await store.park(waiting, owner, lease);
    if (parked < waiting.reduce((sum, { deliveries }) => sum + deliveries.length, 0)) areLeft = true;
    lanes.wake();
  }

  const working = Promise.all([...open].map(([id, lane]) => deliverLane(id, lane)));
  let isDone = false;
  const settle = () => void (isDone = true);
  working.then(settle, settle);
  const end = performance.now() + Math.min(maxBatchMs, lease / 2);
  try {
    while (!isDone && performance.now() < end) {
      await waitAtMost(Math.min(recordEveryMs, end - performance.now()), working);
      await record();
    }
    isOver = true;
    if (stopping.aborted) {
      // Deliveries that have not begun are left to any process; those in flight are parked, and their results awaited here.
      const rest = [...open].flatMap(([id, lane]) => (underWay.has(id) ? [] : lane));
      if (rest.length > 0) {
        areLeft = true;
        await store.release(
          rest.map((each) => keyOf(each, channel)),
          owner,
        );
      }
    }
    const busy = [...underWay];
    for (const [id, lane] of open) {
      if (lane.length === 0 || (stopping.aborted && !underWay.has(id))) continue;
      loads.count(channel, 'held');
      toPark.push({ deliveries: lane.splice(0).map(parkable), dueAt: underWay.has(id) ? null : hubDate() });
    }
    const parkedAt = performance.now();
    await record();
    lanes.adopt(
      busy.map(([, { asked: each, result }]) => ({ lane: each.lane, messageId: each.delivery.messageId, result })),
      parkedAt,
    );
    underWay.clear();
  } catch (error) {
    isOver = true;
    leftUnderWay.push(
      ...[...underWay.values()].map(({ asked: each, result }) => result.then((made) => keep(each, made))),
    );
    throw error;
  }
  if (!areLeft) return;
  throw new HubError('UNAVAILABLE', 'DELIVERIES_LEFT', 'Some deliveries are left: they are being made elsewhere', {
    retryAfter: 1,
  });

  /** Remembers a result of a batch that failed, until its event comes again. */
  function keep(each: Asked, made: Result): void {
    if ('outcome' in made) unrecorded.set(idOf(each.delivery), { ...made, replay: each.replay });
  }
}

function endedOf(asked: Asked, channel: string, { outcome }: Claim & { state: 'ended' }): EndedDelivery {
  return { ...outcome, ...keyOf(asked, channel), replay: asked.replay };
}

function parkable({ lane, delivery: { messageId }, replay, request, attempts, error }: Asked) {
  return { ...lane, messageId, replay, request, attempts, error };
}

export function causeOf({ lane: { conversationId }, callId }: Asked) {
  return { conversationId, callId };
}

/** Identifies a delivery within one channel. */
export function idOf({ messageId, recipientId }: { messageId: string; recipientId: string }): string {
  return `${messageId}/${recipientId}`;
}

export function keyOf({ delivery: { messageId, recipientId } }: Job, channel: string) {
  return { messageId, recipientId, channel };
}
