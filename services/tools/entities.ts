import { defineEntity, p } from '@mikro-orm/core';
import type { PlanName, ResponseStatus } from './tools.ts';

const Tool = defineEntity({
  name: 'Tool',
  tableName: 'tools',
  uniques: [{ name: 'tools_name_key_unique', properties: ['nameKey'], where: 'deleted_at is null' }],
  properties: {
    id: p.uuid().primary(),
    name: p.text(),
    nameKey: p.text().collation('C'),
    description: p.text(),
    apiEndpoint: p.text(),
    isActive: p.boolean(),
    createdAt: p.datetime(3),
    /** Set once it is deleted: its usage still refers to its name. */
    deletedAt: p.datetime(3).nullable(),
  },
});

const Subscription = defineEntity({
  name: 'Subscription',
  tableName: 'subscriptions',
  checks: [{ name: 'subscriptions_plan_check', expression: `plan in ('free', 'pro', 'enterprise')` }],
  properties: {
    userId: p.uuid().primary(),
    id: p.uuid().unique(),
    plan: p.text().$type<PlanName>(),
    tokensUsed: p.bigint('number'),
    periodStart: p.datetime(3),
    periodEnd: p.datetime(3),
    expiresAt: p.datetime(3).nullable(),
    /** Increased with each change that is reported to the auth service. */
    version: p.bigint('number'),
  },
});

const Reservation = defineEntity({
  name: 'Reservation',
  tableName: 'reservations',
  properties: {
    id: p.uuid().primary(),
    userId: p.uuid().index(),
    toolId: p.uuid(),
    plan: p.text(),
    tokens: p.bigint('number'),
    beganAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    requestId: p.text(),
  },
});

const Usage = defineEntity({
  name: 'Usage',
  tableName: 'usage',
  checks: [{ name: 'usage_status_check', expression: `status in ('success', 'error', 'timeout')` }],
  indexes: [
    {
      name: 'usage_user_id_began_at_id_index',
      properties: ['userId', 'beganAt', 'id'],
      include: ['toolId', 'tokens'],
    },
  ],
  properties: {
    id: p.uuid().primary(),
    userId: p.uuid(),
    toolId: p.uuid(),
    plan: p.text(),
    beganAt: p.datetime(3),
    tokens: p.bigint('number'),
    status: p.text().$type<ResponseStatus>(),
    durationMs: p.integer(),
    requestId: p.text(),
  },
});

const UsageDay = defineEntity({
  name: 'UsageDay',
  tableName: 'usage_days',
  properties: {
    day: p.date().primary(),
    toolId: p.uuid().primary(),
    plan: p.text().primary(),
    part: p.smallint().primary(),
    invocations: p.bigint('number'),
    tokens: p.bigint('number'),
    mostTokens: p.bigint('number'),
  },
});

const Outbox = defineEntity({
  name: 'OutboxEntry',
  tableName: 'outbox',
  checks: [{ name: 'outbox_kind_check', expression: `kind in ('subscription', 'audit event')` }],
  properties: {
    id: p.bigint('bigint').primary().autoincrement(),
    kind: p.text(),
    content: p.json(),
    createdAt: p.datetime(3),
    notBefore: p.datetime(3),
  },
});

export const entities = [Tool, Subscription, Reservation, Usage, UsageDay, Outbox];
