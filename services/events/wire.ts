import * as conversations from '#gen/chat4all/conversation/v1/events.ts';
import type { Conversation } from '#gen/chat4all/conversation/v1/conversation.ts';
import * as files from '#gen/chat4all/file/v1/events.ts';
import { EventType, StreamEventsResponse, type WebhookPaused } from '#gen/chat4all/events/v1/events.ts';
import * as messages from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus, type Delivery } from '#gen/chat4all/message/v1/message.ts';
import { eventTypes } from '#gen/events.ts';
import type { ReceivedEvent } from '#lib/bus/bus.ts';
import { hubDate } from '#lib/clock.ts';
import type { NewEntry } from './log/log-store.ts';
import { encode } from '#lib/encode.ts';

/** The numbers of the fields of `StreamEventsResponse.event` that stand in the log. */
export const fieldOf: Record<Exclude<EventType, EventType.EVENT_TYPE_UNSPECIFIED | EventType.UNRECOGNIZED>, number> = {
  [EventType.EVENT_TYPE_MESSAGE_ACCEPTED]: 20,
  [EventType.EVENT_TYPE_DELIVERY_CHANGED]: 21,
  [EventType.EVENT_TYPE_MESSAGE_READ]: 22,
  [EventType.EVENT_TYPE_CONVERSATION_CREATED]: 23,
  [EventType.EVENT_TYPE_MEMBER_JOINED]: 24,
  [EventType.EVENT_TYPE_MEMBER_LEFT]: 25,
  [EventType.EVENT_TYPE_FILE_COMPLETED]: 26,
  [EventType.EVENT_TYPE_WEBHOOK_PAUSED]: 27,
};

/** The field numbers of event types. EVENT_TYPE_UNSPECIFIED is not among them: the rules of the protos refuse it. */
export function fieldsOf(types: readonly EventType[]): number[] {
  return types.map((type) => fieldOf[type as keyof typeof fieldOf]);
}

type What = NonNullable<StreamEventsResponse['event']>;

/**
 * An event of the bus as it stands in the log.
 *
 * @throws Error for an event that can't be read: it goes to the dead letters
 */
export function entryOf(event: ReceivedEvent): NewEntry {
  const { id: eventId, type, value } = event;
  switch (type) {
    case eventTypes.MessageAccepted: {
      const accepted = messages.MessageAccepted.decode(value);
      const { conversationId, acceptedAt: at = hubDate() } = accepted;
      const what = accepted.replay === 0 ? acceptance(accepted, at) : replay(eventId, accepted, at);
      return { ...about(eventId, conversationId), ...what };
    }
    case eventTypes.MessageChanged: {
      const { at = hubDate(), ...changed } = messages.MessageChanged.decode(value);
      const what: What = { $case: 'deliveryChanged', value: changed };
      return {
        ...about(eventId, changed.conversationId),
        ...encoded(EventType.EVENT_TYPE_DELIVERY_CHANGED, eventId, at, what),
      };
    }
    case eventTypes.MessageRead: {
      const { at = hubDate(), ...read } = messages.MessageRead.decode(value);
      return {
        ...about(eventId, read.conversationId),
        ...encoded(EventType.EVENT_TYPE_MESSAGE_READ, eventId, at, { $case: 'messageRead', value: read }),
      };
    }
    case eventTypes.ConversationCreated: {
      const { conversation } = conversations.ConversationCreated.decode(value);
      if (conversation === undefined) throw new Error('The event has no conversation');
      return createdEntry(conversation);
    }
    case eventTypes.MemberJoined: {
      const { at = hubDate(), ...joined } = conversations.MemberJoined.decode(value);
      return {
        ...about(eventId, joined.conversationId),
        ...encoded(EventType.EVENT_TYPE_MEMBER_JOINED, eventId, at, { $case: 'memberJoined', value: joined }),
        joins: [joined.userId],
      };
    }
    case eventTypes.MemberLeft: {
      const { at = hubDate(), ...left } = conversations.MemberLeft.decode(value);
      return {
        ...about(eventId, left.conversationId),
        ...encoded(EventType.EVENT_TYPE_MEMBER_LEFT, eventId, at, { $case: 'memberLeft', value: left }),
        leaves: [left.userId],
      };
    }
    case eventTypes.FileCompleted: {
      const { at = hubDate(), ownerId: userId, ...completed } = files.FileCompleted.decode(value);
      return {
        eventId,
        conversationId: null,
        userId,
        ...encoded(EventType.EVENT_TYPE_FILE_COMPLETED, eventId, at, { $case: 'fileCompleted', value: completed }),
      };
    }
    default:
      throw new Error(`Not an event that clients are told: ${type}`);
  }
}

/** That a conversation was opened. The event has the id of the conversation, so that it is in the log once, wherever it is known from. */
export function createdEntry(conversation: Conversation): NewEntry {
  const { conversationId: id, members, createdAt: at = hubDate() } = conversation;
  const what: What = { $case: 'conversationCreated', value: { conversation } };
  return { ...about(id, id), ...encoded(EventType.EVENT_TYPE_CONVERSATION_CREATED, id, at, what), joins: members };
}

/** That a webhook was paused or disabled. */
export function webhookPausedEntry(eventId: string, userId: string, at: Date, paused: WebhookPaused): NewEntry {
  const what: What = { $case: 'webhookPaused', value: paused };
  return { eventId, conversationId: null, userId, ...encoded(EventType.EVENT_TYPE_WEBHOOK_PAUSED, eventId, at, what) };
}

function about(eventId: string, conversationId: string) {
  return { eventId, conversationId, userId: null };
}

function encoded(type: keyof typeof fieldOf, eventId: string, at: Date, event: What): Pick<NewEntry, 'type' | 'body'> {
  const body = encode(StreamEventsResponse, { cursor: '', eventId, at, event });
  return { type: fieldOf[type], body };
}

function acceptance(accepted: messages.MessageAccepted, at: Date) {
  const { messageId, conversationId, seq, senderId, senderUsername, recipientIds, channels, payload, priority } =
    accepted;
  const message = {
    messageId,
    conversationId,
    seq,
    from: senderId,
    sender: { userId: senderId, username: senderUsername },
    to: recipientIds,
    channels,
    payload,
    priority,
    status: MessageStatus.MESSAGE_STATUS_ACCEPTED,
    createdAt: at,
    updatedAt: at,
    readBy: 0,
  };
  return encoded(EventType.EVENT_TYPE_MESSAGE_ACCEPTED, messageId, at, {
    $case: 'messageAccepted',
    value: { message },
  });
}

/** A replayed message is not a new one: what failed of it begins anew. */
function replay(eventId: string, accepted: messages.MessageAccepted, at: Date) {
  const { messageId, conversationId, seq, only, replay: round } = accepted;
  const deliveries = only.map(({ recipientId, channel }): Delivery => ({
    recipient: recipientId,
    channel,
    status: MessageStatus.MESSAGE_STATUS_ACCEPTED,
    attempts: 0,
    error: '',
    updatedAt: at,
    nextAttemptAt: undefined,
  }));
  const status = MessageStatus.MESSAGE_STATUS_ACCEPTED;
  const value = { messageId, conversationId, seq, status, note: '', deliveries, replay: round };
  return encoded(EventType.EVENT_TYPE_DELIVERY_CHANGED, eventId, at, { $case: 'deliveryChanged', value });
}
