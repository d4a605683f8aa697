import type { AssistantServiceService } from '#gen/chat4all/assistant/v1/assistant.ts';
import type { FieldViolation } from '#lib/errors.ts';
import type { Identity } from '#lib/identity.ts';
import type { Checks, Finds, Handlers } from '#lib/rpc/server.ts';
import { conversationHandlers } from './conversations/conversation-handlers.ts';
import type { Conversations } from './conversations/conversations-store.ts';
import type { Streams } from './streams.ts';
import { turnHandlers } from './turns/turn-handlers.ts';
import type { Turns } from './turns/turns.ts';

export function assistantHandlers(options: {
  conversations: Conversations;
  turns: Turns;
  streams: Streams;
}): Handlers<AssistantServiceService> {
  return { ...conversationHandlers(options), ...turnHandlers(options.turns, options.streams) };
}

/** That the conversation exists which a request is about, and is the caller's. */
export function assistantFinds(conversations: Pick<Conversations, 'find'>): Finds<AssistantServiceService> {
  const find = async (
    { conversationId }: { conversationId: bigint | undefined },
    _found: readonly FieldViolation[],
    caller: Identity | undefined,
  ) => {
    if (conversationId === undefined || caller?.kind !== 'user') return;
    await conversations.find(conversationId, caller.userId);
  };
  return {
    chat: find,
    getHistory: find,
    updateConversation: find,
    deleteConversation: find,
    streamAnswer: find,
    stopAnswer: find,
    regenerateAnswer: find,
    decideApproval: find,
  };
}

const blank = (field: string, text: string): FieldViolation[] =>
  text !== '' && text.trim() === '' ? [{ field, description: 'must not be white space only', rule: 'not_blank' }] : [];

export const assistantChecks: Checks<AssistantServiceService> = {
  chat: ({ message }) => blank('message', message),
  updateConversation: ({ title }) => blank('title', title),
};
