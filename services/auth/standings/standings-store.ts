import { defineEntity, p } from '@mikro-orm/core';

export const StandingEntity = defineEntity({
  name: 'Standing',
  tableName: 'standings',
  properties: {
    subjectId: p.uuid().primary(),
    isApiKey: p.boolean(),
    number: p.bigint().unique(),
    notedAt: p.datetime(3),
  },
});

export const TokenLifetimeEntity = defineEntity({
  name: 'TokenLifetime',
  tableName: 'token_lifetimes',
  properties: {
    lifetime: p.bigint().primary().autoincrement(false),
    issuedUntil: p.datetime(3),
  },
});
