import type { Database } from '#lib/database.ts';
import {
  deliveriesOf,
  historyOf,
  type Content,
  type DeliveryState,
  type FileLabel,
  type Priority,
  type Status,
  type StatusChange,
} from '../message.ts';
import { openAcceptance } from './acceptance-store.ts';
import { openRemoval } from './removal-store.ts';
import { openSettlement } from './settlement-store.ts';

/** A message as it is stored. */
export interface StoredMessage {
  messageId: string;
  conversationId: string;
  seq: number;
  senderId: string;
  senderUsername: string;
  recipientIds: string[];
  channels: string[];
  content: Content;
  priority: Priority;
  status: Status;
  createdAt: Date;
  updatedAt: Date;
  /** No delivery attempt begins after this. */
  deliverBy: Date;
  /** How often it was replayed. */
  replay: number;
}

export interface MessageDetails extends StoredMessage {
  history: StatusChange[];
  deliveries: DeliveryState[];
}

export type Store = ReturnType<typeof openStore>;

export function openStore(database: Database) {
  return {
    ...openAcceptance(database),
    ...openSettlement(database),
    ...openRemoval(database),

    /** The positions of a conversation's newest message (0 if there was none) and of the oldest that is still stored. */
    async positions(conversationId: string): Promise<{ firstSeq: number; lastSeq: number }> {
      const [head] = await database.sql<{ first_seq: bigint; last_seq: bigint }>(
        'select first_seq, last_seq from conversation_heads where conversation_id = $1',
        [conversationId],
      );
      return { firstSeq: Number(head?.first_seq ?? 1), lastSeq: Number(head?.last_seq ?? 0) };
    },

    /** The messages of a conversation in a range of positions, both inclusive. */
    async list(
      conversationId: string,
      range: { from: number; to: number; order: 'asc' | 'desc' },
    ): Promise<StoredMessage[]> {
      if (range.to < range.from) return [];
      const rows = await database.sql<MessageRow>(
        `select ${messageColumns} from messages m where conversation_id = $1 and seq between $2 and $3 order by seq`,
        [conversationId, range.from, range.to],
      );
      const messages = rows.map(storedMessage);
      return range.order === 'asc' ? messages : messages.reverse();
    },

    /** A message with its history and its deliveries, from one snapshot. */
    async find(messageId: string): Promise<MessageDetails | undefined> {
      const [row] = await database.sql<MessageRow & { history: StepJson[]; reported: DeliveryJson[] }>(
        `select ${messageColumns},
          coalesce((select jsonb_agg(jsonb_build_object('status', h.status, 'at', h.at, 'note', h.note) order by h.id)
            from status_changes h where h.message_id = m.message_id), '[]') || m.history as history,
          coalesce((select jsonb_agg(to_jsonb(d)) from deliveries d where d.message_id = m.message_id), '[]') as reported
        from messages m where m.message_id = $1`,
        [messageId],
      );
      if (row === undefined) return undefined;
      const message = storedMessage(row);
      const steps = row.history.map((step) => ({ ...step, at: new Date(step.at) }));
      const reported = row.reported.map((delivery) => ({
        recipientId: delivery.recipient_id,
        channel: delivery.channel,
        status: delivery.status,
        attempts: delivery.attempts,
        error: delivery.error,
        updatedAt: new Date(delivery.updated_at),
        nextAttemptAt: delivery.next_attempt_at === null ? null : new Date(delivery.next_attempt_at),
      }));
      const inTransitSince = steps.findLast(({ status }) => status === 'in_transit')?.at;
      return {
        ...message,
        history: historyOf(message.createdAt, steps),
        deliveries: deliveriesOf(message, reported, inTransitSince),
      };
    },
  };
}

interface StepJson {
  status: Status;
  at: string;
  note: string;
}

interface DeliveryJson {
  recipient_id: string;
  channel: string;
  status: Status;
  attempts: number;
  error: string;
  updated_at: string;
  next_attempt_at: string | null;
}

/** A row as `messageColumns` gives it. */
export interface MessageRow {
  message_id: string;
  conversation_id: string;
  seq: bigint;
  sender_id: string;
  sender_username: string;
  recipient_ids: string[];
  channels: string[];
  payload_type: Content['type'];
  payload_text: string | null;
  payload_file_id: string | null;
  payload_label: FileLabel | null;
  priority: Priority;
  status: Status;
  created_at: Date;
  updated_at: Date;
  deliver_by: Date;
  replay: number;
}

/** All columns of a message `m`. */
export const messageColumns = `m.message_id, m.conversation_id, m.seq, m.sender_id, m.sender_username, m.recipient_ids, m.channels,
  m.payload_type, m.payload_text, m.payload_file_id, m.payload_label, m.priority, m.status, m.created_at, m.updated_at,
  m.deliver_by, m.replay`;

export function storedMessage(row: MessageRow): StoredMessage {
  return {
    messageId: row.message_id,
    conversationId: row.conversation_id,
    seq: Number(row.seq),
    senderId: row.sender_id,
    senderUsername: row.sender_username,
    recipientIds: row.recipient_ids,
    channels: row.channels,
    content: {
      type: row.payload_type,
      text: row.payload_text ?? '',
      fileId: row.payload_file_id ?? '',
      ...(row.payload_label === null ? {} : { label: row.payload_label }),
    },
    priority: row.priority,
    status: row.status,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    deliverBy: row.deliver_by,
    replay: row.replay,
  };
}
