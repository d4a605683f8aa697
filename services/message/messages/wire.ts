import { MessageAccepted, type DeliveryTarget } from '#gen/chat4all/message/v1/events.ts';
import {
  MessageOrder,
  MessageStatus,
  PayloadType,
  Priority as WirePriority,
  type GetMessageResponse,
  type Message,
  type Payload,
  type SendMessageRequest,
} from '#gen/chat4all/message/v1/message.ts';
import type { Content, Draft, Priority, Status } from '../message.ts';
import type { MessageDetails, StoredMessage } from './store.ts';

const statuses: Record<Status, MessageStatus> = {
  accepted: MessageStatus.MESSAGE_STATUS_ACCEPTED,
  in_transit: MessageStatus.MESSAGE_STATUS_IN_TRANSIT,
  delivered: MessageStatus.MESSAGE_STATUS_DELIVERED,
  failed: MessageStatus.MESSAGE_STATUS_FAILED,
};

const priorities: Record<Priority, WirePriority> = {
  low: WirePriority.PRIORITY_LOW,
  normal: WirePriority.PRIORITY_NORMAL,
  high: WirePriority.PRIORITY_HIGH,
};

/** A validated request as the sender means it. */
export function draftOf(request: SendMessageRequest): Draft {
  const named = Object.entries(priorities).find(([, value]) => value === request.priority);
  return {
    messageId: request.messageId,
    conversationId: request.conversationId,
    senderId: request.from,
    to: request.to,
    channels: request.channels,
    content: contentOf(request.payload),
    priority: (named?.[0] as Priority | undefined) ?? 'normal',
  };
}

/** Only what belongs to the type counts: a file_id beside a text means nothing. */
export function contentOf(payload: Payload | undefined): Content {
  return payload?.type === PayloadType.PAYLOAD_TYPE_FILE
    ? { type: 'file', text: '', fileId: payload.fileId }
    : { type: 'text', text: payload?.text ?? '', fileId: '' };
}

export function payloadOf({ type, text, fileId, label }: Content): Payload {
  return {
    type: type === 'file' ? PayloadType.PAYLOAD_TYPE_FILE : PayloadType.PAYLOAD_TYPE_TEXT,
    text,
    fileId,
    filename: label?.filename ?? '',
    fileSize: BigInt(label?.fileSize ?? 0),
    contentType: label?.contentType ?? '',
  };
}

export function priorityOf(priority: Priority): WirePriority {
  return priorities[priority];
}

export function statusOf(status: Status): MessageStatus {
  return statuses[status];
}

export function orderOf(order: MessageOrder): 'asc' | 'desc' {
  return order === MessageOrder.MESSAGE_ORDER_ASC ? 'asc' : 'desc';
}

export function messageOf(message: StoredMessage): Message {
  return {
    messageId: message.messageId,
    conversationId: message.conversationId,
    seq: BigInt(message.seq),
    from: message.senderId,
    sender: { userId: message.senderId, username: message.senderUsername },
    to: message.recipientIds,
    channels: message.channels,
    payload: payloadOf(message.content),
    priority: priorityOf(message.priority),
    status: statusOf(message.status),
    createdAt: message.createdAt,
    updatedAt: message.updatedAt,
  };
}

/** The event that a message was accepted or replayed, without its position: that is put behind it by `withSeq`. */
export function acceptedEventOf(
  message: Omit<StoredMessage, 'seq' | 'status' | 'updatedAt'>,
  only: readonly DeliveryTarget[] = [],
): Uint8Array {
  return MessageAccepted.encode({
    messageId: message.messageId,
    conversationId: message.conversationId,
    seq: 0n,
    senderId: message.senderId,
    recipientIds: message.recipientIds,
    channels: message.channels,
    payload: payloadOf(message.content),
    priority: priorityOf(message.priority),
    acceptedAt: message.createdAt,
    deliverBy: message.deliverBy,
    replay: message.replay,
    only: [...only],
  }).finish();
}

/** An encoded MessageAccepted with its position: encodings of protobuf messages that are joined are the encoding of one message. */
export function withSeq(event: Uint8Array, seq: bigint): Uint8Array {
  return Buffer.concat([event, MessageAccepted.encode(MessageAccepted.create({ seq })).finish()]);
}

export function detailsOf(message: MessageDetails): GetMessageResponse {
  return {
    ...messageOf(message),
    history: message.history.map(({ status, at, note }) => ({ status: statusOf(status), at, note })),
    deliveries: message.deliveries.map(({ recipientId, status, nextAttemptAt, ...delivery }) => ({
      ...delivery,
      recipient: recipientId,
      status: statusOf(status),
      nextAttemptAt: nextAttemptAt ?? undefined,
    })),
  };
}
