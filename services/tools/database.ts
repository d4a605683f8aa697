import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'tools',
  entities: () => import('./entities.ts'),
  migrations: [{ name: '0001-tools', load: async () => (await import('./migrations/0001-tools.ts')).Tools }],
};
