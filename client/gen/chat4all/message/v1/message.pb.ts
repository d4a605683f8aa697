// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** The type of a message's content. */
export const PayloadType = {
  /** A text. */
  PAYLOAD_TYPE_TEXT: 'text',
  /** A file that was uploaded before. */
  PAYLOAD_TYPE_FILE: 'file',
} as const;
export type PayloadType = (typeof PayloadType)[keyof typeof PayloadType];

/** The priority that the sender gives a message. It is passed on to the channels, and never changes the order within a conversation. */
export const Priority = {
  /** Can wait. */
  PRIORITY_LOW: 'low',
  /** As usual. */
  PRIORITY_NORMAL: 'normal',
  /** Urgent. */
  PRIORITY_HIGH: 'high',
} as const;
export type Priority = (typeof Priority)[keyof typeof Priority];

/**
 * The status of a message or of one of its deliveries. It only moves forward, unless an administrator replays a failed message: then it
 * begins again.
 */
export const MessageStatus = {
  /** Stored durably. */
  MESSAGE_STATUS_ACCEPTED: 'accepted',
  /** Handed to its channels. */
  MESSAGE_STATUS_IN_TRANSIT: 'in_transit',
  /** For a message: every delivery succeeded. For a delivery: the channel has delivered it. */
  MESSAGE_STATUS_DELIVERED: 'delivered',
  /** For a message: every delivery has ended and at least one failed. For a delivery: it failed for good. */
  MESSAGE_STATUS_FAILED: 'failed',
} as const;
export type MessageStatus = (typeof MessageStatus)[keyof typeof MessageStatus];

/** The order of a list of messages. */
export const MessageOrder = {
  /** Newest first. */
  MESSAGE_ORDER_DESC: 'desc',
  /** Oldest first. */
  MESSAGE_ORDER_ASC: 'asc',
} as const;
export type MessageOrder = (typeof MessageOrder)[keyof typeof MessageOrder];

/** The content of a message: a text, or a file. */
export type Payload = {
  /** The type of the content. */
  type: PayloadType;
  /** For a text: 1 to 65,536 bytes of UTF-8 without NUL. */
  text?: string;
  /** For a file: the id of a completed upload. */
  file_id?: string;
  /** For a file, only in answers: its name, a label and not a path. */
  filename?: string;
  /** For a file, only in answers: its size in bytes. */
  file_size?: number;
  /** For a file, only in answers: its media type. */
  content_type?: string;
};

/** Who sent a message. */
export type Sender = {
  /** UUID of the user. */
  user_id: string;
  /** The user's name. */
  username: string;
};

/** The message to send. */
export type SendMessageRequest = {
  /** UUID, chosen by the client; a repeated call must use the same one. */
  message_id: string;
  /** The conversation to send to. */
  conversation_id: string;
  /** User id of the sender: the caller's own. */
  from: string;
  /** User ids of the recipients; every other active member if empty. */
  to?: string[];
  /** Names of the channels to deliver over (`whatsapp`, `instagram`), or `all`. Duplicates are ignored. */
  channels: string[];
  /** What to send. */
  payload: Payload;
  /** Its priority; normal by default. */
  priority?: Priority;
};

/** The message is stored. */
export type SendMessageResponse = {
  /** Always `accepted`, also for a repeated call: GetMessage returns the current status. */
  status: MessageStatus;
  /** The message's id, in lower case. */
  message_id: string;
};

/** Which messages to list. */
export type ListMessagesRequest = {
  /** UUID. */
  conversation_id: string;
  /**
   * The maximum number to return: 1 to 100, 50 by default. There are fewer if they would exceed 3 MiB together: continue with the `offset`
   * after them, or with the `seq` of the last one.
   */
  limit?: number | null;
  /** The number of items to skip. */
  offset?: number;
  /** Newest first by default. */
  order?: MessageOrder;
  /** Only messages with a greater `seq`. */
  after_seq?: number | null;
  /** Only messages with a smaller `seq`. */
  before_seq?: number | null;
};

/** A message of a conversation. */
export type Message = {
  /** UUID, in lower case. */
  message_id: string;
  /** UUID, in lower case. */
  conversation_id: string;
  /** Position in the conversation: 1 for the first, without gaps. */
  seq: number;
  /** User id of the sender. */
  from: string;
  /** The sender. */
  sender: Sender;
  /** User ids of the recipients. */
  to: string[];
  /** Names of the channels. */
  channels: string[];
  /** The content. */
  payload: wire.Answered<Payload>;
  /** Its priority. */
  priority: Priority;
  /** Its status. */
  status: MessageStatus;
  /** When it was accepted. */
  created_at: string;
  /** When its status last changed. */
  updated_at: string;
  /** How many members other than the sender have read it. Only in lists. */
  read_by: number;
};

/** A page of a conversation. */
export type ListMessagesResponse = {
  /** UUID, in lower case. */
  conversation_id: string;
  /** The page. To stay within 3 MiB it may have fewer messages than `limit`. */
  messages: Message[];
  /** The total number of matches. */
  total: number;
  /** The limit that was applied. */
  limit: number;
  /** The offset that was applied. */
  offset: number;
};

/** Which message. */
export type GetMessageRequest = {
  /** UUID. */
  message_id: string;
};

/** A change of a message's status. */
export type StatusChange = {
  /** The status from then on. */
  status: MessageStatus;
  /** When. */
  at: string;
  /** Why, if there is something to add. */
  note: string;
};

/** One delivery: a message to one person over one channel. */
export type Delivery = {
  /** User id of the recipient. */
  recipient: string;
  /** Name of the channel. */
  channel: string;
  /** Its status. */
  status: MessageStatus;
  /** The number of delivery attempts. */
  attempts: number;
  /** Why it failed, if it did; while it is open, why the last attempt failed. */
  error: string;
  /** When it last changed. */
  updated_at: string;
  /** When the next attempt is made; only while it is open after a failed attempt. */
  next_attempt_at: string | null;
};

/** A message with its history and deliveries. */
export type GetMessageResponse = {
  /** UUID, in lower case. */
  message_id: string;
  /** UUID, in lower case. */
  conversation_id: string;
  /** Position in the conversation: 1 for the first, without gaps. */
  seq: number;
  /** User id of the sender. */
  from: string;
  /** The sender. */
  sender: Sender;
  /** User ids of the recipients. */
  to: string[];
  /** Names of the channels. */
  channels: string[];
  /** The content. */
  payload: wire.Answered<Payload>;
  /** Its priority. */
  priority: Priority;
  /** Its status. */
  status: MessageStatus;
  /** When it was accepted. */
  created_at: string;
  /** When its status last changed. */
  updated_at: string;
  /** Every change of its status, oldest first. */
  history: StatusChange[];
  /** Every delivery. */
  deliveries: Delivery[];
};

/** How far the caller has read. */
export type MarkReadRequest = {
  /** UUID. */
  conversation_id: string;
  /** The `seq` of the last message that was read: that of a message which there is, or has been. */
  seq: number;
};

/** How far the caller has read now. */
export type MarkReadResponse = {
  /** The position up to which all is read: the one asked for, or a later one that was known before. */
  seq: number;
};

/** Which conversation. */
export type GetReadPositionsRequest = {
  /** UUID. */
  conversation_id: string;
};

/** How far a member has read. */
export type ReadPosition = {
  /** User id of the member. */
  user_id: string;
  /** The position up to which all is read; 0 if the member has said nothing yet. */
  seq: number;
  /** When that was said; nothing if it never was. */
  at: string | null;
};

/** How far all have read. */
export type GetReadPositionsResponse = {
  /** One for each active member, in the order of the conversation's members. */
  positions: ReadPosition[];
};

/** The error codes of `sendMessage`. */
export type SendMessageCode = 'BUS_UNAVAILABLE' | 'CHANNELS_UNKNOWN' | 'CHANNEL_OVERLOADED' | 'CONVERSATION_BUSY' | 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'MESSAGE_ID_IN_USE' | 'MESSAGE_ID_REUSED' | 'NOT_A_MEMBER' | 'NO_RECIPIENTS' | 'SENDER_MISMATCH' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `listMessages`. */
export type ListMessagesCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `markRead`. */
export type MarkReadCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getReadPositions`. */
export type GetReadPositionsCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `getMessage`. */
export type GetMessageCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'MESSAGE_NOT_FOUND' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/** Accepts messages and reports how their delivery went. */
export class MessageService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * Accepts a message for delivery. Once this call has succeeded, the message is stored durably. The client chooses `message_id`, so that
   * it can safely repeat a call whose answer was lost: the same message gets the same answer and is stored once.
   */
  sendMessage(request: SendMessageRequest, options?: CallOptions): Reply<SendMessageResponse, SendMessageCode> {
    return this.#caller.reply<SendMessageResponse>({ verb: 'POST', path: '/v1/messages', body: '*', isRepeatable: true }, request, options);
  }

  /** Lists the messages of a conversation, for its members. */
  listMessages(request: ListMessagesRequest, options?: CallOptions): Reply<ListMessagesResponse, ListMessagesCode> {
    return this.#caller.reply<ListMessagesResponse>({ verb: 'GET', path: '/v1/conversations/{conversation_id}/messages', isRepeatable: true }, request, options);
  }

  /**
   * Says that the caller has read the messages of a conversation up to a position, that one included. It only moves on: an earlier position
   * than the one that is known changes nothing.
   */
  markRead(request: MarkReadRequest, options?: CallOptions): Reply<MarkReadResponse, MarkReadCode> {
    return this.#caller.reply<MarkReadResponse>({ verb: 'POST', path: '/v1/conversations/{conversation_id}/read', body: '*', isRepeatable: true }, request, options);
  }

  /** How far each member of a conversation has read, for its members. */
  getReadPositions(request: GetReadPositionsRequest, options?: CallOptions): Reply<GetReadPositionsResponse, GetReadPositionsCode> {
    return this.#caller.reply<GetReadPositionsResponse>({ verb: 'GET', path: '/v1/conversations/{conversation_id}/read', isRepeatable: true }, request, options);
  }

  /** Returns a message with the history of its status and all its deliveries, for members of its conversation. */
  getMessage(request: GetMessageRequest, options?: CallOptions): Reply<GetMessageResponse, GetMessageCode> {
    return this.#caller.reply<GetMessageResponse>({ verb: 'GET', path: '/v1/messages/{message_id}', isRepeatable: true }, request, options);
  }
}
