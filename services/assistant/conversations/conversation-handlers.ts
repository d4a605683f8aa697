import type { AssistantServiceService } from '#gen/chat4all/assistant/v1/assistant.ts';
import { readAhead } from '#lib/read-ahead.ts';
import type { UserCall, UserStreamCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Turns } from '../turns/turns.ts';
import type { Conversations } from './conversations-store.ts';
import { conversationMessage, historyMessage } from './wire.ts';

type Own = 'listConversations' | 'getHistory' | 'updateConversation' | 'deleteConversation';

const defaultLimit = 20;

/** RPCs about conversations as they are. That they are the caller's is made sure of before. */
export function conversationHandlers({
  conversations,
  turns,
}: {
  conversations: Conversations;
  turns: Pick<Turns, 'stop'>;
}): Pick<Handlers<AssistantServiceService>, Own> {
  return {
    async listConversations({ limit = defaultLimit, offset }, { caller }: UserCall) {
      const [found, total] = await conversations.list(caller.userId, { limit, offset });
      return { conversations: found.map(conversationMessage), total, limit, offset };
    },

    async *getHistory({ conversationId, limit, beforeId }, _call: UserStreamCall) {
      for await (const messages of readAhead(conversations.history(conversationId, { limit, beforeId }))) {
        yield { messages: messages.map(historyMessage) };
      }
    },

    async updateConversation({ conversationId, title }, { caller }: UserCall) {
      const conversation = await conversations.rename(conversationId, caller.userId, title.trim());
      return { conversation: conversationMessage(conversation) };
    },

    async deleteConversation({ conversationId }, { caller }: UserCall) {
      await turns.stop(conversationId);
      await conversations.remove(conversationId, caller.userId);
      return {};
    },
  };
}
