import { v4 as uuid } from 'uuid';
import { groups, topics } from '#gen/events.ts';
import type { Bus, Consumer, ReceivedEvent } from '#lib/bus/bus.ts';
import { hubDate, hubTime } from '#lib/clock.ts';
import { HubError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { attempting } from './attempt.ts';
import { causeOf, deliver, idOf, keyOf, type Asked, type DeliveringOptions, type Unrecorded } from './batch.ts';
import type { Connector } from './connector.ts';
import { failed } from './delivery.ts';
import { startLanes } from './lanes.ts';
import type { Loads } from './load.ts';
import { beginCounting, endReport } from './reports.ts';
import { Slots } from './slots.ts';
import type { Store } from './store.ts';
import { readRequested } from './wire.ts';

/** The maximum number of deliveries that are claimed together. An event may request a hundred. */
const maxClaimedTogether = 1_000;
/** How long an outcome that could not be recorded is kept: by then its event has come again, here or to another process. */
const maxUnrecordedMs = 3_600_000;

export interface ChannelOptions {
  bus: Bus;
  connector: Connector;
  store: Store;
  log: Logger;
  /** Milliseconds that the network may take for one attempt. */
  timeout: number;
  /** The maximum number of concurrent calls to the network for deliveries from the bus; half as many for parked ones. */
  atOnce: number;
  loads: Pick<Loads, 'count' | 'countBehind'>;
}

/** Makes the deliveries of one channel, those from the bus and parked ones. */
export async function consumeDeliveries(options: ChannelOptions): Promise<Consumer> {
  const { bus, connector, store, log, timeout, atOnce, loads } = options;
  const { name } = connector;
  const { publish } = bus;
  beginCounting(name);
  const stopping = new AbortController();
  const owner = uuid();
  const attempt = attempting({ connector, log, timeout });
  const parkedSlots = new Slots(Math.ceil(atOnce / 2));
  const lanes = startLanes({ channel: name, store, publish, attempt, slots: parkedSlots, log, owner, loads });
  const handle = delivering({
    connector,
    store,
    publish,
    attempt,
    slots: new Slots(atOnce),
    lanes,
    loads,
    owner,
    stopping: stopping.signal,
  });
  try {
    const consumer = await bus.consume({
      topics: [topics.outgoing(name)],
      group: groups.connector(name),
      handle,
      onDeadLetter: giveUp(name, publish),
    });
    return {
      async stop() {
        stopping.abort();
        await consumer.stop();
        await lanes.stop();
      },
    };
  } catch (error) {
    await lanes.stop();
    throw error;
  }
}

/**
 * Makes the handler of a batch of events: claims the deliveries, tries each once, and records and reports how they ended. A delivery that
 * has to wait is parked, with all those behind it in its lane, and so is one that the network hasn't answered after a quarter of a second:
 * then the events are acknowledged, and the parked deliveries go on by themselves (`startLanes`).
 *
 * Two processes may be given the same events for a while. The one that claims a delivery first makes it; to keep the order, the other makes
 * none behind it in that lane, and gets the event again later. After a crash the claim expires, and the next process tries again with the
 * same idempotency key.
 */
export function delivering(options: DeliveringOptions) {
  const unrecorded: Unrecorded = new Map();
  /** By conversation, the end of its last batch, including attempts that outlast the batch. */
  const turns = new Map<string, Promise<unknown>>();

  return async (events: readonly ReceivedEvent[]): Promise<void> => {
    // A claim only keeps out other processes: within this one, batches of the same conversation wait for each other.
    const conversations = new Set(events.map(({ key }) => key));
    const before = [...conversations].flatMap((key) => turns.get(key) ?? []);
    const leftUnderWay: Promise<unknown>[] = [];
    const work = Promise.all(before).then(() => deliverBatch(options, unrecorded, events, leftUnderWay));
    const over = work.catch(() => {}).then(() => Promise.all(leftUnderWay));
    for (const key of conversations) turns.set(key, over);
    void over.then(() => {
      for (const key of conversations) if (turns.get(key) === over) turns.delete(key);
    });
    return work;
  };
}

async function deliverBatch(
  options: DeliveringOptions,
  unrecorded: Unrecorded,
  events: readonly ReceivedEvent[],
  leftUnderWay: Promise<unknown>[],
): Promise<void> {
  const forgotten = hubTime() - maxUnrecordedMs;
  for (const [id, result] of unrecorded)
    if ('outcome' in result && +result.outcome.endedAt < forgotten) unrecorded.delete(id);
  const asked = deliveriesIn(events, options.connector.name);
  for (let next = 0; next < asked.length; next += maxClaimedTogether) {
    await deliver(options, unrecorded, asked.slice(next, next + maxClaimedTogether), leftUnderWay);
  }
}

/** The deliveries that events request, in order; only the last round of each. */
function deliveriesIn(events: readonly ReceivedEvent[], channel: string): Asked[] {
  const found = new Map<string, Asked>();
  for (const event of events) {
    const { deliveries, replay, acceptedAt } = readRequested(event, channel);
    const request = { id: event.id, value: event.value, callId: event.requestId };
    for (const { delivery, idempotencyKey } of deliveries) {
      const { conversationId, recipientId } = delivery;
      const known = found.get(idOf(delivery));
      if (known !== undefined && known.replay >= replay) continue;
      found.set(idOf(delivery), {
        delivery,
        acceptedAt,
        idempotencyKey,
        replay,
        attempts: 0,
        error: '',
        callId: event.requestId,
        lane: { channel, conversationId, recipientId },
        request,
        state: 'pending',
      });
    }
  }
  return [...found.values()];
}

/** Reports the deliveries of an event that becomes a dead letter as failed, as far as the event can be read. Needs nothing but the bus. */
export function giveUp(channel: string, publish: Bus['publish']) {
  return async (event: ReceivedEvent, error: unknown): Promise<void> => {
    let asked: Asked[];
    try {
      asked = deliveriesIn([event], channel);
    } catch {
      // An unreadable event names no message, whose deliveries then end at their deadline.
      return;
    }
    const reason = error instanceof HubError ? error.message : 'Something went wrong while it was delivered';
    const { outcome } = failed(0, reason, hubDate());
    await publish(
      topics.messageStatus,
      asked.map((each) => endReport(causeOf(each), { ...keyOf(each, channel), ...outcome, replay: each.replay })),
    );
  };
}
