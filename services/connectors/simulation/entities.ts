import { defineEntity, p } from '@mikro-orm/core';
import type { Profile } from './profile.ts';

const ProviderProfile = defineEntity({
  name: 'ProviderProfile',
  tableName: 'provider_profiles',
  properties: { channel: p.text().primary(), profile: p.json<Profile>(), updatedAt: p.datetime(3) },
});

const ProviderRate = defineEntity({
  name: 'ProviderRate',
  tableName: 'provider_rates',
  properties: { channel: p.text().primary(), second: p.bigint('number'), requests: p.integer() },
});

const ProviderEffect = defineEntity({
  name: 'ProviderEffect',
  tableName: 'provider_effects',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    channel: p.text(),
    idempotencyKey: p.uuid(),
    messageId: p.uuid(),
    conversationId: p.uuid(),
    seq: p.bigint('number'),
    recipientId: p.uuid(),
    firstAt: p.datetime(3).index(),
    requests: p.integer(),
    reportsLater: p.boolean(),
    replay: p.integer().default(0),
  },
  uniques: [{ properties: ['channel', 'idempotencyKey'] }],
  indexes: [{ name: 'provider_effects_delivery_index', properties: ['messageId', 'recipientId', 'channel'] }],
});

const ProviderReceipt = defineEntity({
  name: 'ProviderReceipt',
  tableName: 'provider_receipts',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    channel: p.text(),
    idempotencyKey: p.uuid(),
    messageId: p.uuid(),
    recipientId: p.uuid(),
    status: p.text(),
    reason: p.text(),
    dueAt: p.datetime(3).index(),
    replay: p.integer().default(0),
  },
});

export const entities = [ProviderProfile, ProviderRate, ProviderEffect, ProviderReceipt];
