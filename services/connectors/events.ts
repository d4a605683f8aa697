import { setTimeout as sleep } from 'node:timers/promises';
import { v4 as uuid, v5 as uuidOf } from 'uuid';
import type { Bus, BusEvent, Consumer, ReceivedEvent } from '#lib/bus/bus.ts';
import { withContext } from '#lib/context.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { counter } from '#lib/metrics.ts';
import type { Connector, DeliveryToMake } from './connector.ts';
import { makeDelivery, type FailedAttempt, type Outcome, type Round, type Taken } from './delivery.ts';
import type { Claim, DeliveryKey, EndedDelivery, Store } from './store.ts';
import { encodeAttempted, encodeEnded, readRequested } from './wire.ts';

export const statusTopic = 'message_status';

const endedDeliveries = counter('deliveries_total', 'Deliveries that were made or failed, replays included', [
  'channel',
  'status',
]);
const attemptsMade = counter('delivery_attempts_total', 'How often a network was tried', ['channel']);

/** Counts a delivery that has just been recorded as ended. */
export function countEnded({ channel, delivered }: Pick<EndedDelivery, 'channel' | 'delivered'>): void {
  endedDeliveries.inc({ channel, status: delivered ? 'delivered' : 'failed' });
}

/** Ids of reports are made in here from what they report on, so that a repeated report has the same id. */
const reportNamespace = '8e0f6f2b-1f60-4a52-9d0c-3b7c2a4f9e55';

/** Conversations of one batch that are worked on at once. */
const conversationsAtOnce = 32;
/** Milliseconds between two records of what has ended meanwhile. */
const recordEvery = 100;
/**
 * Milliseconds that a claim lasts unless it is renewed: so long the deliveries of a process that crashed stay untouched.
 * A process whose own clock says that its claim has run out begins no delivery any more; with this margin it knows so first.
 */
const defaultLease = 5_000;
const leaseMargin = 500;
/** Milliseconds: attempts that follow each other sooner are not reported, only how the delivery ended. */
const shortestReportedWait = 200;
/** Milliseconds after which an outcome that could not be recorded is forgotten: by then its event has come again, or has gone elsewhere. */
const longestUnrecorded = 3_600_000;

export interface DeliveringOptions {
  connector: Connector;
  store: Pick<Store, 'claim' | 'record' | 'recordAttempts' | 'recordTaken' | 'release'>;
  publish: Bus['publish'];
  log: Logger;
  /** Once aborted, no attempt begins any more. */
  stopping: AbortSignal;
  lease?: number;
}

/** Delivers what the router asks for, over one connector. */
export async function consumeDeliveries({
  bus,
  ...options
}: Omit<DeliveringOptions, 'publish' | 'stopping'> & { bus: Bus }): Promise<Consumer> {
  const { name } = options.connector;
  const stopping = new AbortController();
  const consumer = await bus.consume({
    topics: [`${name}_outgoing`],
    group: `${name}_connector`,
    handle: delivering({ ...options, publish: bus.publish, stopping: stopping.signal }),
    onDeadLetter: giveUp(name, bus.publish),
  });
  return {
    stop() {
      stopping.abort();
      return consumer.stop();
    },
  };
}

/** A delivery with the event that asks for it. */
interface Job extends Round {
  event: ReceivedEvent;
  delivery: DeliveryToMake;
}

interface Ended {
  event: ReceivedEvent;
  delivery: EndedDelivery;
  /** Whether the outcome is on record already, and only its report may be missing. */
  recorded: boolean;
}

/**
 * Makes the handler of a batch: claims the deliveries, makes them, records how they ended and reports that.
 *
 * Two processes may be given the same events for a while. Whoever claims a delivery first makes it; the other one gets
 * nothing behind it in that conversation done either, so that the order stays, and comes back later. After a crash the
 * claim runs out, and the next process tries again with the same idempotency key.
 */
export function delivering(options: DeliveringOptions) {
  const own: OwnWork = { owner: uuid(), unrecorded: new Map() };
  const turns = new Map<string, Promise<void>>();
  return async (events: readonly ReceivedEvent[]): Promise<void> => {
    // A claim keeps out other processes; within this one the events of a partition take turns.
    const partition = `${events[0]?.topic}/${events[0]?.partition}`;
    const turn = (turns.get(partition) ?? Promise.resolve()).then(() => deliverBatch(options, own, events));
    const settled = turn.catch(() => {});
    turns.set(partition, settled);
    try {
      await turn;
    } finally {
      if (turns.get(partition) === settled) turns.delete(partition);
    }
  };
}

/** What a process knows of its own deliveries, beyond what is on record. */
interface OwnWork {
  /** UUID that its claims are made in the name of. */
  owner: string;
  /** Deliveries that have ended while the database was away: they are recorded when their events come again. */
  unrecorded: Map<string, Outcome & Round>;
}

async function deliverBatch(
  { connector, store, publish, log, stopping, lease = defaultLease }: DeliveringOptions,
  { owner, unrecorded }: OwnWork,
  events: readonly ReceivedEvent[],
): Promise<void> {
  const channel = connector.name;
  const forgotten = Date.now() - longestUnrecorded;
  for (const [id, { endedAt }] of unrecorded) if (endedAt.getTime() < forgotten) unrecorded.delete(id);
  const open = new Map<string, Job>();
  for (const event of events) {
    const job = { event, ...readRequested(event, channel) };
    const known = open.get(idOf(job.delivery));
    // Of several rounds only the last one is still wanted.
    if (known === undefined || known.replay < job.replay) open.set(idOf(job.delivery), job);
  }
  const conversations = [...Map.groupBy(open.values(), ({ delivery }) => delivery.conversationId).values()];

  const claims = new Map<Job, Claim>();
  let claimedAt = 0;
  async function claim(): Promise<void> {
    const jobs = [...open.values()];
    const asked = performance.now();
    const answers = await store.claim(
      jobs.map(({ event, delivery, replay }) => ({
        ...keyOf(delivery, channel),
        ...delivery,
        replay,
        idempotencyKey: event.id,
      })),
      owner,
      lease,
    );
    jobs.forEach((job, index) => claims.set(job, answers[index]!));
    claimedAt = asked;
  }

  const halt = new AbortController();
  const halted = AbortSignal.any([stopping, halt.signal]);
  const isOurs = (job: Job) => claims.get(job)?.state === 'ours' && performance.now() < claimedAt + lease - leaseMargin;
  const ended: Ended[] = [];
  /** Of open deliveries the newest attempt that failed and is not reported yet; and what the network has got meanwhile. */
  const failed = new Map<Job, FailedAttempt>();
  const taken = new Map<Job, Taken>();

  /** False if it is still to be made, by whomever. */
  async function deliver(job: Job): Promise<boolean> {
    const { event, delivery, replay } = job;
    const id = idOf(delivery);
    const key = keyOf(delivery, channel);
    const claim = claims.get(job)!;
    if (claim.state === 'theirs') return false;
    if (claim.state === 'ended') {
      ended.push({ event, delivery: { ...key, ...claim.outcome, replay }, recorded: true });
    } else if (claim.state === 'ours') {
      const earlier = unrecorded.get(id);
      const stands = earlier !== undefined && (earlier.delivered || earlier.replay === replay);
      const made = stands ? earlier : await make(job, claim);
      failed.delete(job);
      if (made === undefined) return false;
      if ('taken' in made) {
        taken.set(job, made);
      } else {
        unrecorded.set(id, { ...made, replay });
        ended.push({ event, delivery: { ...key, ...made, replay }, recorded: false });
      }
    }
    open.delete(id);
    return true;
  }

  function make(
    job: Job,
    { idempotencyKey, attempts: attemptsBefore }: Claim & { state: 'ours' },
  ): Promise<Outcome | Taken | undefined> {
    const { event, delivery } = job;
    const { messageId, recipientId, deliverBy } = delivery;
    return withContext({ requestId: event.requestId, messageId, deadline: deliverBy.getTime() }, async () => {
      const mayTry = () => !halted.aborted && isOurs(job);
      const onFailure = (attempt: FailedAttempt) => void failed.set(job, attempt);
      const making = { idempotencyKey, log, mayTry, halted, attemptsBefore, onFailure };
      const made = await makeDelivery(connector, delivery, making);
      if (made !== undefined) attemptsMade.inc({ channel }, Math.max(0, made.attempts - attemptsBefore));
      if (made !== undefined && 'delivered' in made && !made.delivered) {
        const { attempts, error } = made;
        log.warn({ recipient_id: recipientId, channel, attempts, reason: error }, 'delivery failed');
      }
      return made;
    });
  }

  async function deliverAll(): Promise<void> {
    const waiting = conversations.values();
    const worker = async () => {
      for (const conversation of waiting) {
        for (const job of conversation) if (!(await deliver(job))) break;
      }
    };
    await Promise.all(Array.from({ length: Math.min(conversationsAtOnce, conversations.length) }, worker));
  }

  async function report(): Promise<void> {
    const some = ended.splice(0);
    const tried = [...failed]
      .filter(([, { at, nextAt }]) => nextAt.getTime() - at.getTime() >= shortestReportedWait)
      .map(([{ event, delivery, replay }, attempt]) => ({
        event,
        attempt: { ...keyOf(delivery, channel), ...attempt, replay },
      }));
    failed.clear();
    if (tried.length > 0) await store.recordAttempts(tried.map(({ attempt }) => attempt));
    const handedOver = [...taken];
    if (handedOver.length > 0) {
      await store.recordTaken(
        handedOver.map(([{ event, delivery, replay }, { attempts }]) => ({
          ...keyOf(delivery, channel),
          attempts,
          replay,
          requestId: event.requestId,
        })),
      );
      for (const [job] of handedOver) taken.delete(job);
    }
    if (some.length + tried.length === 0) return;
    const fresh = some.filter(({ recorded }) => !recorded);
    const standing = fresh.length === 0 ? [] : await store.record(fresh.map(({ delivery }) => delivery));
    fresh.forEach((each, index) => {
      each.delivery = standing[index]!;
      unrecorded.delete(idOf(each.delivery));
      countEnded(each.delivery);
    });
    await publish(statusTopic, [
      ...tried.map(({ event, attempt }) => attemptOf(event, attempt)),
      ...some.map(({ event, delivery }) => reportOf(event, delivery)),
    ]);
  }

  await claim();
  let done = false;
  const working = deliverAll().finally(() => (done = true));
  try {
    while (!done) {
      await settledWithin(recordEvery, working);
      await report();
      if (!done && performance.now() - claimedAt > lease / 3) await claim();
    }
    await working;
    await report();
  } catch (error) {
    halt.abort();
    await working.catch(() => {});
    throw error;
  }
  if (open.size === 0) return;
  if (stopping.aborted) {
    const mine = [...open.values()].filter((job) => claims.get(job)?.state === 'ours');
    await store.release(
      mine.map(({ delivery }) => keyOf(delivery, channel)),
      owner,
    );
  }
  throw new HubError('UNAVAILABLE', 'DELIVERIES_LEFT', 'Some deliveries are left: they are being made elsewhere', {
    retryAfter: 1,
  });
}

/** Of a delivery over the one channel that is worked on here. */
function idOf({ messageId, recipientId }: { messageId: string; recipientId: string }): string {
  return `${messageId}/${recipientId}`;
}

function keyOf({ messageId, recipientId }: DeliveryToMake, channel: string) {
  return { messageId, recipientId, channel };
}

/** Waits for `work`, but not longer than that; throws if it does. */
async function settledWithin(milliseconds: number, work: Promise<void>): Promise<void> {
  const timer = new AbortController();
  try {
    await Promise.race([work, sleep(milliseconds, undefined, { signal: timer.signal }).catch(() => {})]);
  } finally {
    timer.abort();
  }
}

function attemptOf(cause: ReceivedEvent, attempt: DeliveryKey & FailedAttempt & Round): BusEvent {
  const { messageId, recipientId, channel, replay, attempts } = attempt;
  return {
    id: uuidOf(`${messageId}/${recipientId}/${channel}/${replay}/${attempts}`, reportNamespace),
    type: 'chat4all.message.v1.DeliveryAttempted',
    key: cause.key,
    value: encodeAttempted(attempt),
    requestId: cause.requestId,
  };
}

/** The report on `message_status` of a delivery that has ended, for the one who asked for it. */
export function reportOf(cause: Pick<BusEvent, 'key' | 'requestId'>, delivery: EndedDelivery): BusEvent {
  const { messageId, recipientId, channel, replay } = delivery;
  const what = `${messageId}/${recipientId}/${channel}`;
  return {
    id: uuidOf(replay === 0 ? what : `${what}/${replay}`, reportNamespace),
    type: 'chat4all.message.v1.DeliveryEnded',
    key: cause.key,
    value: encodeEnded(delivery),
    requestId: cause.requestId,
  };
}

/** Says that a delivery whose event is given up has failed, if it can be told which one that is. Needs nothing but the bus. */
export function giveUp(channel: string, publish: Bus['publish']) {
  return async (event: ReceivedEvent, error: unknown): Promise<void> => {
    let asked: ReturnType<typeof readRequested>;
    try {
      asked = readRequested(event, channel);
    } catch {
      // Nobody can say whose it is: the message's own deadline ends it.
      return;
    }
    const reason = error instanceof HubError ? error.message : 'Something went wrong while it was delivered';
    const outcome = { delivered: false, attempts: 0, error: reason, endedAt: new Date(), replay: asked.replay };
    await publish(statusTopic, [reportOf(event, { ...keyOf(asked.delivery, channel), ...outcome })]);
  };
}
