import type { DatabaseDefinition } from '#lib/database-definition.ts';

export const database: DatabaseDefinition = {
  schema: 'auth',
  entities: () => import('./entities.ts'),
  migrations: [
    { name: '0001-users', load: async () => (await import('./migrations/0001-users.ts')).Users },
    {
      name: '0002-failures-by-address',
      load: async () => (await import('./migrations/0002-failures-by-address.ts')).FailuresByAddress,
    },
    { name: '0003-accounts', load: async () => (await import('./migrations/0003-accounts.ts')).Accounts },
    { name: '0004-standings', load: async () => (await import('./migrations/0004-standings.ts')).Standings },
    { name: '0005-user-numbers', load: async () => (await import('./migrations/0005-user-numbers.ts')).UserNumbers },
    {
      name: '0006-registrations',
      load: async () => (await import('./migrations/0006-registrations.ts')).Registrations,
    },
    { name: '0007-user-count', load: async () => (await import('./migrations/0007-user-count.ts')).UserCount },
  ],
};
