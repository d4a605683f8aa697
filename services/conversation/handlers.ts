import type { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import {
  ConversationType,
  type Conversation as ConversationMessage,
  type ConversationServiceService,
} from '#gen/chat4all/conversation/v1/conversation.ts';
import { invalidFields } from '#lib/errors.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import {
  chooseMembers,
  conversationNotFound,
  notAmongMembers,
  notAMember,
  possibleUsers,
  type ConversationKind,
} from './conversation.ts';
import type { Conversation, Store } from './store.ts';

export interface HandlerOptions {
  store: Store;
  auth: Pick<Connection<AuthServiceService>, 'lookupUsers'>;
}

const defaultLimit = 50;

export function openHandlers({ store, auth }: HandlerOptions): Handlers<ConversationServiceService> {
  return {
    async createConversation({ type, members, metadata }, { caller }: UserCall) {
      const kind = kindOf(type);
      const { users } = await auth.lookupUsers(possibleUsers(members));
      const { userIds, problems } = chooseMembers(kind, members, users);
      if (kind === undefined || problems.length > 0) throw invalidFields(problems);
      if (!userIds.includes(caller.userId)) throw notAmongMembers();
      const { name = '', description = '' } = metadata ?? {};
      return {
        conversation: toMessage(await store.createConversation({ type: kind, name, description, memberIds: userIds })),
      };
    },

    async listConversations({ limit = defaultLimit, offset }, { caller }: UserCall) {
      const [conversations, total] = await store.listConversations(caller.userId, { limit, offset });
      return { conversations: conversations.map(toMessage), total: BigInt(total), limit, offset };
    },

    async getConversation({ conversationId }, { caller }: UserCall) {
      const found = await store.findConversation(conversationId);
      if (found === undefined) throw conversationNotFound();
      if (!found.memberIds.includes(caller.userId)) throw notAMember();
      return { conversation: toMessage(found) };
    },

    async leaveConversation({ conversationId }, { caller }: UserCall) {
      if (await store.leaveConversation(conversationId, caller.userId)) return {};
      throw (await store.findMembership(conversationId)) === undefined ? conversationNotFound() : notAMember();
    },

    async getMembership({ conversationId }) {
      const memberIds = await store.findMembership(conversationId);
      if (memberIds === undefined) throw conversationNotFound();
      return { memberIds };
    },

    async getMemberships({ conversationIds }) {
      const found = await store.findMemberships(conversationIds);
      return { memberships: found.map(({ id, memberIds }) => ({ conversationId: id, memberIds })) };
    },

    async filterMemberships({ userId, conversationIds }) {
      return { conversationIds: await store.filterMemberships(userId, conversationIds) };
    },
  };
}

/** What is wrong with the members, beside what is wrong already: by itself the handler says it. */
export function openChecks({ auth }: Pick<HandlerOptions, 'auth'>): Checks<ConversationServiceService> {
  return {
    async createConversation({ type, members }, found) {
      if (found.length === 0 || found.some(({ field }) => field === 'members')) return [];
      const { users } = await auth.lookupUsers(possibleUsers(members));
      return chooseMembers(kindOf(type), members, users).problems;
    },
  };
}

function kindOf(type: ConversationType): ConversationKind | undefined {
  if (type === ConversationType.CONVERSATION_TYPE_PRIVATE) return 'private';
  return type === ConversationType.CONVERSATION_TYPE_GROUP ? 'group' : undefined;
}

function toMessage({ id, type, name, description, createdAt, memberIds }: Conversation): ConversationMessage {
  return {
    conversationId: id,
    type: type === 'private' ? ConversationType.CONVERSATION_TYPE_PRIVATE : ConversationType.CONVERSATION_TYPE_GROUP,
    members: memberIds,
    metadata: { name, description },
    createdAt,
  };
}
