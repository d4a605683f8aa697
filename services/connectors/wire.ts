import { MessageStatus, PayloadType, Priority } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryEnded } from '#gen/chat4all/message/v1/events.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import type { ReceivedEvent } from '#lib/bus/bus.ts';
import { HubError } from '#lib/errors.ts';
import type { DeliveryToMake } from './connector.ts';
import type { Round } from './delivery.ts';
import type { EndedDelivery } from './store.ts';

const requested = 'chat4all.router.v1.DeliveryRequested';

/** PostgreSQL's idea of a UUID, as the clients' ids are: of any version. */
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * What a DeliveryRequested event for `channel` asks for, and in which round.
 *
 * @throws HubError INVALID_ARGUMENT for an event that doesn't say what has to be known
 */
export function readRequested(
  { id, key, type, value }: ReceivedEvent,
  channel: string,
): { delivery: DeliveryToMake } & Round {
  if (type !== requested) throw unreadable(`its type is ${type}`);
  let event: DeliveryRequested;
  try {
    event = DeliveryRequested.decode(value);
  } catch (error) {
    throw unreadable(`it is no ${requested}`, error);
  }
  const { messageId, conversationId, seq, senderId, recipientId, deliverBy, replay } = event;
  if (!uuidPattern.test(id)) throw unreadable('its id is no UUID');
  if (!uuidPattern.test(messageId)) throw unreadable('message_id is no UUID');
  if (!uuidPattern.test(recipientId)) throw unreadable('recipient_id is no UUID');
  if (!uuidPattern.test(conversationId) || conversationId !== key) throw unreadable('conversation_id is not its key');
  if (event.channel !== channel) throw unreadable(`its channel is ${JSON.stringify(event.channel)}`);
  if (deliverBy === undefined) throw unreadable('deliver_by is missing');
  if (replay < 0) throw unreadable('replay is negative');
  const delivery = {
    messageId,
    conversationId,
    seq,
    senderId,
    recipientId,
    content: contentOf(event),
    priority: priorityOf(event.priority),
    deliverBy,
  };
  return { delivery, replay };
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
  return DeliveryEnded.encode({
    messageId,
    recipientId,
    channel,
    status: outcome.delivered ? MessageStatus.MESSAGE_STATUS_DELIVERED : MessageStatus.MESSAGE_STATUS_FAILED,
    attempts: outcome.attempts,
    error: outcome.error,
    at: outcome.endedAt,
    replay: outcome.replay,
  }).finish();
}
