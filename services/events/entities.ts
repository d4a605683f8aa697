import { defineEntity, p } from '@mikro-orm/core';

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

const Endpoint = defineEntity({
  name: 'Endpoint',
  tableName: 'endpoints',
  checks: [{ name: 'endpoints_status_check', expression: `status in ('active', 'paused', 'disabled')` }],
  properties: {
    id: p.uuid().primary(),
    userId: p.uuid(),
    url: p.text(),
    types: p.array().columnType('smallint[]'),
    conversationIds: p.array().columnType('uuid[]'),
    secret: p.blob(),
    oldSecret: p.blob().nullable(),
    oldSecretUntil: p.datetime(3).nullable(),
    status: p.text(),
    createdAt: p.datetime(3),
    updatedAt: p.datetime(3),
    failures: p.integer(),
    failingSince: p.datetime(3).nullable(),
    holdUntil: p.datetime(3).nullable(),
    epoch: p.bigint('number'),
    position: p.bigint('number'),
    markedTo: p.bigint('number').nullable(),
    dueAt: p.datetime(3).nullable(),
    leaseBy: p.uuid().nullable(),
    leaseUntil: p.datetime(3).nullable(),
  },
  indexes: [
    { name: 'endpoints_user_id_index', properties: ['userId'] },
    { name: 'endpoints_due_at_index', properties: ['dueAt'] },
  ],
});

const Backlog = defineEntity({
  name: 'Backlog',
  tableName: 'backlogs',
  checks: [{ name: 'backlogs_kind_check', expression: `kind in ('conversation', 'replay', 'reset')` }],
  properties: {
    id: p.uuid().primary(),
    endpointId: p.uuid(),
    kind: p.text(),
    conversationId: p.uuid().nullable(),
    afterId: p.bigint('number'),
    upTo: p.bigint('number').nullable(),
    remaining: p.integer().nullable(),
    attempts: p.integer(),
    failingSince: p.datetime(3).nullable(),
    nextAt: p.datetime(3),
  },
  indexes: [{ name: 'backlogs_endpoint_id_index', properties: ['endpointId'] }],
});

const Attempt = defineEntity({
  name: 'Attempt',
  tableName: 'attempts',
  properties: {
    id: p.uuid().primary(),
    endpointId: p.uuid(),
    eventId: p.uuid(),
    type: p.text(),
    at: p.datetime(3),
    durationMs: p.integer(),
    statusCode: p.smallint(),
    outcome: p.smallint(),
    error: p.text(),
    number: p.integer(),
    nextAt: p.datetime(3).nullable(),
  },
  indexes: [{ name: 'attempts_endpoint_id_id_index', properties: ['endpointId', 'id'] }],
});

export const entities = [LoggedEvent, Head, Member, Ticket, Endpoint, Backlog, Attempt];
