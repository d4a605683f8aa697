import type { Database, DatabaseDefinition } from '#lib/database.ts';
import { ApiKeyEntity, apiKeyQueries } from './api-keys-store.ts';
import { AuditEventEntity, auditQueries } from './audit-store.ts';
import { failureQueries, LoginFailureEntity } from './failures-store.ts';
import { keyOwnerQueries } from './key-owners-store.ts';
import { MailEntity, mailQueries } from './mails-store.ts';
import { resetQueries, ResetRequestEntity, ResetTokenEntity } from './resets-store.ts';
import { seedQueries } from './seeds-store.ts';
import { AuthSessionEntity, RefreshTokenEntity, sessionQueries } from './sessions-store.ts';
import { StandingEntity, TokenLifetimeEntity } from './standings-store.ts';
import { UserEntity, userQueries, UserSubscriptionEntity } from './users-store.ts';

export const database: DatabaseDefinition = {
  schema: 'auth',
  entities: [
    UserEntity,
    AuthSessionEntity,
    RefreshTokenEntity,
    LoginFailureEntity,
    ApiKeyEntity,
    ResetRequestEntity,
    ResetTokenEntity,
    MailEntity,
    AuditEventEntity,
    UserSubscriptionEntity,
    StandingEntity,
    TokenLifetimeEntity,
  ],
  migrations: async () => [
    { name: '0001-users', class: (await import('./migrations/0001-users.ts')).Users },
    {
      name: '0002-failures-by-address',
      class: (await import('./migrations/0002-failures-by-address.ts')).FailuresByAddress,
    },
    { name: '0003-accounts', class: (await import('./migrations/0003-accounts.ts')).Accounts },
    { name: '0004-standings', class: (await import('./migrations/0004-standings.ts')).Standings },
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
    ...seedQueries(db),
  };
}
