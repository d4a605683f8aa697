import { defineEntity, p } from '@mikro-orm/core';
import { OutboxEvent } from '#lib/database-outbox-entity.ts';
import type { Content, FileLabel, Priority, Status, StatusChange } from './message.ts';

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
    history: p.json<StatusChange[]>().default('[]'),
  },
  uniques: [{ name: 'messages_conversation_id_seq_unique', properties: ['conversationId', 'seq'] }],
  // No index on what changes, or every change of it writes the entries of all indexes anew.
  indexes: [{ name: 'messages_accepted_at_index', properties: ['createdAt'] }],
});

const OpenMessage = defineEntity({
  name: 'OpenMessage',
  tableName: 'open_messages',
  properties: { expiresAt: p.datetime(3).primary(), messageId: p.uuid().primary() },
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

/** The history of messages that were accepted before it stood in their rows. */
const EarlierStep = defineEntity({
  name: 'EarlierStep',
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
  properties: {
    conversationId: p.uuid().primary(),
    lastSeq: p.bigint('number'),
    firstSeq: p.bigint('number').defaultRaw('1'),
  },
});

/** How far members have read. */
const Read = defineEntity({
  name: 'Read',
  tableName: 'reads',
  properties: {
    conversationId: p.uuid().primary(),
    userId: p.uuid().primary(),
    seq: p.bigint('number'),
    at: p.datetime(3),
  },
});

/** Up to when something was removed at the end of its time. */
const Removal = defineEntity({
  name: 'Removal',
  tableName: 'removals',
  properties: { name: p.text().primary(), before: p.datetime(3) },
});

const OutboxRow = defineEntity({
  name: 'OutboxRow',
  tableName: 'outbox',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    messageId: p.uuid(),
    requestId: p.text(),
    createdAt: p.datetime(3),
    conversationId: p.uuid().nullable(),
    seq: p.bigint('number').nullable(),
    event: p.blob().nullable(),
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

export const entities = [
  Message,
  OpenMessage,
  Delivery,
  EarlierStep,
  ConversationHead,
  Read,
  Removal,
  OutboxRow,
  DeadLetterRow,
  Lease,
  OutboxEvent,
];
