import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'file',
  entities: () => import('./entities.ts'),
  migrations: [
    { name: '0001-files', load: async () => (await import('./migrations/0001-files.ts')).Files },
    {
      name: '0002-removals-again',
      load: async () => (await import('./migrations/0002-removals-again.ts')).RemovalsAgain,
    },
    { name: '0003-removals-held', load: async () => (await import('./migrations/0003-removals-held.ts')).RemovalsHeld },
    { name: '0004-lapsed-shares', load: async () => (await import('./migrations/0004-lapsed-shares.ts')).LapsedShares },
    {
      name: '0005-removals-by-earlier-code',
      load: async () => (await import('./migrations/0005-removals-by-earlier-code.ts')).RemovalsByEarlierCode,
    },
    { name: '0006-outbox', load: async () => (await import('./migrations/0006-outbox.ts')).Outbox },
  ],
};
