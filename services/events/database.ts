import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'events',
  entities: () => import('./entities.ts'),
  migrations: [
    { name: '0001-log', load: async () => (await import('./migrations/0001-log.ts')).Log },
    { name: '0002-webhooks', load: async () => (await import('./migrations/0002-webhooks.ts')).Webhooks },
  ],
};
