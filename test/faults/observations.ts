import type { Journal } from './journal.ts';

/** All that can be seen of a hub from outside and underneath, once it is quiet. */
export interface Observations {
  journal: Journal;
  /** What `GET /v1/messages/{id}` says to the sender, by message. Without those that it doesn't know. */
  read: Map<string, ReadMessage>;
  /** What `GET /v1/conversations/{id}/messages` lists, oldest first. */
  listed: Map<string, ListedMessage[]>;
  ledger: Ledger;
  /** In the order in which they came. */
  effects: Effect[];
  audit: Audit;
  /** Kafka's topics from their beginnings; undefined where there is no Kafka. */
  records: TopicRecord[] | undefined;
  /** Batches that are left on the bus on PostgreSQL, by queue; undefined where there is a Kafka. */
  leftOnBus: Record<string, number> | undefined;
  files: Files;
  /** SHA-256 of what each uploaded file reads as now, or why it can't be read. */
  downloads: Map<string, string>;
}

export interface ReadMessage {
  message_id: string;
  conversation_id: string;
  seq: number;
  from: string;
  to: string[];
  channels: string[];
  payload: { type: string; text?: string; file_id?: string };
  status: string;
  history: { status: string; at: string; note: string }[];
  deliveries: { recipient: string; channel: string; status: string; attempts: number; error?: string }[];
}

export type ListedMessage = Pick<ReadMessage, 'message_id' | 'seq' | 'status'>;

/** What the services keep, row by row. */
export interface Ledger {
  messages: {
    messageId: string;
    conversationId: string;
    seq: number;
    status: string;
    createdAt: number;
    endedAt: number;
  }[];
  deliveries: { messageId: string; recipientId: string; channel: string; status: string; error: string }[];
  heads: { conversationId: string; lastSeq: number }[];
  /** Of the router. */
  routes: string[];
  /** Of the connectors. */
  attempts: { messageId: string; recipientId: string; channel: string; delivered: boolean | null }[];
  outbox: number;
  /** Rows of history, deliveries or shares that belong to nothing, by table. */
  strays: Record<string, number>;
}

/** Something that a network did, once, because it was asked to. */
export interface Effect {
  /** By which the network tells one delivery from another. */
  key: string;
  messageId: string;
  recipientId: string;
  channel: string;
  /** How often it was asked to. */
  requests: number;
}

/** What `GET /v1/admin/audit` says. */
export interface Audit {
  balanced: boolean;
  messages: Balance;
  deliveries: Balance;
  mismatched_total: number;
  overdue: number;
  gaps_total: number;
  outbox_events: number;
  dead_letters_waiting: number;
  lag: { topic: string; group: string; events: number }[];
  lag_known: boolean;
}

interface Balance {
  accepted: number;
  delivered: number;
  failed: number;
  in_flight: number;
}

export interface TopicRecord {
  topic: string;
  partition: number;
  offset: number;
  key: string;
  type: string;
  messageId: string;
  recipientId: string;
  channel: string;
  requestId: string;
  at: number;
}

export interface Files {
  rows: { fileId: string; status: string; storageKey: string | null; idle: number }[];
  /** Keys that should have been removed by now, and those that are written down to be, now or later. */
  removals: string[];
  laterRemovals: string[];
  /** Contents that no file has. */
  unusedContents: string[];
  /** Objects in the store. */
  objects: string[];
  /** Unfinished uploads in the store: how many, and whose where that can be seen. */
  unfinished: { count: number; keys: string[] | undefined };
}

export function deliveryKey(delivery: { messageId: string; recipientId: string; channel: string }): string {
  return `${delivery.messageId}/${delivery.recipientId}/${delivery.channel}`;
}
