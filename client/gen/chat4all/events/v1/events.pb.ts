// Made from the protos by dev/client: `npm run generate`.
import type { Caller, CallOptions, Reply } from '../../../../caller.ts';
import type * as Chat4allConversationV1Conversation from '../../conversation/v1/conversation.pb.ts';
import type * as Chat4allMessageV1Message from '../../message/v1/message.pb.ts';
import type * as wire from '../../../../wire.ts';
import type * as codes from '../../../codes.ts';

/** The kinds of events that clients may choose among. */
export const EventType = {
  /** `message_accepted`. */
  EVENT_TYPE_MESSAGE_ACCEPTED: 'message_accepted',
  /** `delivery_changed`. */
  EVENT_TYPE_DELIVERY_CHANGED: 'delivery_changed',
  /** `message_read`. */
  EVENT_TYPE_MESSAGE_READ: 'message_read',
  /** `conversation_created`. */
  EVENT_TYPE_CONVERSATION_CREATED: 'conversation_created',
  /** `member_joined`. */
  EVENT_TYPE_MEMBER_JOINED: 'member_joined',
  /** `member_left`. */
  EVENT_TYPE_MEMBER_LEFT: 'member_left',
  /** `file_completed`. */
  EVENT_TYPE_FILE_COMPLETED: 'file_completed',
  /** `webhook_paused`. */
  EVENT_TYPE_WEBHOOK_PAUSED: 'webhook_paused',
} as const;
export type EventType = (typeof EventType)[keyof typeof EventType];

/** Why events can't be told. */
export const ResetReason = {
  /** They are not kept any more. */
  RESET_REASON_EXPIRED: 'expired',
  /** The log has begun anew since the cursor was given, for example from a backup. */
  RESET_REASON_EPOCH_CHANGED: 'epoch_changed',
  /** The cursor is beyond the end of the log, which has lost something. */
  RESET_REASON_FUTURE: 'future',
} as const;
export type ResetReason = (typeof ResetReason)[keyof typeof ResetReason];

/** Why events are not sent to a webhook any more. */
export const WebhookPauseReason = {
  /** Everything that was sent to it has failed for three days. */
  WEBHOOK_PAUSE_REASON_FAILING: 'failing',
  /** It has answered 410 (Gone). */
  WEBHOOK_PAUSE_REASON_GONE: 'gone',
} as const;
export type WebhookPauseReason = (typeof WebhookPauseReason)[keyof typeof WebhookPauseReason];

/** From where on, and which events. */
export type StreamEventsRequest = {
  /** Events behind this one are told. Empty: those that happen from now on. */
  cursor?: string;
  /** Only events of these conversations, and none that belong to no conversation. Empty: of all. */
  conversation_ids?: string[];
  /** Only events of these types. Empty: of all. */
  types?: EventType[];
  /** Whether to tell what is ephemeral, too: who is typing. */
  ephemeral?: boolean;
  /** Over HTTP the header Last-Event-ID, which a browser sends when it opens the stream anew: it counts before `cursor`. */
  last_event_id?: string;
  /**
   * In which conversations to tell who is present, now and when that changes: of 20 at most. Only of those that the caller is a member of, and
   * that have 50 members at most.
   */
  presence_conversation_ids?: string[];
};

/** The same, with a ticket. */
export type StreamEventsByTicketRequest = {
  /** What CreateTicket has given. */
  ticket: string;
  /** Events behind this one are told. Empty: those that happen from now on. */
  cursor?: string;
  /** Only events of these conversations, and none that belong to no conversation. Empty: of all. */
  conversation_ids?: string[];
  /** Only events of these types. Empty: of all. */
  types?: EventType[];
  /** Whether to tell what is ephemeral, too. */
  ephemeral?: boolean;
  /** Over HTTP the header Last-Event-ID: it counts before `cursor`. */
  last_event_id?: string;
  /**
   * In which conversations to tell who is present, now and when that changes: of 20 at most. Only of those that the caller is a member of, and
   * that have 50 members at most.
   */
  presence_conversation_ids?: string[];
};

/** Something that has happened, or something about the stream itself. */
export type StreamEventsResponse = {
  /** To go on behind this event. Empty where the event is ephemeral. */
  cursor: string;
  /** UUID of the event: the same in webhooks and here, and wherever it comes twice. Empty where it is about the stream, or ephemeral. */
  event_id: string;
  /** When it happened. */
  at: string | null;
} & wire.OneOf<{
  /** The stream has begun. */
  hello: Hello;
  /** The stream is alive. */
  heartbeat: Heartbeat;
  /** Events can't be told: the state has to be loaded anew. */
  reset: Reset;
  /** The stream ends: another one is to be opened. */
  reconnect: Reconnect;
  /** A message was accepted. */
  message_accepted: MessageAccepted;
  /** A message, or deliveries of it, have come further. */
  delivery_changed: DeliveryChanged;
  /** Somebody has read on. */
  message_read: MessageRead;
  /** A conversation was opened. */
  conversation_created: ConversationCreated;
  /** Somebody was added to a conversation. */
  member_joined: MemberJoined;
  /** Somebody has left a conversation. */
  member_left: MemberLeft;
  /** The upload of a file is complete. */
  file_completed: FileCompleted;
  /** A webhook was paused or disabled, since it does not work. */
  webhook_paused: WebhookPaused;
  /** Somebody is writing. Ephemeral. */
  typing: Typing;
  /** Who is present in a conversation. Ephemeral. */
  presence: Presence;
}>;

/** The stream has begun. Its cursor is where it goes on from. */
export type Hello = {
  /** How often the stream says that it is alive. */
  heartbeat: string | null;
};

/** The stream is alive, and has told all up to its cursor. */
export type Heartbeat = Record<string, never>;

/** Events were missed that can't be told. Events behind the cursor of this one follow: load what you show, then read on. */
export type Reset = {
  /** Why events can't be told. */
  reason: ResetReason;
};

/** The stream ends. */
export type Reconnect = {
  /** After how many milliseconds to open another one, so that not all come at once. */
  after_ms: number;
};

/** A message was accepted. */
export type MessageAccepted = {
  /** The message. */
  message: Chat4allMessageV1Message.Message | null;
};

/** A message, or deliveries of it, have come further. */
export type DeliveryChanged = {
  /** UUID of the message. */
  message_id: string;
  /** UUID of its conversation. */
  conversation_id: string;
  /** Its position there. */
  seq: number;
  /** How far the message has come. */
  status: Chat4allMessageV1Message.MessageStatus;
  /** Why it failed, if it did. */
  note: string;
  /** The deliveries that have changed, as they are now. */
  deliveries: Chat4allMessageV1Message.Delivery[];
  /** How often an administrator has replayed the message: with each replay what failed begins anew. */
  replay: number;
};

/** Somebody has read on. */
export type MessageRead = {
  /** UUID of the conversation. */
  conversation_id: string;
  /** User id of who has read. */
  user_id: string;
  /** The position up to which all is read. */
  seq: number;
};

/** A conversation was opened. */
export type ConversationCreated = {
  /** The conversation. */
  conversation: Chat4allConversationV1Conversation.Conversation | null;
};

/** Somebody was added to a conversation. */
export type MemberJoined = {
  /** UUID of the conversation. */
  conversation_id: string;
  /** User id of the new member. */
  user_id: string;
  /** User id of who has added the new member. */
  added_by: string;
};

/** Somebody has left a conversation. It is the last event of the conversation that the one who left is told. */
export type MemberLeft = {
  /** UUID of the conversation. */
  conversation_id: string;
  /** User id of who has left. */
  user_id: string;
};

/** The upload of a file is complete. Only its owner is told. */
export type FileCompleted = {
  /** UUID of the file. */
  file_id: string;
  /** Its name. */
  filename: string;
  /** Its size in bytes. */
  file_size: number;
  /** Its media type. */
  content_type: string;
};

/** A webhook of the user was paused or disabled, since it does not work. Events wait until it is resumed. Only its owner is told. */
export type WebhookPaused = {
  /** UUID of the webhook. */
  webhook_id: string;
  /** Its URL. */
  url: string;
  /** Why. */
  reason: WebhookPauseReason;
  /** Since when everything that was sent to it has failed; not set for WEBHOOK_PAUSE_REASON_GONE. */
  failing_since: string | null;
};

/** Somebody is writing. */
export type Typing = {
  /** UUID of the conversation. */
  conversation_id: string;
  /** User id of who is writing. */
  user_id: string;
  /** For how many milliseconds to show it, if nothing else comes before. */
  for_ms: number;
};

/**
 * Who is present in a conversation: who has a stream of events open. It is told soon after the stream has begun, and after each change, always with
 * all who are present.
 *
 * A change is told when it has lasted for 2 s, together with others of the same conversation. Who loses the connection has 3 s more to come back.
 * Where much waits to be sent, it is left out, and told as it is once that has been sent. To conversations that have grown beyond 50 members it says
 * once that nobody is present, and nothing more.
 */
export type Presence = {
  /** UUID of the conversation. */
  conversation_id: string;
  /** User ids of the members who are present, without the caller's. */
  user_ids: string[];
};

/** Whose ticket: the caller's. */
export type CreateTicketRequest = Record<string, never>;

/** The ticket. */
export type CreateTicketResponse = {
  /** For the parameter `ticket` of StreamEventsByTicket. Secret. */
  ticket: string;
  /** Until when it is good. */
  expires_at: string | null;
};

/** From where on, which events, and how long to wait. */
export type ListEventsRequest = {
  /** Events behind this one are listed. Empty: none, but the cursor of now. */
  cursor?: string;
  /** How many to return at most: 1 to 500, 100 if not said. There are fewer where they would have more than 1 MiB together. */
  limit?: number | null;
  /** How long to wait for an event where there is none: 0 to 25 s; not at all if not said. */
  wait?: string | null;
  /** Only events of these conversations, and none that belong to no conversation. Empty: of all. */
  conversation_ids?: string[];
  /** Only events of these types. Empty: of all. */
  types?: EventType[];
};

/** Events, and where to go on. */
export type ListEventsResponse = {
  /** The events, in their order; a `reset` first if some can't be told. */
  events: StreamEventsResponse[];
  /** To go on behind them: also where there are none. */
  cursor: string;
  /** Whether there are more already. */
  more: boolean;
};

/** Where the caller is writing. */
export type SendTypingRequest = {
  /** UUID of the conversation. */
  conversation_id: string;
};

/** Nothing: whoever is to know is told. */
export type SendTypingResponse = Record<string, never>;

/** The error codes of `streamEvents`. */
export type StreamEventsCode = 'CURSOR_INVALID' | 'DATABASE_UNAVAILABLE' | 'TOO_MANY_STREAMS' | codes.CommonCode;

/** The error codes of `streamEventsByTicket`. */
export type StreamEventsByTicketCode = 'CURSOR_INVALID' | 'DATABASE_UNAVAILABLE' | 'TICKET_INVALID' | 'TOO_MANY_STREAMS' | codes.CommonCode;

/** The error codes of `createTicket`. */
export type CreateTicketCode = 'DATABASE_UNAVAILABLE' | codes.CommonCode;

/** The error codes of `listEvents`. */
export type ListEventsCode = 'CURSOR_INVALID' | 'DATABASE_UNAVAILABLE' | 'TOO_MANY_STREAMS' | codes.CommonCode;

/** The error codes of `sendTyping`. */
export type SendTypingCode = 'CONVERSATION_NOT_FOUND' | 'DATABASE_UNAVAILABLE' | 'NOT_A_MEMBER' | 'SERVICE_UNAVAILABLE' | codes.CommonCode;

/**
 * Tells clients what happens, from one log of events that each of them reads from a place of its own.
 *
 * A client first takes a cursor, then loads the state that it wants to show (conversations, messages), then reads the events behind the
 * cursor: so it misses nothing. Each event comes at least once, those of a conversation in their order; one that comes twice has the same
 * `event_id`. No event is ever left out in silence: where some can't be told any more, a `reset` says so, and the client loads its state
 * anew.
 */
export class EventsService {
  readonly #caller: Caller;

  constructor(caller: Caller) {
    this.#caller = caller;
  }

  /**
   * The caller's events, as they happen.
   *
   * The stream begins with `hello`. Every 15 s or so it says that it is alive (`heartbeat`); a client that hears nothing for three times as
   * long as `hello` says takes it for dead and opens another one. After about an hour, or when the server is about to stop, it says
   * `reconnect` and ends. The next stream goes on from the last cursor that the client has seen.
   *
   * Over HTTP it is server-sent events for clients with `Accept: text/event-stream`: the type of an event is the name of the field that is
   * set, its id is the cursor, its data the whole message as JSON. For others each message is a line of JSON.
   */
  streamEvents(request: StreamEventsRequest = {}, options?: CallOptions): AsyncGenerator<StreamEventsResponse, void> {
    return this.#caller.lines<StreamEventsResponse>({ verb: 'GET', path: '/v1/events', isRepeatable: true }, request, options);
  }

  /** The same for browsers' EventSource, which can't send a token: what the ticket in its place says is the caller's. */
  streamEventsByTicket(request: StreamEventsByTicketRequest, options?: CallOptions): AsyncGenerator<StreamEventsResponse, void> {
    return this.#caller.lines<StreamEventsResponse>({ verb: 'GET', path: '/v1/events/by-ticket', isPublic: true }, request, options);
  }

  /** Makes a ticket for one stream. It is good for 30 s and for one use. */
  createTicket(request: CreateTicketRequest = {}, options?: CallOptions): Reply<CreateTicketResponse, CreateTicketCode> {
    return this.#caller.reply<CreateTicketResponse>({ verb: 'POST', path: '/v1/events/tickets', body: '*' }, request, options);
  }

  /**
   * The same events as a list, for clients that can't keep a stream open. Where there is none yet it waits for one, as long as `wait` says
   * (a long poll).
   */
  listEvents(request: ListEventsRequest = {}, options?: CallOptions): Reply<ListEventsResponse, ListEventsCode> {
    return this.#caller.reply<ListEventsResponse>({ verb: 'GET', path: '/v1/events:list', isRepeatable: true, timeout: 65000 }, request, options);
  }

  /**
   * Says that the caller is writing in a conversation. Its other members are told, if they have asked for what is ephemeral.
   *
   * To be repeated every 4 s while that goes on. It is shown for 8 s at the most, or until a message of the caller comes.
   */
  sendTyping(request: SendTypingRequest, options?: CallOptions): Reply<SendTypingResponse, SendTypingCode> {
    return this.#caller.reply<SendTypingResponse>({ verb: 'POST', path: '/v1/conversations/{conversation_id}/typing', body: '*', isRepeatable: true }, request, options);
  }
}
