import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'router',
  entities: () => import('./entities.ts'),
  migrations: [
    { name: '0001-routes', load: async () => (await import('./migrations/0001-routes.ts')).Routes },
    {
      name: '0002-replays',
      // Code before this migration names the former primary key in an `on conflict`, and fails without it.
      needs: '0002-replays',
      load: async () => (await import('./migrations/0002-replays.ts')).Replays,
    },
  ],
};
