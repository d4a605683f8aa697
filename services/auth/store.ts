import { defineEntity, p } from '@mikro-orm/core';
import { v4 as uuid } from 'uuid';
import type { Database, DatabaseDefinition } from '#lib/database.ts';
import type { FailureLimit, FilledLimits, LoginPair } from './auth.ts';

const UserEntity = defineEntity({
  name: 'User',
  tableName: 'users',
  checks: [
    { name: 'users_username_check', expression: 'username = lower(username)' },
    { name: 'users_email_check', expression: 'email_key = lower(email) and num_nulls(email, email_key) in (0, 2)' },
    { name: 'users_role_check', expression: `role in ('user', 'admin')` },
    { name: 'users_status_check', expression: `status in ('active', 'disabled')` },
  ],
  indexes: [{ properties: ['createdAt', 'id'] }, { properties: ['role', 'createdAt', 'id'] }],
  properties: {
    id: p.uuid().primary(),
    username: p.text().collation('C').unique(),
    passwordHash: p.text().lazy(),
    createdAt: p.datetime(3),
    name: p.text().nullable(),
    email: p.text().collation('C').nullable(),
    /** The email in lower case, which no two users have in common. */
    emailKey: p.text().collation('C').nullable().unique(),
    role: p.text().default('user'),
    status: p.text().default('active'),
  },
});

const AuthSessionEntity = defineEntity({
  name: 'AuthSession',
  tableName: 'auth_sessions',
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(UserEntity).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3),
    /** When it is swept away: later than it ends where its refresh tokens are to be recognized for a while. */
    keptUntil: p.datetime(3).index(),
    /** Set if it was ended before it expired. */
    endedAt: p.datetime(3).nullable(),
  },
});

const RefreshTokenEntity = defineEntity({
  name: 'RefreshToken',
  tableName: 'refresh_tokens',
  properties: {
    tokenHash: p.blob().primary(),
    sessionId: () => p.manyToOne(AuthSessionEntity).fieldName('session_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    usedAt: p.datetime(3).nullable(),
  },
});

const LoginFailureEntity = defineEntity({
  name: 'LoginFailure',
  tableName: 'login_failures',
  indexes: [{ properties: ['username', 'address', 'failedAt'] }, { properties: ['address', 'failedAt'] }],
  properties: {
    id: p.uuid().primary(),
    username: p.text().collation('C'),
    address: p.text(),
    failedAt: p.datetime(3).index(),
  },
});

const ApiKeyEntity = defineEntity({
  name: 'ApiKey',
  tableName: 'api_keys',
  indexes: [{ properties: ['userId', 'createdAt', 'id'] }],
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(UserEntity).fieldName('user_id').mapToPk().deleteRule('cascade'),
    keyHash: p.blob().unique(),
    keyPrefix: p.text(),
    name: p.text(),
    createdAt: p.datetime(3),
    lastUsedAt: p.datetime(3).nullable(),
    expiresAt: p.datetime(3).nullable().index(),
    revokedAt: p.datetime(3).nullable().index(),
  },
});

const ResetRequestEntity = defineEntity({
  name: 'ResetRequest',
  tableName: 'reset_requests',
  indexes: [
    { properties: ['emailKey', 'requestedAt'] },
    { properties: ['address', 'requestedAt'] },
    { properties: ['pending', 'requestedAt'] },
  ],
  properties: {
    id: p.uuid().primary(),
    emailKey: p.text().collation('C'),
    address: p.text(),
    requestedAt: p.datetime(3),
    pending: p.boolean(),
  },
});

const ResetTokenEntity = defineEntity({
  name: 'ResetToken',
  tableName: 'reset_tokens',
  properties: {
    tokenHash: p.blob().primary(),
    userId: () => p.manyToOne(UserEntity).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    usedAt: p.datetime(3).nullable(),
  },
});

const MailEntity = defineEntity({
  name: 'Mail',
  tableName: 'mails',
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(UserEntity).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    recipient: p.text(),
    subject: p.text(),
    body: p.text(),
    createdAt: p.datetime(3),
    giveUpAt: p.datetime(3),
    nextTryAt: p.datetime(3).index(),
    tries: p.integer().default(0),
  },
});

const AuditEventEntity = defineEntity({
  name: 'AuditEvent',
  tableName: 'audit_events',
  indexes: [{ properties: ['at', 'id'] }, { properties: ['actorId', 'at'] }, { properties: ['action', 'at'] }],
  properties: {
    id: p.uuid().primary(),
    actorId: p.uuid(),
    action: p.text(),
    target: p.uuid(),
    at: p.datetime(3),
    requestId: p.text(),
  },
});

const UserSubscriptionEntity = defineEntity({
  name: 'UserSubscription',
  tableName: 'user_subscriptions',
  properties: {
    userId: () => p.oneToOne(UserEntity).fieldName('user_id').mapToPk().deleteRule('cascade').primary(),
    plan: p.text(),
    expiresAt: p.datetime(3).nullable(),
    version: p.bigint(),
  },
});

const StandingEntity = defineEntity({
  name: 'Standing',
  tableName: 'standings',
  properties: {
    subjectId: p.uuid().primary(),
    isApiKey: p.boolean(),
    number: p.bigint().unique(),
    notedAt: p.datetime(3),
  },
});

const TokenLifetimeEntity = defineEntity({
  name: 'TokenLifetime',
  tableName: 'token_lifetimes',
  properties: {
    lifetime: p.bigint().primary().autoincrement(false),
    issuedUntil: p.datetime(3),
  },
});

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

export interface User {
  id: string;
  username: string;
  createdAt: Date;
}

export interface Credentials {
  id: string;
  username: string;
  passwordHash: string;
  isAdmin: boolean;
}

export interface Session {
  /** UUID. */
  id: string;
  userId: string;
  createdAt: Date;
  expiresAt: Date;
}

export type Store = ReturnType<typeof openStore>;

/** The queries of the auth service. */
export function openStore(db: Database) {
  return {
    async findCredentials(username: string): Promise<Credentials | undefined> {
      const [found] = await db.sql<Credentials>(
        `select id, username, password_hash as "passwordHash", role = 'admin' as "isAdmin" from users where username = $1`,
        [username],
      );
      return found;
    },

    /** The highest cost of all hashes of passwords; undefined if there is none. */
    async highestCost(): Promise<number | undefined> {
      const [found] = await db.sql<{ cost: number | null }>(
        String.raw`select max(substring(password_hash from '^\$2[aby]\$(\d\d)\$')::int) as cost from users`,
      );
      return found?.cost ?? undefined;
    },

    /** Gives a user another hash of the same password, unless the password was changed meanwhile. */
    async replaceHash(id: string, from: string, to: string): Promise<void> {
      await db.sql('update users set password_hash = $3 where id = $1 and password_hash = $2', [id, from, to]);
    },

    async findUser(id: string): Promise<User | undefined> {
      return (await db.entities((em) => em.findOne(UserEntity, { id }))) ?? undefined;
    },

    /** A page of users by username, and how many match in all. No `username` matches everybody. */
    async listUsers(page: { username?: string; limit: number; offset: number }): Promise<[User[], number]> {
      const { username, limit, offset } = page;
      return db.entities((em) =>
        em.findAndCount(UserEntity, username === undefined ? {} : { username }, {
          orderBy: { username: 'asc' },
          limit,
          offset,
        }),
      );
    },

    /** Those users that have one of the ids or usernames. */
    async lookupUsers(ids: readonly string[], usernames: readonly string[]): Promise<User[]> {
      return db.sql<User>(
        `select id, username, created_at as "createdAt" from users
          where id = any($1::uuid[]) or username = any($2::text[])`,
        [ids, usernames],
      );
    },

    /** Which limits are full, counting no failures up to `since`. */
    async filledLimits(pair: LoginPair, limit: FailureLimit, since: Date): Promise<FilledLimits> {
      const [found] = await db.sql<{ ofPair: Date | null; ofAddress: Date | null }>(
        `select
           (select failed_at from login_failures
             where username = $1 and address = $2 and failed_at > $3
             order by failed_at desc offset $4::int - 1 limit 1) as "ofPair",
           (select failed_at from login_failures
             where address = $2 and failed_at > $3 and $5::int is not null
             order by failed_at desc offset coalesce($5::int, 1) - 1 limit 1) as "ofAddress"`,
        [pair.username, pair.address, since, limit.failures, limit.perAddress ?? null],
      );
      return { ofPair: found?.ofPair ?? undefined, ofAddress: found?.ofAddress ?? undefined };
    },

    async recordFailure(pair: LoginPair, failedAt: Date): Promise<void> {
      await db.sql('insert into login_failures (id, username, address, failed_at) values ($1, $2, $3, $4)', [
        uuid(),
        pair.username,
        pair.address,
        failedAt,
      ]);
    },

    /** Records a session; the pair that logged in has a clean slate. */
    async openSession(session: Session, pair: LoginPair): Promise<void> {
      await db.sql(
        `with forgiven as (delete from login_failures where username = $5 and address = $6)
         insert into auth_sessions (id, user_id, created_at, expires_at, kept_until) values ($1, $2, $3, $4, $4)`,
        [session.id, session.userId, session.createdAt, session.expiresAt, pair.username, pair.address],
      );
    },

    /** Deletes at most `most` sessions that ended before `now`. @returns how many */
    async sweepSessions(now: Date, most: number): Promise<number> {
      const rows = await db.sql(
        `delete from auth_sessions where id in (
           select id from auth_sessions where kept_until <= $1 order by kept_until limit $2 for update skip locked
         ) returning 1`,
        [now, most],
      );
      return rows.length;
    },

    /** Deletes at most `most` failures from before `until`. @returns how many */
    async sweepFailures(until: Date, most: number): Promise<number> {
      const rows = await db.sql(
        `delete from login_failures where id in (
           select id from login_failures where failed_at <= $1 order by failed_at limit $2 for update skip locked
         ) returning 1`,
        [until, most],
      );
      return rows.length;
    },

    /** How many of the users `user1` to `user<count>` are missing. */
    async countMissingSeeds(count: number): Promise<number> {
      const [row] = await db.sql<{ missing: bigint }>(
        `select count(*) as missing from generate_series(1, $1::int) as n
          where not exists (select from users where username = 'user' || n)`,
        [count],
      );
      return Number(row?.missing);
    },

    /**
     * Makes those of the users `user1` to `user<count>` that are missing. Their ids are known beforehand, like their password:
     * 00000000-0000-4000-8000-000000000001 is user1.
     */
    async seedUsers(count: number, passwordHash: string, createdAt: Date): Promise<void> {
      await db.sql(
        `insert into users (id, username, password_hash, created_at)
         select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'user' || n, $2, $3
           from generate_series(1, $1::int) as n
         on conflict (username) do nothing`,
        [count, passwordHash, createdAt],
      );
    },

    /** Makes the users with these names administrators, and nobody else. @returns the names that nobody has */
    async appointAdmins(usernames: readonly string[]): Promise<string[]> {
      const rows = await db.sql<{ username: string }>(
        `with appointed as (
           update users set role = case role when 'admin' then 'user' else 'admin' end
            where (role = 'admin') <> (username = any($1::text[]))
         )
         select username from unnest($1::text[]) as named (username)
          where not exists (select from users where users.username = named.username)`,
        [usernames],
      );
      return rows.map(({ username }) => username);
    },
  };
}
