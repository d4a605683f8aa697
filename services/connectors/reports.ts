import { v5 as uuidOf } from 'uuid';
import { eventTypes } from '#gen/events.ts';
import type { BusEvent } from '#lib/bus/bus.ts';
import { beginAtZero, counter } from '#lib/metrics.ts';
import type { DeliveryKey, EndedDelivery, FailedAttempt, Round } from './delivery.ts';
import { encodeAttempted, encodeEnded } from './wire.ts';

/** The namespace for ids of reports, which are derived from their content, so that a repeated report has the same id. */
const reportNamespace = '8e0f6f2b-1f60-4a52-9d0c-3b7c2a4f9e55';

/** An attempt is only reported if the next one comes later than this. */
const minReportedWaitMs = 200;

const endedDeliveries = counter('deliveries_total', 'Deliveries that were made or failed, replays included', [
  'channel',
  'status',
]);

/** Makes the counter of a channel's deliveries begin at 0, so that a monitor sees the first one as an increase. */
export function beginCounting(channel: string): void {
  beginAtZero(endedDeliveries, { channel: [channel], status: ['delivered', 'failed'] });
}

/** Counts a delivery that has just been recorded as ended. */
export function countEnded({ channel, delivered }: Pick<EndedDelivery, 'channel' | 'delivered'>): void {
  endedDeliveries.inc({ channel, status: delivered ? 'delivered' : 'failed' });
}

/** What caused a delivery. */
export interface Cause {
  conversationId: string;
  /** Request id of the call that the delivery comes from. */
  callId: string;
}

/** Whether an attempt is reported: only if the delivery then stays open for a while. */
export function isReported({ at, nextAt }: FailedAttempt): boolean {
  return nextAt.getTime() - at.getTime() >= minReportedWaitMs;
}

/** The report on `message_status` of an attempt that failed and will be followed by another. */
export function attemptReport(
  { conversationId, callId }: Cause,
  attempt: DeliveryKey & FailedAttempt & Round,
): BusEvent {
  const { messageId, recipientId, channel, replay, attempts } = attempt;
  return {
    id: uuidOf(`${messageId}/${recipientId}/${channel}/${replay}/${attempts}`, reportNamespace),
    type: eventTypes.DeliveryAttempted,
    key: conversationId,
    value: encodeAttempted(attempt),
    requestId: callId,
  };
}

/** The report on `message_status` of a delivery that has ended. */
export function endReport({ conversationId, callId }: Cause, delivery: EndedDelivery): BusEvent {
  const { messageId, recipientId, channel, replay } = delivery;
  const what = `${messageId}/${recipientId}/${channel}`;
  return {
    id: uuidOf(replay === 0 ? what : `${what}/${replay}`, reportNamespace),
    type: eventTypes.DeliveryEnded,
    key: conversationId,
    value: encodeEnded(delivery),
    requestId: callId,
  };
}
