import type { Database } from '#lib/database.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { apiKeyQueries } from './api-keys/api-keys-store.ts';
import { auditQueries } from './accounts/audit-store.ts';
import { failureQueries } from './logins/failures-store.ts';
import { keyOwnerQueries } from './api-keys/key-owners-store.ts';
import { mailQueries } from './mails/mails-store.ts';
import { registrationQueries } from './accounts/registrations-store.ts';
import { resetQueries } from './mails/resets-store.ts';
import { seedQueries } from './accounts/seeds-store.ts';
import { sessionQueries } from './sessions/sessions-store.ts';
import { userQueries } from './accounts/users-store.ts';

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

export type Store = ReturnType<typeof openStore>;

/** The queries of the auth service. */
export function openStore(db: Database) {
  return {
    ...userQueries(db),
    ...sessionQueries(db),
    ...failureQueries(db),
    ...apiKeyQueries(db),
    ...keyOwnerQueries(db),
    ...resetQueries(db),
    ...mailQueries(db),
    ...auditQueries(db),
    ...registrationQueries(db),
    ...seedQueries(db),
  };
}
