import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'assistant',
  entities: () => import('./entities.ts'),
  migrations: [
    {
      name: '0001-conversations',
      load: async () => (await import('./migrations/0001-conversations.ts')).Conversations,
    },
    { name: '0002-tasks-and-mcp', load: async () => (await import('./migrations/0002-tasks-and-mcp.ts')).TasksAndMcp },
  ],
};
