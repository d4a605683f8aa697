import type { Logger } from '#lib/log.ts';

/**
 * A network that messages can be delivered over: the port that each folder beside this file implements, exporting it as
 * `connector` from its index.ts. A new folder is found at the next start; no other file changes.
 *
 * This is all that every network has to be able to do, and `contract.ts` holds it to it. What only some can do (receipts,
 * typing, edits) is to be an interface of its own here, next to a function that tells by the presence of its methods
 * whether a connector has it; nobody else then has to implement it.
 */
export interface Connector {
  /** As in `channels` of a message: the name of the folder. Lower-case letters, digits, `_`, `-`; a letter first. */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Gets ready to deliver. Again, while it is started, it does nothing; after `stop` it starts anew. */
  start(): Promise<void>;
  /** Closes everything. Until it is started again, deliveries are refused as UNAVAILABLE. May be repeated. */
  stop(): Promise<void>;
  /**
   * Hands a message to the network, and returns once the network has it. Called for many deliveries at once, but for those to
   * one person in one conversation one after the other. Returning, the delivery has been made; one that returns `taken` stays
   * open until the network reports what became of it (`TellsLater`).
   *
   * A delivery may be asked for again with the same idempotency key, because nobody knows whether it got through: the
   * network must then have it once.
   *
   * @throws HubError if it can't be delivered. A transient one (`isTransient` of lib/errors) is tried again, not before
   *   its `retryAfter`; any other is final, and its message is the reason that the sender reads
   */
  deliver(delivery: DeliveryToMake, context: DeliveryContext): Promise<'taken' | void>;
}

/** Implemented by a connector whose network takes messages and reports later what became of them. */
export interface TellsLater {
  /**
   * Called once, before the first `start`. While it is started, the connector has `listener` told all that the network
   * reports: in any order, more than once, and to whichever process the network calls. If `listener` throws, nothing is
   * lost as long as the network calls again.
   */
  onReceipts(listener: (receipts: readonly Receipt[]) => Promise<void>): void;
}

export function tellsLater(connector: Connector): connector is Connector & TellsLater {
  return 'onReceipts' in connector;
}

/** A network's report of a message that it took. */
export interface Receipt {
  messageId: string;
  recipientId: string;
  /** Under which it was taken: a report with another one is not believed. */
  idempotencyKey: string;
  /**
   * The `replay` of the request that it is about (`DeliveryContext`); 0 if it is left out. A failure of an earlier round doesn't end a later
   * one; a delivery does.
   */
  replay?: number;
  /** `sent` ends nothing; the others end the delivery, if nothing has before. */
  status: 'sent' | 'delivered' | 'read' | 'failed';
  /** Why it failed, for people. */
  reason: string;
}

/** A message for one person. */
export interface DeliveryToMake {
  messageId: string;
  conversationId: string;
  /** Position in the conversation. */
  seq: bigint;
  senderId: string;
  recipientId: string;
  content:
    | { type: 'text'; text: string }
    | { type: 'file'; fileId: string; filename: string; fileSize: bigint; contentType: string };
  priority: 'low' | 'normal' | 'high';
  /** From this moment on it must not begin. */
  deliverBy: Date;
}

export interface DeliveryContext {
  /** UUID, the same for each try of this delivery. */
  idempotencyKey: string;
  /** Which round of it this is: 0 at first, 1 more for each time that its message was replayed. Goes with what the network reports. */
  replay: number;
  /** Aborted when nobody waits for the outcome any more: at the deadline, or after DELIVERY_ATTEMPT_TIMEOUT. */
  signal: AbortSignal;
  /** Its lines carry the request id and the message id. */
  log: Logger;
}

/** What a connector may be called: also part of the name of its topic. */
export const connectorName = /^[a-z][a-z0-9_-]{0,62}$/;
