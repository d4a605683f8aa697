// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** The type of a conversation. */
export const ConversationType = {
  /** Exactly two people. */
  CONVERSATION_TYPE_PRIVATE: 'private',
  /** 3 to 100 people. */
  CONVERSATION_TYPE_GROUP: 'group',
} as const;
export type ConversationType = (typeof ConversationType)[keyof typeof ConversationType];

/** A conversation's name and description. */
export type ConversationMetadata = {
  /** A name to show. */
  name?: string;
  /** What it is about. */
  description?: string;
};

/** A conversation. */
export type Conversation = {
  /** UUID, in lower case. */
  conversation_id: string;
  /** Private or group. */
  type: ConversationType;
  /** User ids of the active members, in the order in which they were named. */
  members: string[];
  /** Name and description. */
  metadata: wire.Answered<ConversationMetadata>;
  /** When it was opened. */
  created_at: string;
};

/** The conversation to open. */
export type CreateConversationRequest = {
  /** Private or group. */
  type: ConversationType;
  /** User ids or usernames, including the caller, without duplicates: exactly 2 for a private conversation, 3 to 100 for a group. */
  members: string[];
  /** Name and description. */
  metadata?: ConversationMetadata | null;
};

/** The new conversation. */
export type CreateConversationResponse = {
  /** The new conversation. */
  conversation: Conversation;
};

/** Which of the caller's conversations to list. */
export type ListConversationsRequest = {
  /** The maximum number to return: 1 to 100, 50 by default. */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
};

/** A page of the caller's conversations. */
export type ListConversationsResponse = {
  /** The page. */
  conversations: Conversation[];
  /** The total number. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** Which conversation. */
export type GetConversationRequest = {
  /** UUID. */
  conversation_id: string;
};

/** The conversation. */
export type GetConversationResponse = {
  /** The conversation. */
  conversation: Conversation;
};

/** Whom to add, and where. */
export type AddMemberRequest = {
  /** UUID. */
  conversation_id: string;
  /** User id or username of the new member. */
  member: string;
};

/** The conversation as it is now. */
export type AddMemberResponse = {
  /** The conversation. */
  conversation: Conversation;
};

/** Which conversation to leave. */
export type LeaveConversationRequest = {
  /** UUID. */
  conversation_id: string;
};

/** Nothing: the caller has left. */
export type LeaveConversationResponse = Record<string, never>;

/** The error codes of `createConversation`. */
export type CreateConversationCode = 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `listConversations`. */
export type ListConversationsCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getConversation`. */
export type GetConversationCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | codes.CommonCode;

/** The error codes of `addMember`. */
export type AddMemberCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'GROUP_FULL' | 'NOT_A_GROUP' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `leaveConversation`. */
export type LeaveConversationCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | codes.CommonCode;

/** Opens and lists conversations, and tells who their members are. */
export class ConversationService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Opens a conversation between two people, or a group of 3 to 100.
   *
   * The caller must be among the members. Every call opens a new conversation.
   */
  createConversation(request: CreateConversationRequest, options?: CallOptions): Reply<Conversation, CreateConversationCode> {
    return this.#caller.reply<Conversation>({ verb: 'POST', path: '/v1/conversations', body: '*' }, request, options);
  }

  /** Lists the caller's conversations, the one with the newest activity first. */
  listConversations(request: ListConversationsRequest = {}, options?: CallOptions): Reply<ListConversationsResponse, ListConversationsCode> {
    return this.#caller.reply<ListConversationsResponse>({ verb: 'GET', path: '/v1/conversations', isRepeatable: true }, request, options);
  }

  /** Returns a conversation, for its members. */
  getConversation(request: GetConversationRequest, options?: CallOptions): Reply<Conversation, GetConversationCode> {
    return this.#caller.reply<Conversation>({ verb: 'GET', path: '/v1/conversations/{conversation_id}', isRepeatable: true }, request, options);
  }

  /** Adds somebody to a group. Any of its members may do that. Who is a member already stays one: that changes nothing. */
  addMember(request: AddMemberRequest, options?: CallOptions): Reply<Conversation, AddMemberCode> {
    return this.#caller.reply<Conversation>({ verb: 'POST', path: '/v1/conversations/{conversation_id}/members', body: '*', isRepeatable: true }, request, options);
  }

  /** Leaves a conversation: the caller no longer sends to it, reads it or receives from it. Doing it again is NOT_A_MEMBER. */
  leaveConversation(request: LeaveConversationRequest, options?: CallOptions): Reply<LeaveConversationResponse, LeaveConversationCode> {
    return this.#caller.reply<LeaveConversationResponse>({ verb: 'POST', path: '/v1/conversations/{conversation_id}/leave', body: '*' }, request, options);
  }
}
