import { randomUUID } from 'node:crypto';
import { MessageAccepted, MessageChanged, MessageRead, type DeliveryTarget } from '#gen/chat4all/message/v1/events.ts';
import {
  MessageOrder,
  MessageStatus,
  PayloadType,
  Priority as WirePriority,
  type Delivery,
  type GetMessageResponse,
  type Message,
  type Payload,
  type SendMessageRequest,
} from '#gen/chat4all/message/v1/message.ts';
import { eventTypes, topics } from '#gen/events.ts';
import { currentContext } from '#lib/context.ts';
import type { OutboxEvent } from '#lib/database-outbox.ts';
import type { Content, DeliveryState, Draft, Priority, Settlement, Status } from '../message.ts';
import type { ReadPosition } from './reads-store.ts';
import type { MessageDetails, StoredMessage } from './store.ts';
import { encode } from '#lib/encode.ts';

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

/** Only the field of the type counts: a file_id in a text message is ignored. */
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

/** @param readBy how many members other than the sender have read it */
export function messageOf(message: StoredMessage, readBy = 0): Message {
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
    readBy,
  };
}

/** The event for an accepted or replayed message, without its position, which `withSeq` appends. */
export function acceptedEventOf(
  message: Omit<StoredMessage, 'seq' | 'status' | 'updatedAt'>,
  only: readonly DeliveryTarget[] = [],
): Buffer {
  return encode(MessageAccepted, {
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
    senderUsername: message.senderUsername,
  });
}

/** Appends the position to an encoded MessageAccepted: concatenated encodings of protobuf messages are merged into one message. */
export function withSeq(event: Uint8Array, seq: bigint): Uint8Array {
  return Buffer.concat([event, encode(MessageAccepted, MessageAccepted.create({ seq }))]);
}

/** What a settlement has changed of a message that was as `before` says. */
export function changeEvent(
  before: { messageId: string; conversationId: string; seq: bigint; replay: number; status: Status; updatedAt: Date },
  { deliveries, history }: Settlement,
): OutboxEvent {
  const { messageId, conversationId, seq, replay } = before;
  const { status, at, note } = history.at(-1) ?? { status: before.status, at: before.updatedAt, note: '' };
  const changed = deliveries.map(deliveryOf);
  const latest = changed.reduce((latest, { updatedAt }) => (updatedAt! > latest ? updatedAt! : latest), at);
  const value = encode(MessageChanged, {
    messageId,
    conversationId,
    seq,
    status: statusOf(status),
    note,
    deliveries: changed,
    at: latest,
    replay,
  });
  // Reports come in rounds: then no call is the one that they come from.
  const requestId = currentContext()?.requestId ?? messageId;
  return {
    topic: topics.messageChanges,
    id: randomUUID(),
    type: eventTypes.MessageChanged,
    key: conversationId,
    value,
    requestId,
  };
}

/** That somebody has read on. */
export function readEvent(conversationId: string, { userId, seq, at }: ReadPosition, requestId: string): OutboxEvent {
  return {
    topic: topics.messageChanges,
    id: randomUUID(),
    type: eventTypes.MessageRead,
    key: conversationId,
    value: encode(MessageRead, { conversationId, userId, seq: BigInt(seq), at }),
    requestId,
  };
}

function deliveryOf({ recipientId, status, nextAttemptAt, ...delivery }: DeliveryState): Delivery {
  return {
    ...delivery,
    recipient: recipientId,
    status: statusOf(status),
    nextAttemptAt: nextAttemptAt ?? undefined,
  };
}

export function detailsOf(message: MessageDetails): GetMessageResponse {
  const { readBy: _onlyInLists, ...about } = messageOf(message);
  return {
    ...about,
    history: message.history.map(({ status, at, note }) => ({ status: statusOf(status), at, note })),
    deliveries: message.deliveries.map(deliveryOf),
  };
}
