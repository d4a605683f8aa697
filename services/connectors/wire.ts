import { v5 as uuidOf } from 'uuid';
import { MessageStatus, PayloadType, Priority } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryAttempted, DeliveryEnded } from '#gen/chat4all/message/v1/events.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import { eventTypes } from '#gen/events.ts';
import type { ReceivedEvent } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import { isUuid } from '#lib/uuid.ts';
import type { Job } from './attempt.ts';
import type { DeliveryToMake } from './connector.ts';
import type { DeliveryKey, EndedDelivery, FailedAttempt, Round } from './delivery.ts';
import type { ParkedDelivery } from './lanes-store.ts';
import { encode } from '#lib/encode.ts';

const requested = eventTypes.DeliveryRequested;

const maxRecipients = 100;

/**
 * Reads a DeliveryRequested event for `channel`: the round, and a delivery for each recipient, with its idempotency key.
 *
 * @throws HubError INVALID_ARGUMENT for an event that lacks something or can't be read
 */
export function readRequested(
  { id, key, type, value }: Pick<ReceivedEvent, 'id' | 'key' | 'type' | 'value'>,
  channel: string,
): { deliveries: { delivery: DeliveryToMake; idempotencyKey: string }[]; acceptedAt: Date | undefined } & Round {
  if (type !== requested) throw unreadable(`its type is ${type}`);
  let event: DeliveryRequested;
  try {
    event = DeliveryRequested.decode(value);
  } catch (error) {
    throw unreadable(`it is no ${requested}`, error);
  }
  const { messageId, conversationId, seq, senderId, deliverBy, replay, acceptedAt } = event;
  // An event in the older format for a single delivery has the delivery's id.
  const isForOne = event.recipientIds.length === 0;
  const recipientIds = isForOne ? [event.recipientId] : event.recipientIds;
  if (!isUuid(id)) throw unreadable('its id is no UUID');
  if (!isUuid(messageId)) throw unreadable('message_id is no UUID');
  if (recipientIds.length > maxRecipients) throw unreadable(`it has more than ${maxRecipients} recipient_ids`);
  if (!recipientIds.every(isUuid)) throw unreadable('recipient_id is no UUID');
  if (!isUuid(conversationId) || conversationId !== key) throw unreadable('conversation_id is not its key');
  if (event.channel !== channel) throw unreadable(`its channel is ${JSON.stringify(event.channel)}`);
  if (deliverBy === undefined) throw unreadable('deliver_by is missing');
  if (replay < 0) throw unreadable('replay is negative');
  const content = contentOf(event);
  const priority = priorityOf(event.priority);
  const deliveries = recipientIds.map((recipientId) => ({
    delivery: { messageId, conversationId, seq, senderId, recipientId, content, priority, deliverBy },
    idempotencyKey: isForOne ? id : uuidOf(recipientId, id),
  }));
  return { deliveries, replay, acceptedAt };
}

/** A parked delivery with all that an attempt needs. */
export function jobOf(parked: ParkedDelivery): Job {
  const { request, recipientId, conversationId, channel, replay, attempts, error, idempotencyKey } = parked;
  const event = { id: request.id, key: conversationId, type: requested, value: request.value };
  const { deliveries, acceptedAt } = readRequested(event, channel);
  const { delivery } = deliveries.find((each) => each.delivery.recipientId === recipientId)!;
  return { delivery, acceptedAt, idempotencyKey, replay, attempts, error, callId: request.callId };
}

function contentOf({ payload }: DeliveryRequested): DeliveryToMake['content'] {
  switch (payload?.type) {
    case PayloadType.PAYLOAD_TYPE_TEXT:
      return { type: 'text', text: payload.text };
    case PayloadType.PAYLOAD_TYPE_FILE: {
      const { fileId, filename, fileSize, contentType } = payload;
      return { type: 'file', fileId, filename, fileSize, contentType };
    }
    default:
      throw unreadable('payload is neither a text nor a file');
  }
}

function priorityOf(priority: Priority): DeliveryToMake['priority'] {
  if (priority === Priority.PRIORITY_LOW) return 'low';
  return priority === Priority.PRIORITY_HIGH ? 'high' : 'normal';
}

function unreadable(what: string, cause?: unknown): HubError {
  return new HubError('INVALID_ARGUMENT', 'UNREADABLE_EVENT', `The event could not be read: ${what}`, { cause });
}

/** The value of a DeliveryEnded event. */
export function encodeEnded({ messageId, recipientId, channel, ...outcome }: EndedDelivery): Uint8Array {
  return encode(DeliveryEnded, {
    messageId,
    recipientId,
    channel,
    status: outcome.delivered ? MessageStatus.MESSAGE_STATUS_DELIVERED : MessageStatus.MESSAGE_STATUS_FAILED,
    attempts: outcome.attempts,
    error: outcome.error,
    at: outcome.endedAt,
    replay: outcome.replay,
  });
}

/** The value of a DeliveryAttempted event. */
export function encodeAttempted(tried: DeliveryKey & FailedAttempt & Round): Uint8Array {
  const { nextAt: nextAttemptAt, ...attempt } = tried;
  return encode(DeliveryAttempted, { ...attempt, nextAttemptAt });
}
