import type { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { HubError } from '#lib/errors.ts';
import type { Connection } from '#lib/rpc/client.ts';
import { Rounds } from '#lib/rounds.ts';

/** The members of conversations. */
export interface Memberships {
  /** @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND`, or the error of the call to the conversation service */
  of(conversationId: string): Promise<string[]>;
}

const maxConversationsInRound = 500;
const concurrentRounds = 2;

/** Asks the conversation service, with one call for all that ask at the same time. Nothing is cached. */
export function openMemberships(
  conversations: Pick<Connection<typeof ConversationServiceService>, 'getMemberships'>,
): Memberships {
  const rounds = new Rounds<string, string[] | undefined>(
    async (ids) => {
      const { memberships } = await conversations.getMemberships({ conversationIds: [...new Set(ids)] });
      const found = new Map(memberships.map(({ conversationId, memberIds }) => [conversationId, memberIds]));
      return ids.map((id) => found.get(id));
    },
    { name: 'message.memberships', items: maxConversationsInRound, atOnce: concurrentRounds },
  );
  return {
    async of(conversationId) {
      const memberIds = await rounds.do(conversationId);
      if (memberIds === undefined) throw new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'Conversation not found');
      return memberIds;
    },
  };
}
