// Made by protoc-gen-grpc-gateway-ts and dev/client/mend.ts: `npm run generate`.
import * as fm from '../../../../fetch.ts';

/** How many people a conversation is for. */
export const ConversationType = {
  /** Exactly two people. */
  CONVERSATION_TYPE_PRIVATE: 'private',
  /** 3 to 100 people. */
  CONVERSATION_TYPE_GROUP: 'group',
} as const;
export type ConversationType = (typeof ConversationType)[keyof typeof ConversationType];

/** What people call a conversation. */
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
  metadata: fm.Answered<ConversationMetadata>;
  /** When it was opened. */
  created_at: string;
};

/** The conversation to open. */
export type CreateConversationRequest = {
  /** Private or group. */
  type?: ConversationType;
  /** User ids or usernames, the caller among them, nobody twice: exactly 2 for a private conversation, 3 to 100 for a group. */
  members?: string[];
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
  /** How many to return: 1 to 100, 50 if not said. */
  limit?: number | null;
  /** How many to pass over. */
  offset?: number;
};

/** A page of the caller's conversations. */
export type ListConversationsResponse = {
  /** The page. */
  conversations: Conversation[];
  /** How many there are in all. */
  total: number;
  /** The limit that was used. */
  limit: number;
  /** The offset that was used. */
  offset: number;
};

/** Which conversation. */
export type GetConversationRequest = {
  /** UUID. */
  conversation_id?: string;
};

/** The conversation. */
export type GetConversationResponse = {
  /** The conversation. */
  conversation: Conversation;
};

/** Which conversation to leave. */
export type LeaveConversationRequest = {
  /** UUID. */
  conversation_id?: string;
};

/** Nothing: the caller has left. */
export type LeaveConversationResponse = Record<string, never>;

/** Opens conversations, lists them, and answers who is in them. */
export class ConversationService {
  /**
   * Opens a conversation between two people, or a group of 3 to 100.
   *
   * The caller must be among the members. Every call opens a new conversation.
   */
  static CreateConversation(req: CreateConversationRequest, initReq?: fm.InitReq): Promise<Conversation> {
    return fm.fetchReq<Conversation>(`/v1/conversations`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
  /** The caller's conversations, the one with the newest activity first. */
  static ListConversations(req: ListConversationsRequest, initReq?: fm.InitReq): Promise<ListConversationsResponse> {
    return fm.fetchReq<ListConversationsResponse>(`/v1/conversations${fm.query(req, [])}`, { ...initReq, method: 'GET' });
  }
  /** One conversation, for its members. */
  static GetConversation(req: GetConversationRequest, initReq?: fm.InitReq): Promise<Conversation> {
    return fm.fetchReq<Conversation>(`/v1/conversations/${fm.pathValue(req, 'conversation_id')}`, { ...initReq, method: 'GET' });
  }
  /** Leaves a conversation: the caller no longer sends to it, reads it or receives from it. Doing it again is NOT_A_MEMBER. */
  static LeaveConversation(req: LeaveConversationRequest, initReq?: fm.InitReq): Promise<LeaveConversationResponse> {
    return fm.fetchReq<LeaveConversationResponse>(`/v1/conversations/${fm.pathValue(req, 'conversation_id')}/leave`, { ...initReq, method: 'POST', body: JSON.stringify(req, fm.replacer) });
  }
}
