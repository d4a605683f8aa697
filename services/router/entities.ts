import { defineEntity, p } from '@mikro-orm/core';
import type { Target } from './router.ts';

export const Route = defineEntity({
  name: 'Route',
  tableName: 'routes',
  properties: {
    messageId: p.uuid().primary(),
    replay: p.integer().primary(),
    conversationId: p.uuid(),
    recipientIds: p.array().columnType('uuid[]'),
    channels: p.array(),
    routedAt: p.datetime(3),
    rejectedReason: p.text().nullable(),
    targets: p.json<Target[]>().nullable(),
  },
});

export const entities = [Route];
