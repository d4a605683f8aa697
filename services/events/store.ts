import { defineEntity, p } from '@mikro-orm/core';
import type { DatabaseDefinition } from '#lib/database-definition.ts';

const LoggedEvent = defineEntity({
  name: 'LoggedEvent',
  tableName: 'log',
  properties: {
    id: p.bigint('number').primary(),
    day: p.date().primary(),
    eventId: p.uuid(),
    conversationId: p.uuid().nullable(),
    userId: p.uuid().nullable(),
    type: p.smallint(),
    body: p.blob(),
  },
  uniques: [{ name: 'log_event_id_day_unique', properties: ['eventId', 'day'] }],
  indexes: [
    { name: 'log_conversation_id_id_index', properties: ['conversationId', 'id'] },
    { name: 'log_user_id_id_index', properties: ['userId', 'id'] },
  ],
});

const Head = defineEntity({
  name: 'Head',
  tableName: 'heads',
  properties: {
    name: p.text().primary(),
    lastId: p.bigint('number'),
    removedTo: p.bigint('number'),
    day: p.date(),
    epoch: p.bigint('number'),
  },
});

const Member = defineEntity({
  name: 'Member',
  tableName: 'members',
  properties: {
    userId: p.uuid().primary(),
    conversationId: p.uuid().primary(),
    fromId: p.bigint('number').primary(),
    toId: p.bigint('number').nullable(),
  },
  indexes: [{ name: 'members_conversation_id_index', properties: ['conversationId'] }],
});

const Ticket = defineEntity({
  name: 'Ticket',
  tableName: 'tickets',
  properties: { digest: p.blob().primary(), userId: p.uuid(), expiresAt: p.datetime(3) },
  indexes: [{ name: 'tickets_expires_at_index', properties: ['expiresAt'] }],
});

export const database: DatabaseDefinition = {
  schema: 'events',
  entities: [LoggedEvent, Head, Member, Ticket],
  migrations: [{ name: '0001-log', load: async () => (await import('./migrations/0001-log.ts')).Log }],
};
