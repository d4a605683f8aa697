import { defineEntity, p } from '@mikro-orm/core';
import type { Database, DatabaseDefinition, SqlTransaction } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import {
  settle,
  type Content,
  type DeliveryState,
  type FileLabel,
  type Priority,
  type Report,
  type Status,
} from './message.ts';

const Message = defineEntity({
  name: 'Message',
  tableName: 'messages',
  properties: {
    messageId: p.uuid().primary(),
    conversationId: p.uuid(),
    seq: p.bigint('number'),
    senderId: p.uuid(),
    senderUsername: p.text(),
    recipientIds: p.array((value) => value).columnType('uuid[]'),
    channels: p.array((value) => value).columnType('text[]'),
    payloadType: p.text().$type<Content['type']>(),
    payloadText: p.text().nullable(),
    payloadFileId: p.uuid().nullable(),
    payloadLabel: p.json<FileLabel>().nullable(),
    priority: p.text().$type<Priority>(),
    status: p.text().$type<Status>(),
    fingerprint: p.blob().$type<Buffer>(),
    createdAt: p.datetime(3),
    updatedAt: p.datetime(3),
    deliverBy: p.datetime(3),
    expiresAt: p.datetime(3),
    replay: p.integer().default(0),
  },
  uniques: [{ name: 'messages_conversation_id_seq_unique', properties: ['conversationId', 'seq'] }],
  indexes: [
    { name: 'messages_created_at_index', properties: ['createdAt'], type: 'brin' },
    {
      name: 'messages_open_index',
      properties: ['expiresAt'],
      where: `status in ('accepted', 'in_transit')`,
    },
  ],
});

const Delivery = defineEntity({
  name: 'Delivery',
  tableName: 'deliveries',
  properties: {
    messageId: p.uuid().primary(),
    recipientId: p.uuid().primary(),
    channel: p.text().primary(),
    status: p.text().$type<Status>(),
    attempts: p.integer(),
    error: p.text(),
    updatedAt: p.datetime(3),
    replay: p.integer().default(0),
    nextAttemptAt: p.datetime(3).nullable(),
  },
});

const StatusChange = defineEntity({
  name: 'StatusChange',
  tableName: 'status_changes',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    messageId: p.uuid().index('status_changes_message_id_index'),
    status: p.text().$type<Status>(),
    at: p.datetime(3),
    note: p.text(),
  },
});

const ConversationHead = defineEntity({
  name: 'ConversationHead',
  tableName: 'conversation_heads',
  properties: { conversationId: p.uuid().primary(), lastSeq: p.bigint('number') },
});

const OutboxRow = defineEntity({
  name: 'OutboxRow',
  tableName: 'outbox',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    messageId: p.uuid(),
    requestId: p.text(),
    createdAt: p.datetime(3),
  },
});

const DeadLetterRow = defineEntity({
  name: 'DeadLetterRow',
  tableName: 'dead_letters',
  properties: {
    id: p.uuid().primary(),
    topic: p.text(),
    partition: p.integer(),
    consumerGroup: p.text(),
    reason: p.text(),
    attempts: p.integer(),
    failedAt: p.datetime(3),
    eventId: p.text(),
    eventType: p.text(),
    key: p.text(),
    requestId: p.text(),
    value: p.blob(),
    messageId: p.uuid().nullable(),
    recipientId: p.uuid().nullable(),
    channel: p.text().nullable(),
    replayedAt: p.datetime(3).nullable(),
    replayedBy: p.text().nullable(),
  },
  indexes: [
    { name: 'dead_letters_failed_at_index', properties: ['failedAt'] },
    { name: 'dead_letters_message_id_index', properties: ['messageId'] },
    { name: 'dead_letters_waiting_index', properties: ['failedAt'], where: 'replayed_at is null' },
  ],
});

const Lease = defineEntity({
  name: 'Lease',
  tableName: 'leases',
  properties: {
    name: p.text().primary(),
    owner: p.uuid(),
    epoch: p.bigint('number'),
    expiresAt: p.datetime(3),
  },
});

export const database: DatabaseDefinition = {
  schema: 'message',
  entities: [Message, Delivery, StatusChange, ConversationHead, OutboxRow, DeadLetterRow, Lease],
  migrations: async () => [
    { name: '0001-messages', class: (await import('./migrations/0001-messages.ts')).Messages },
    { name: '0002-file-labels', class: (await import('./migrations/0002-file-labels.ts')).FileLabels },
    { name: '0003-next-attempts', class: (await import('./migrations/0003-next-attempts.ts')).NextAttempts },
    { name: '0004-dead-letters', class: (await import('./migrations/0004-dead-letters.ts')).DeadLetters },
  ],
};

/** A message as it is kept. */
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
  /** No delivery begins after this. */
  deliverBy: Date;
  /** How often it was replayed. */
  replay: number;
}

/** A message to be kept. */
export interface NewMessage extends Omit<StoredMessage, 'seq' | 'status' | 'updatedAt' | 'replay'> {
  fingerprint: Buffer;
  /** When what is still open is failed. */
  expiresAt: Date;
  requestId: string;
}

export interface MessageDetails extends StoredMessage {
  history: { status: Status; at: Date; note: string }[];
  deliveries: DeliveryState[];
}

export type Store = ReturnType<typeof openStore>;

export function openStore(database: Database) {
  return {
    /**
     * Keeps a message, with its place in the conversation, its deliveries, the start of its history and its event for
     * the bus: all of it or nothing, in one statement. A message that is there already is left as it is.
     *
     * @returns whether it is new
     * @throws HubError ALREADY_EXISTS `MESSAGE_ID_REUSED` if the id belongs to a message with another fingerprint
     */
    async append(message: NewMessage): Promise<boolean> {
      const inserted = await insert(database, message).catch((error: unknown) => {
        // Two calls with one new id at once: the second one waited for the first, and finds its message.
        if (isUniqueViolation(error)) return false;
        throw error;
      });
      if (inserted) return true;
      if (await this.accepted(message.messageId, message.fingerprint)) return false;
      throw new HubError('ABORTED', 'MESSAGE_ID_IN_USE', 'The message_id is being used by another call: try again');
    },

    /**
     * Whether this very message was accepted before.
     *
     * @throws HubError ALREADY_EXISTS `MESSAGE_ID_REUSED` if the id belongs to a message with another fingerprint
     */
    async accepted(messageId: string, fingerprint: Buffer): Promise<boolean> {
      const [found] = await database.sql<{ fingerprint: Buffer }>(
        'select fingerprint from messages where message_id = $1',
        [messageId],
      );
      if (found === undefined) return false;
      if (found.fingerprint.equals(fingerprint)) return true;
      throw new HubError('ALREADY_EXISTS', 'MESSAGE_ID_REUSED', 'The message_id was used for another message');
    },

    /** The position of the newest message of a conversation; 0 if there is none. */
    async lastSeq(conversationId: string): Promise<number> {
      const [head] = await database.sql<{ last_seq: bigint }>(
        'select last_seq from conversation_heads where conversation_id = $1',
        [conversationId],
      );
      return Number(head?.last_seq ?? 0);
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

    /** A message with its history and its deliveries, as they are at one moment. */
    async find(messageId: string): Promise<MessageDetails | undefined> {
      const [row] = await database.sql<MessageRow & { history: HistoryJson[]; deliveries: DeliveryJson[] }>(
        `select ${messageColumns},
          (select jsonb_agg(jsonb_build_object('status', h.status, 'at', h.at, 'note', h.note) order by h.id)
            from status_changes h where h.message_id = m.message_id) as history,
          (select jsonb_agg(to_jsonb(d) order by array_position(m.recipient_ids, d.recipient_id), d.channel)
            from deliveries d where d.message_id = m.message_id) as deliveries
        from messages m where m.message_id = $1`,
        [messageId],
      );
      if (row === undefined) return undefined;
      return {
        ...storedMessage(row),
        history: row.history.map((change) => ({ ...change, at: new Date(change.at) })),
        deliveries: row.deliveries.map((delivery) => ({
          recipientId: delivery.recipient_id,
          channel: delivery.channel,
          status: delivery.status,
          attempts: delivery.attempts,
          error: delivery.error,
          updatedAt: new Date(delivery.updated_at),
          nextAttemptAt: delivery.next_attempt_at === null ? null : new Date(delivery.next_attempt_at),
        })),
      };
    },

    /**
     * Applies what was reported of messages, in one transaction. Reports of unknown messages are returned, not applied.
     *
     * @returns how the messages ended that did by that, too
     */
    async applyReports(
      reports: ReadonlyMap<string, readonly Report[]>,
    ): Promise<{ unknown: string[]; ended: Status[] }> {
      return database.transaction(async (transaction) => {
        // In one order everywhere, so that two that apply at once wait for each other instead of blocking each other.
        const open = await transaction.sql<OpenRow>(
          `select message_id, status, updated_at, replay from messages where message_id = any($1)
            order by message_id for update`,
          [[...reports.keys()]],
        );
        const reached = await write(transaction, open, (messageId) => reports.get(messageId) as readonly Report[]);
        const ended = reached.filter((status) => status === 'delivered' || status === 'failed');
        const known = new Set(open.map((row) => row.message_id));
        return { unknown: [...reports.keys()].filter((messageId) => !known.has(messageId)), ended };
      });
    },

    /** Fails what is still open of messages whose time is over, `limit` at a time. Returns how many there were. */
    async expire(now: Date, reason: string, limit: number): Promise<number> {
      return database.transaction(async (transaction) => {
        const open = await transaction.sql<OpenRow>(
          `select message_id, status, updated_at, replay from messages
            where status in ('accepted', 'in_transit') and expires_at <= $1
            order by expires_at limit $2 for update skip locked`,
          [now, limit],
        );
        await write(transaction, open, () => [{ kind: 'expired', at: now, reason }]);
        return open.length;
      });
    },
  };
}

/** False if there was a message with that id already. */
async function insert(database: Database, message: NewMessage): Promise<boolean> {
  // The head's row stays locked until the end of the statement's transaction. That makes positions gapless, and rows of
  // the outbox with greater ids come later in their conversation: the relay relies on it.
  const rows = await database.sql(
    `with head as (
      insert into conversation_heads as h (conversation_id, last_seq)
        select $2, 1 where not exists (select from messages where message_id = $1)
        on conflict (conversation_id) do update set last_seq = h.last_seq + 1
        returning last_seq
    ), message as (
      insert into messages (message_id, conversation_id, seq, sender_id, sender_username, recipient_ids, channels,
          payload_type, payload_text, payload_file_id, payload_label, priority, status, fingerprint, created_at, updated_at, deliver_by,
          expires_at)
        select $1, $2, last_seq, $3, $4, $5, $6, $7, $8, $9, $16, $10, 'accepted', $11, $12, $12, $13, $14 from head
        returning seq
    ), ledger as (
      insert into deliveries (message_id, recipient_id, channel, status, attempts, error, updated_at)
        select $1, recipient, channel, 'accepted', 0, '', $12
          from head, unnest($5::uuid[]) as recipient, unnest($6::text[]) as channel
    ), history as (
      insert into status_changes (message_id, status, at, note) select $1, 'accepted', $12, '' from head
    ), event as (
      insert into outbox (message_id, request_id, created_at) select $1, $15, $12 from head
    )
    select seq from message`,
    [
      message.messageId,
      message.conversationId,
      message.senderId,
      message.senderUsername,
      message.recipientIds,
      message.channels,
      message.content.type,
      message.content.type === 'text' ? message.content.text : null,
      message.content.type === 'file' ? message.content.fileId : null,
      message.priority,
      message.fingerprint,
      message.createdAt,
      message.deliverBy,
      message.expiresAt,
      message.requestId,
      message.content.label === undefined ? null : JSON.stringify(message.content.label),
    ],
  );
  return rows.length > 0;
}

/** Applies reports to messages that the transaction has locked, and writes what they change. @returns the new statuses */
async function write(
  transaction: SqlTransaction,
  open: readonly OpenRow[],
  reportsOf: (messageId: string) => readonly Report[],
): Promise<Status[]> {
  if (open.length === 0) return [];
  const rows = await transaction.sql<
    DeliveryJson & { message_id: string; updated_at: Date; next_attempt_at: Date | null }
  >(
    `select message_id, recipient_id, channel, status, attempts, error, updated_at, next_attempt_at
      from deliveries where message_id = any($1)`,
    [open.map((row) => row.message_id)],
  );
  const deliveriesOf = Map.groupBy(rows, (row) => row.message_id);

  const deliveries: (DeliveryState & { messageId: string })[] = [];
  const history: { messageId: string; status: Status; at: Date; note: string }[] = [];
  const latest: { messageId: string; status: Status; at: Date }[] = [];
  for (const { message_id: messageId, status, updated_at: updatedAt, replay } of open) {
    const known = (deliveriesOf.get(messageId) ?? []).map((row) => ({
      recipientId: row.recipient_id,
      channel: row.channel,
      status: row.status,
      attempts: row.attempts,
      error: row.error,
      updatedAt: row.updated_at,
      nextAttemptAt: row.next_attempt_at,
    }));
    const settlement = settle({ status, updatedAt, replay, deliveries: known }, reportsOf(messageId));
    deliveries.push(...settlement.deliveries.map((delivery) => ({ messageId, ...delivery })));
    history.push(...settlement.history.map((change) => ({ messageId, ...change })));
    const last = settlement.history.at(-1);
    if (last !== undefined) latest.push({ messageId, status: last.status, at: last.at });
  }

  if (deliveries.length > 0) {
    await transaction.sql(
      `update deliveries d
        set status = new.status, attempts = new.attempts, error = new.error, updated_at = new.updated_at,
          next_attempt_at = new.next_attempt_at
        from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[], $7::timestamptz[],
            $8::timestamptz[])
          as new (message_id, recipient_id, channel, status, attempts, error, updated_at, next_attempt_at)
        where d.message_id = new.message_id and d.recipient_id = new.recipient_id and d.channel = new.channel`,
      columns(deliveries, [
        'messageId',
        'recipientId',
        'channel',
        'status',
        'attempts',
        'error',
        'updatedAt',
        'nextAttemptAt',
      ]),
    );
  }
  if (history.length > 0) {
    await transaction.sql(
      `insert into status_changes (message_id, status, at, note)
        select * from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[])`,
      columns(history, ['messageId', 'status', 'at', 'note']),
    );
    await transaction.sql(
      `update messages m set status = new.status, updated_at = new.at
        from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as new (message_id, status, at)
        where m.message_id = new.message_id`,
      columns(latest, ['messageId', 'status', 'at']),
    );
  }
  return latest.map(({ status }) => status);
}

/** Rows as arrays by column, the way that unnest takes them. */
function columns<Row>(rows: readonly Row[], names: readonly (keyof Row)[]): unknown[][] {
  return names.map((name) => rows.map((row) => row[name]));
}

interface OpenRow {
  message_id: string;
  status: Status;
  updated_at: Date;
  replay: number;
}

interface HistoryJson {
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
  updated_at: string | Date;
  next_attempt_at: string | Date | null;
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

/** What there is to know of a message `m`. */
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

/** SQLSTATE 23505: a unique constraint refused the row. */
function isUniqueViolation(error: unknown): boolean {
  return (error as { code?: unknown }).code === '23505';
}
