/** What clients have asked for and were told: all that the checker believes. */
export interface Journal {
  messages: SentMessage[];
  files: SentFile[];
}

/** A message that a client has tried to send. */
export interface SentMessage {
  messageId: string;
  conversationId: string;
  senderId: string;
  /** Whom it should reach: named, or everybody else in the conversation. */
  recipientIds: string[];
  /** Over what it should go, `all` replaced by all of them. */
  channels: string[];
  /** What it should say. */
  content: { text: string } | { fileId: string };
  /** Clients that send one after the other in one conversation: their messages must stay in this order. */
  lane: number;
  /**
   * What the client was told in the end. `nothing`: it gave up, as clients do, after a try without an answer, so it may have
   * been accepted.
   */
  told: 'accepted' | 'refused' | 'nothing';
  /** When it was first tried, in milliseconds since the epoch. */
  firstTried: number;
  /** When it was told so. */
  toldAt: number;
  /** Every try but those that simply worked the first time. */
  tries: Try[];
}

export interface Try {
  at: number;
  milliseconds: number;
  /** 0 if there was no answer. */
  status: number;
  /** `error_code`, or why there was no answer. */
  code: string;
  requestId: string;
}

/** A file that a client has uploaded, in a way that there is nothing to say against. */
export interface SentFile {
  /** Empty if it wasn't even begun. */
  fileId: string;
  ownerId: string;
  size: number;
  /** SHA-256 in hex. */
  checksum: string;
  /** `completed`, or with what it was refused. */
  told: string;
  /** How often chunks that had been taken were missing in the end, and were sent again. */
  again: number;
}
