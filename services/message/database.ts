import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'message',
  entities: () => import('./entities.ts'),
  migrations: [
    { name: '0001-messages', load: async () => (await import('./migrations/0001-messages.ts')).Messages },
    { name: '0002-file-labels', load: async () => (await import('./migrations/0002-file-labels.ts')).FileLabels },
    { name: '0003-next-attempts', load: async () => (await import('./migrations/0003-next-attempts.ts')).NextAttempts },
    { name: '0004-dead-letters', load: async () => (await import('./migrations/0004-dead-letters.ts')).DeadLetters },
    { name: '0005-less-to-write', load: async () => (await import('./migrations/0005-less-to-write.ts')).LessToWrite },
    { name: '0006-retention', load: async () => (await import('./migrations/0006-retention.ts')).Retention },
    { name: '0007-changes', load: async () => (await import('./migrations/0007-changes.ts')).Changes },
  ],
};
