import { DeliveryEnded, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import type { Bus, Consumer, ReceivedEvent } from '#lib/bus/bus.ts';
import type { Logger } from '#lib/log.ts';
import { repeat, type Loop } from '#lib/loop.ts';
import type { Report } from './message.ts';
import type { Store } from './store.ts';

/** Milliseconds. A message has at least two reports, and one transaction for both is half the work. */
const reportInterval = 100;

/** Applies what router and connectors report on `message_status`. */
export function consumeReports({ bus, store, log }: { bus: Bus; store: Store; log: Logger }): Promise<Consumer> {
  return bus.consume({
    topics: ['message_status'],
    group: 'message',
    interval: reportInterval,
    async handle(events) {
      const reports = events.map(reportOf);
      const { unknown } = await store.applyReports(
        new Map(
          [...Map.groupBy(reports, ({ messageId }) => messageId)].map(([messageId, group]) => [
            messageId,
            group.map(({ report }) => report),
          ]),
        ),
      );
      if (unknown.length > 0) log.error({ unknown }, 'Reports of messages that were never accepted here');
    },
  });
}

/** @throws Error for an event that is none of those that belong on the topic: it goes to the dead letters */
function reportOf({ type, value }: ReceivedEvent): { messageId: string; report: Report } {
  switch (type) {
    case 'chat4all.message.v1.MessageRouted': {
      const { messageId, at, replay } = MessageRouted.decode(value);
      return { messageId, report: { kind: 'routed', at: at ?? new Date(), replay } };
    }
    case 'chat4all.message.v1.MessageRejected': {
      const { messageId, at, reason, replay } = MessageRejected.decode(value);
      return { messageId, report: { kind: 'rejected', at: at ?? new Date(), reason, replay } };
    }
    case 'chat4all.message.v1.DeliveryEnded': {
      const { messageId, recipientId, channel, status, attempts, error, at, replay } = DeliveryEnded.decode(value);
      const delivered = status === MessageStatus.MESSAGE_STATUS_DELIVERED;
      return {
        messageId,
        report: { kind: 'ended', at: at ?? new Date(), replay, recipientId, channel, delivered, attempts, error },
      };
    }
    default:
      throw new Error(`Not a report of a message's status: ${type}`);
  }
}

/** Milliseconds; for short deadlines more often, so that the end comes in time. */
const sweepEvery = 250;
const sweepBatch = 500;

/** Fails what is still open when its time is over, so that every message ends. */
export function startSweep({ store, log, deadline }: { store: Store; log: Logger; deadline: number }): Loop {
  const pause = Math.min(sweepEvery, deadline / 40);
  const reason = `Not delivered within ${deadline / 1000} s`;
  return repeat('The sweep for messages whose time is over', log, async () => {
    const expired = await store.expire(new Date(), reason, sweepBatch);
    if (expired > 0) log.warn({ expired }, 'Messages failed at their deadline');
    return expired === sweepBatch ? 0 : pause;
  });
}
