import { defineEntity, p } from '@mikro-orm/core';
import { tableName } from './database-outbox.ts';

/** The entity of the table of an outbox, whose migration is `outboxTable`. */
export const OutboxEvent = defineEntity({
  name: 'OutboxEvent',
  tableName,
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    topic: p.text(),
    eventId: p.uuid(),
    type: p.text(),
    key: p.text(),
    value: p.blob(),
    requestId: p.text(),
  },
});
