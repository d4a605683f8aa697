import type { Logger } from '#lib/log.ts';

/**
 * The port to a network that delivers messages. Each folder beside this file implements it and exports it as `connector` from its index.ts.
 * A new folder is found at the next start; no other file changes.
 *
 * This is what every network must be able to do, and `contract.ts` tests it. What only some networks can do (receipts, typing, edits) gets
 * an interface of its own here, with a function that detects it by its methods, so that other connectors need not implement it.
 */
export interface Connector {
  /**
   * The channel, as in `channels` of a message: the name of the folder. Lower-case letters, digits, `_` and `-`, beginning with a letter.
   */
  readonly name: string;
  /** For people. */
  readonly title: string;
  /** Gets ready to deliver. No effect if it is started already; may be called again after `stop`. */
  start(): Promise<void>;
  /** Closes everything. Until the next start, deliveries fail with UNAVAILABLE. May be repeated. */
  stop(): Promise<void>;
  /**
   * Hands a message to the network, and returns once the network has it. Called concurrently, but one after another for deliveries to one
   * person in one conversation. To return means that the message was delivered; `taken` means that the network reports later how the
   * delivery ended (`TellsLater`).
   *
   * A delivery may be requested again with the same idempotency key if its outcome is unknown: the network must then deliver it only once.
   *
   * @throws HubError if it can't be delivered. A transient one (`isTransient` of lib/errors) is retried, not before its `retryAfter`; any
   *   other is final, and its message is the reason that the sender reads
   */
  deliver(delivery: DeliveryToMake, context: DeliveryContext): Promise<'taken' | void>;
}

/** Implemented by a connector whose network accepts messages and reports later how their delivery ended. */
export interface TellsLater {
  /**
   * Called once, before the first `start`. While it is started, the connector passes all reports of the network to `listener`: in any
   * order, perhaps more than once, in whichever process the network calls. If `listener` throws, the network must report again, or the
   * report is lost.
   */
  onReceipts(listener: (receipts: readonly Receipt[]) => Promise<void>): void;
}

export function tellsLater(connector: Connector): connector is Connector & TellsLater {
  return 'onReceipts' in connector;
}

/** A network's report on a message that it has accepted. */
export interface Receipt {
  messageId: string;
  recipientId: string;
  /** The key under which the message was accepted: a report with another key is ignored. */
  idempotencyKey: string;
  /**
   * The `replay` of the request (`DeliveryContext`); 0 if left out. A failure in an earlier round doesn't end a later one; a delivery does.
   */
  replay?: number;
  /** `sent` doesn't end the delivery; the others do, unless it has ended before. */
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
  /** An attempt must not begin after this. */
  deliverBy: Date;
}

export interface DeliveryContext {
  /** UUID, the same for all attempts of this delivery. */
  idempotencyKey: string;
  /** The round of the delivery: 0 at first, increased by 1 whenever its message is replayed. Part of the network's reports. */
  replay: number;
  /** Aborted at the deadline, or after DELIVERY_ATTEMPT_TIMEOUT. */
  signal: AbortSignal;
  /** Its lines carry the request id and the message id. */
  log: Logger;
}

/** Valid names of connectors, which are also part of the names of topics. */
export const connectorName = /^[a-z][a-z0-9_-]{0,62}$/;
