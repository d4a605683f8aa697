import { defineEntity, p } from '@mikro-orm/core';
import { OutboxEvent } from '#lib/database-outbox-entity.ts';
import type { ConversationKind } from './conversation.ts';

const Conversation = defineEntity({
  name: 'Conversation',
  tableName: 'conversations',
  checks: [{ name: 'conversations_type_check', expression: `type in ('private', 'group')` }],
  properties: {
    id: p.uuid().primary(),
    type: p.text().$type<ConversationKind>(),
    name: p.text(),
    description: p.text(),
    createdAt: p.datetime(3),
    lastActivityAt: p.datetime(3),
  },
});

const Member = defineEntity({
  name: 'Member',
  tableName: 'members',
  checks: [{ name: 'members_status_check', expression: `status in ('active', 'left')` }],
  indexes: [
    { name: 'members_active_user_index', properties: ['userId', 'conversationId'], where: `status = 'active'` },
  ],
  properties: {
    conversationId: () =>
      p.manyToOne(Conversation).fieldName('conversation_id').mapToPk().primary().deleteRule('cascade'),
    userId: p.uuid().primary(),
    position: p.smallint(),
    status: p.text().$type<'active' | 'left'>(),
    joinedAt: p.datetime(3),
    leftAt: p.datetime(3).nullable(),
  },
});

export const entities = [Conversation, Member, OutboxEvent];
