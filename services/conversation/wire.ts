import { randomUUID } from 'node:crypto';
import {
  ConversationType,
  type Conversation as ConversationMessage,
} from '#gen/chat4all/conversation/v1/conversation.ts';
import { ConversationCreated, MemberJoined, MemberLeft } from '#gen/chat4all/conversation/v1/events.ts';
import { eventTypes, topics } from '#gen/events.ts';
import type { OutboxEvent } from '#lib/database-outbox.ts';
import type { ConversationKind } from './conversation.ts';
import type { Conversation } from './store.ts';
import { encode } from '#lib/encode.ts';

export function kindOf(type: ConversationType): ConversationKind | undefined {
  if (type === ConversationType.CONVERSATION_TYPE_PRIVATE) return 'private';
  return type === ConversationType.CONVERSATION_TYPE_GROUP ? 'group' : undefined;
}

export function toMessage({ id, type, name, description, createdAt, memberIds }: Conversation): ConversationMessage {
  return {
    conversationId: id,
    type: type === 'private' ? ConversationType.CONVERSATION_TYPE_PRIVATE : ConversationType.CONVERSATION_TYPE_GROUP,
    members: memberIds,
    metadata: { name, description },
    createdAt,
  };
}

export function createdEvent(conversation: Conversation, requestId: string): OutboxEvent {
  const value = encode(ConversationCreated, { conversation: toMessage(conversation) });
  // There is only one such event of a conversation, so it has the id of the conversation.
  return { ...about(conversation.id, requestId), id: conversation.id, type: eventTypes.ConversationCreated, value };
}

export interface Addition {
  userId: string;
  /** User id of who adds them. */
  addedBy: string;
}

export function joinedEvent(id: string, addition: Addition & { at: Date }, requestId: string): OutboxEvent {
  const value = encode(MemberJoined, { conversationId: id, ...addition });
  return { ...about(id, requestId), type: eventTypes.MemberJoined, value };
}

export function leftEvent(id: string, who: { userId: string; at: Date }, requestId: string): OutboxEvent {
  const value = encode(MemberLeft, { conversationId: id, ...who });
  return { ...about(id, requestId), type: eventTypes.MemberLeft, value };
}

function about(conversationId: string, requestId: string) {
  return { topic: topics.conversationChanges, id: randomUUID() as string, key: conversationId, requestId };
}
