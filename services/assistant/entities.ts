import { defineEntity, p } from '@mikro-orm/core';
import type { FinishReason, MessageStatus, Role, Step, StoredError } from './conversations/conversation.ts';
import type { StoredMessage } from './mcp/sessions-store.ts';
import type { TurnState } from './turns/turn.ts';

const Conversation = defineEntity({
  name: 'Conversation',
  tableName: 'conversations',
  indexes: [{ name: 'conversations_user_id_updated_at_id_index', properties: ['userId', 'updatedAt', 'id'] }],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    userId: p.uuid(),
    /** The user's number. */
    numId: p.bigint('bigint'),
    title: p.text(),
    messageCount: p.integer(),
    createdAt: p.datetime(3),
    updatedAt: p.datetime(3),
  },
});

const Message = defineEntity({
  name: 'Message',
  tableName: 'messages',
  checks: [
    { name: 'messages_role_check', expression: `role in ('user', 'assistant')` },
    { name: 'messages_status_check', expression: `status in ('completed', 'stopped', 'failed', 'streaming')` },
    {
      name: 'messages_finish_reason_check',
      expression: `finish_reason in ('stop', 'length', 'max_steps', 'stopped')`,
    },
  ],
  indexes: [
    { name: 'messages_conversation_id_id_index', properties: ['conversationId', 'id'] },
    { name: 'messages_replaced_by_index', properties: ['replacedBy'], where: 'replaced_by is not null' },
  ],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    conversationId: () => p.manyToOne(Conversation).fieldName('conversation_id').mapToPk().deleteRule('cascade'),
    role: p.text().$type<Role>(),
    content: p.text(),
    status: p.text().$type<MessageStatus>(),
    createdAt: p.datetime(3),
    /** Of an answer the message that it answers. */
    replyTo: p.bigint('bigint').nullable(),
    /** The answer that took its place. */
    replacedBy: p.bigint('bigint').nullable(),
    steps: p.json().$type<readonly Step[]>().nullable(),
    model: p.text().nullable(),
    inputTokens: p.integer().nullable(),
    outputTokens: p.integer().nullable(),
    finishReason: p.text().$type<FinishReason>().nullable(),
    error: p.json().$type<StoredError>().nullable(),
  },
});

const Turn = defineEntity({
  name: 'Turn',
  tableName: 'turns',
  checks: [
    {
      name: 'turns_state_check',
      expression: `state in ('calling', 'acting', 'waiting', 'completed', 'stopped', 'failed')`,
    },
  ],
  uniques: [{ name: 'turns_conversation_id_unique', properties: ['conversationId'], where: 'ended_at is null' }],
  indexes: [
    { name: 'turns_user_id_began_at_index', properties: ['userId', 'beganAt'] },
    { name: 'turns_lease_until_index', properties: ['leaseUntil'], where: 'ended_at is null' },
    { name: 'turns_ended_at_index', properties: ['endedAt'] },
  ],
  properties: {
    messageId: () =>
      p.manyToOne(Message).fieldName('message_id').mapToPk().deleteRule('cascade').updateRule('no action').primary(),
    conversationId: p.bigint('bigint'),
    userId: p.uuid(),
    state: p.text().$type<TurnState>(),
    approveTools: p.boolean(),
    /** The process that works on it: UUID. None while it waits for the user. */
    owner: p.uuid().nullable(),
    leaseUntil: p.datetime(3).nullable(),
    isStopAsked: p.boolean(),
    beganAt: p.datetime(3),
    /** Milliseconds that it has worked, without what it has waited for the user. */
    activeMs: p.integer(),
    endedAt: p.datetime(3).nullable(),
  },
});

const TurnEvent = defineEntity({
  name: 'TurnEvent',
  tableName: 'turn_events',
  properties: {
    messageId: () => p.manyToOne(Turn).fieldName('message_id').mapToPk().primary().deleteRule('cascade'),
    number: p.bigint('bigint').primary(),
    /** A ChatResponse. */
    event: p.blob(),
  },
});

const IdempotencyKey = defineEntity({
  name: 'IdempotencyKey',
  tableName: 'idempotency_keys',
  properties: {
    userId: p.uuid().primary(),
    key: p.text().primary(),
    /** A hash of the request that the key came with. */
    fingerprint: p.text(),
    /** The answer to that request. */
    messageId: () => p.manyToOne(Message).fieldName('message_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3).index(),
  },
});

const Task = defineEntity({
  name: 'Task',
  tableName: 'tasks',
  uniques: [{ name: 'tasks_user_id_call_id_unique', properties: ['userId', 'callId'] }],
  indexes: [
    { name: 'tasks_user_id_created_at_id_index', properties: ['userId', 'createdAt', 'id'] },
    { name: 'tasks_user_id_updated_at_id_index', properties: ['userId', 'updatedAt', 'id'] },
    { name: 'tasks_user_id_title_key_id_index', properties: ['userId', 'titleKey', 'id'] },
  ],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    userId: p.uuid(),
    title: p.text(),
    /** By what titles are sorted: without regard to letter case. */
    titleKey: p.text().collation('C'),
    description: p.text().nullable(),
    completed: p.boolean(),
    createdAt: p.datetime(3),
    updatedAt: p.datetime(3),
    /** Of a task that was made by a tool: the id of the call, so that a repeated one makes no other task. */
    callId: p.text().nullable(),
  },
});

const MessageNamespace = defineEntity({
  name: 'MessageNamespace',
  tableName: 'message_namespaces',
  properties: { id: p.uuid().primary() },
});

const McpSession = defineEntity({
  name: 'McpSession',
  tableName: 'mcp_sessions',
  indexes: [{ name: 'mcp_sessions_user_id_used_at_index', properties: ['userId', 'usedAt'] }],
  properties: {
    id: p.uuid().primary(),
    userId: p.uuid(),
    server: p.text(),
    /** The client's `initialize` request, from which any process can tell what was agreed. */
    initialize: p.json().columnType('json').$type<StoredMessage>(),
    createdAt: p.datetime(3),
    usedAt: p.datetime(3).index(),
  },
});

const McpEvent = defineEntity({
  name: 'McpEvent',
  tableName: 'mcp_events',
  indexes: [{ name: 'mcp_events_session_id_stream_id_id_index', properties: ['sessionId', 'streamId', 'id'] }],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    sessionId: () => p.manyToOne(McpSession).fieldName('session_id').mapToPk().deleteRule('cascade'),
    streamId: p.uuid(),
    /** Null for an event without a message, which only says where the stream begins. */
    message: p.json().columnType('json').$type<StoredMessage>().nullable(),
    isLast: p.boolean(),
    createdAt: p.datetime(3).index(),
  },
});

const McpReply = defineEntity({
  name: 'McpReply',
  tableName: 'mcp_replies',
  indexes: [{ name: 'mcp_replies_session_id_created_at_index', properties: ['sessionId', 'createdAt'] }],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    sessionId: () => p.manyToOne(McpSession).fieldName('session_id').mapToPk().deleteRule('cascade'),
    message: p.json().columnType('json').$type<StoredMessage>(),
    createdAt: p.datetime(3).index(),
  },
});

export const entities = [
  Conversation,
  Message,
  Turn,
  TurnEvent,
  IdempotencyKey,
  Task,
  MessageNamespace,
  McpSession,
  McpEvent,
  McpReply,
];
