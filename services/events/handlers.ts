import type { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import type { EventsServiceService, StreamEventsRequest } from '#gen/chat4all/events/v1/events.ts';
import { HubError } from '#lib/errors.ts';
import { tokenExpiry } from '#lib/identity.ts';
import type { UserCall, UserStreamCall, StreamCall } from '#lib/rpc/call.ts';
import type { Connection } from '#lib/rpc/client.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import type { Typing } from './ephemeral/typing.ts';
import type { LogStore } from './log/log-store.ts';
import { readCursor } from './streams/cursor.ts';
import type { Streams, Wanted } from './streams/stream.ts';
import type { Tickets } from './streams/tickets-store.ts';
import { fieldsOf } from './wire.ts';

export interface HandlerOptions {
  streams: Streams;
  tickets: Tickets;
  typing: Typing;
  store: Pick<LogStore, 'membersOf'>;
  conversations: Pick<Connection<ConversationServiceService>, 'getConversations'>;
}

const defaultLimit = 100;

export function openHandlers(options: HandlerOptions): Handlers<EventsServiceService> {
  const { streams, tickets, typing, store, conversations } = options;

  /** @throws HubError NOT_FOUND `CONVERSATION_NOT_FOUND` or PERMISSION_DENIED `NOT_A_MEMBER` */
  async function requireMember(conversationId: string, userId: string): Promise<void> {
    if ((await store.membersOf(conversationId)).includes(userId)) return;
    // Nothing may have happened there since this service knows of conversations.
    const { conversations: found } = await conversations.getConversations({ conversationIds: [conversationId] });
    const [conversation] = found;
    if (conversation === undefined) throw new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'Conversation not found');
    if (conversation.members.includes(userId)) return;
    throw new HubError('PERMISSION_DENIED', 'NOT_A_MEMBER', 'Access denied: you are not a member of the conversation');
  }

  return {
    streamEvents(request: StreamEventsRequest, { caller, credentials, signal }: UserStreamCall) {
      return streams.stream(wantedOf(request, caller.userId, tokenExpiry(credentials.authorization)), signal);
    },

    async *streamEventsByTicket({ ticket, ...request }, { signal, isFor }: StreamCall) {
      const userId = await tickets.use(ticket);
      isFor(userId);
      yield* streams.stream(wantedOf(request, userId, undefined), signal);
    },

    async createTicket(_request, { caller }: UserCall) {
      return tickets.create(caller.userId);
    },

    async listEvents({ limit = defaultLimit, wait, ...request }, { caller, signal }: UserCall) {
      const wanted = wantedOf(
        { ...request, ephemeral: false, presenceConversationIds: [], lastEventId: '' },
        caller.userId,
        undefined,
      );
      const waitMs = wait === undefined ? 0 : Number(wait.seconds) * 1_000 + wait.nanos / 1_000_000;
      return streams.list(wanted, { limit, waitMs }, signal);
    },

    async sendTyping({ conversationId }, { caller }: UserCall) {
      await requireMember(conversationId, caller.userId);
      await typing.tell(conversationId, caller.userId);
      return {};
    },
  };
}

/** @throws HubError INVALID_ARGUMENT `CURSOR_INVALID` */
function wantedOf(request: StreamEventsRequest, userId: string, expiresAt: number | undefined): Wanted {
  const { cursor, lastEventId, conversationIds, presenceConversationIds, types, ephemeral } = request;
  const behind = lastEventId === '' ? cursor : lastEventId;
  return {
    userId,
    cursor: behind === '' ? undefined : readCursor(behind),
    // A UUID may be written in upper case; ours are not.
    conversationIds: conversationIds.map((id) => id.toLowerCase()),
    presenceIds: presenceConversationIds.map((id) => id.toLowerCase()),
    types: fieldsOf(types),
    ephemeral,
    expiresAt,
  };
}
