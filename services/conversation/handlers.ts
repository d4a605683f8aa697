import type { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import type { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
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
  requireRoom,
} from './conversation.ts';
import type { Store } from './store.ts';
import { kindOf, toMessage } from './wire.ts';

export interface HandlerOptions {
  store: Store;
  auth: Pick<Connection<AuthServiceService>, 'lookupUsers'>;
  /** To be called when something has changed. */
  changed: () => void;
}

const defaultLimit = 50;

export function openHandlers({ store, auth, changed }: HandlerOptions): Handlers<ConversationServiceService> {
  return {
    async createConversation({ type, members, metadata }, { caller, requestId }: UserCall) {
      const kind = kindOf(type);
      const { users } = await auth.lookupUsers(possibleUsers(members));
      const { userIds, problems } = chooseMembers(kind, members, users);
      if (kind === undefined || problems.length > 0) throw invalidFields(problems);
      if (!userIds.includes(caller.userId)) throw notAmongMembers();
      const { name = '', description = '' } = metadata ?? {};
      const wanted = { type: kind, name, description, memberIds: userIds };
      const conversation = await store.createConversation(wanted, requestId);
      changed();
      return { conversation: toMessage(conversation) };
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

    async addMember({ conversationId, member }, { caller, requestId }: UserCall) {
      const found = await store.findConversation(conversationId);
      if (found === undefined) throw conversationNotFound();
      if (!found.memberIds.includes(caller.userId)) throw notAMember();
      const { users } = await auth.lookupUsers(possibleUsers([member]));
      const [userId] = chooseMembers(undefined, [member], users).userIds;
      if (userId === undefined) {
        throw invalidFields([{ field: 'member', description: 'is neither the id nor the name of a user' }]);
      }
      const addition = { userId, addedBy: caller.userId };
      const conversation = await store.addMember(conversationId, addition, requireRoom, requestId);
      changed();
      return { conversation: toMessage(conversation) };
    },

    async leaveConversation({ conversationId }, { caller, requestId }: UserCall) {
      if (await store.leaveConversation(conversationId, caller.userId, requestId)) {
        changed();
        return {};
      }
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

    async getConversations({ conversationIds }) {
      return { conversations: (await store.findConversations(conversationIds)).map(toMessage) };
    },

    async filterMemberships({ userId, conversationIds }) {
      return { conversationIds: await store.filterMemberships(userId, conversationIds) };
    },
  };
}

/** Checks the members if other fields are wrong, so that all wrong fields are reported together; otherwise the handler checks them. */
export function openChecks({ auth }: Pick<HandlerOptions, 'auth'>): Checks<ConversationServiceService> {
  return {
    async createConversation({ type, members }, found) {
      if (found.length === 0 || found.some(({ field }) => field === 'members')) return [];
      const { users } = await auth.lookupUsers(possibleUsers(members));
      return chooseMembers(kindOf(type), members, users).problems;
    },
  };
}
