import { defineEntity, p } from '@mikro-orm/core';

const Delivery = defineEntity({
  name: 'Delivery',
  tableName: 'deliveries',
  properties: {
    messageId: p.uuid().primary(),
    recipientId: p.uuid().primary(),
    channel: p.text().primary(),
    conversationId: p.uuid(),
    idempotencyKey: p.uuid(),
    claimedBy: p.uuid(),
    claimedUntil: p.datetime(3),
    delivered: p.boolean().nullable(),
    attempts: p.integer().nullable(),
    error: p.text().nullable(),
    endedAt: p.datetime(3).nullable(),
    takenAt: p.datetime(3).nullable(),
    requestId: p.text().nullable(),
    replay: p.integer().default(0),
    parkedAt: p.datetime(3).nullable(),
  },
  checks: [
    {
      name: 'deliveries_outcome',
      expression: 'num_nulls(delivered, error, ended_at) in (0, 3) and (ended_at is null or attempts is not null)',
    },
  ],
});

const Request = defineEntity({
  name: 'Request',
  tableName: 'requests',
  properties: {
    id: p.uuid().primary(),
    value: p.blob(),
    callId: p.text(),
    deliveries: p.integer(),
  },
});

const Lane = defineEntity({
  name: 'Lane',
  tableName: 'lanes',
  properties: {
    channel: p.text().primary(),
    conversationId: p.uuid().primary(),
    recipientId: p.uuid().primary(),
    dueAt: p.datetime(3),
    claimedBy: p.uuid().nullable(),
    deliveries: p.integer(),
  },
  indexes: [{ name: 'lanes_due_index', properties: ['channel', 'dueAt'] }],
});

const Parked = defineEntity({
  name: 'Parked',
  tableName: 'parked',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    channel: p.text(),
    conversationId: p.uuid(),
    recipientId: p.uuid(),
    messageId: p.uuid(),
    replay: p.integer(),
    requestId: p.uuid(),
    error: p.text(),
    parkedAt: p.datetime(3),
  },
  indexes: [{ name: 'parked_lane_index', properties: ['channel', 'conversationId', 'recipientId', 'id'] }],
});

const Load = defineEntity({
  name: 'Load',
  tableName: 'loads',
  properties: {
    channel: p.text().primary(),
    taken: p.bigint('number'),
    prompt: p.bigint('number'),
    held: p.bigint('number'),
  },
});

export const entities = [Delivery, Request, Lane, Parked, Load];
