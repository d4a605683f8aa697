import type { Database } from '#lib/database.ts';
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
