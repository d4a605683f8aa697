import { defineEntity, p } from '@mikro-orm/core';

const User = defineEntity({
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
    /** A short name for the id, in the order of registration. PostgreSQL gives it. */
    numId: p.bigint('bigint').autoincrement().unique(),
    username: p.text().collation('C').unique(),
    passwordHash: p.text().lazy(),
    createdAt: p.datetime(3),
    name: p.text().nullable(),
    email: p.text().collation('C').nullable(),
    /** The email in lower case, which no two users have in common. */
    emailKey: p.text().collation('C').nullable().unique(),
    role: p.text().default('user'),
    /** What processes of the version before roles go by; `role` says the same. */
    isAdmin: p.boolean().default(false),
    status: p.text().default('active'),
  },
});

/** Kept by triggers of `users`. */
const UserCount = defineEntity({
  name: 'UserCount',
  tableName: 'user_counts',
  properties: { name: p.text().primary(), total: p.bigint() },
});

const UserSubscription = defineEntity({
  name: 'UserSubscription',
  tableName: 'user_subscriptions',
  properties: {
    userId: () =>
      p.manyToOne(User).fieldName('user_id').mapToPk().deleteRule('cascade').updateRule('no action').primary(),
    plan: p.text(),
    expiresAt: p.datetime(3).nullable(),
    version: p.bigint(),
  },
});

const Registration = defineEntity({
  name: 'Registration',
  tableName: 'registrations',
  indexes: [{ properties: ['address', 'registeredAt'] }],
  properties: {
    id: p.uuid().primary(),
    address: p.text(),
    registeredAt: p.datetime(3).index(),
  },
});

export const AuditEvent = defineEntity({
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

const LoginFailure = defineEntity({
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

const AuthSession = defineEntity({
  name: 'AuthSession',
  tableName: 'auth_sessions',
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(User).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    /** Set if it is kept for longer than until it expires, so that its refresh tokens are recognized for a while. */
    keptUntil: p.datetime(3).nullable().index(),
    /** Set if it was ended before it expired. */
    endedAt: p.datetime(3).nullable(),
  },
});

const RefreshToken = defineEntity({
  name: 'RefreshToken',
  tableName: 'refresh_tokens',
  properties: {
    tokenHash: p.blob().primary(),
    sessionId: () => p.manyToOne(AuthSession).fieldName('session_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    usedAt: p.datetime(3).nullable(),
  },
});

const ApiKey = defineEntity({
  name: 'ApiKey',
  tableName: 'api_keys',
  indexes: [{ properties: ['userId', 'createdAt', 'id'] }],
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(User).fieldName('user_id').mapToPk().deleteRule('cascade'),
    keyHash: p.blob().unique(),
    keyPrefix: p.text(),
    name: p.text(),
    createdAt: p.datetime(3),
    lastUsedAt: p.datetime(3).nullable(),
    expiresAt: p.datetime(3).nullable().index(),
    revokedAt: p.datetime(3).nullable().index(),
  },
});

const Standing = defineEntity({
  name: 'Standing',
  tableName: 'standings',
  properties: {
    subjectId: p.uuid().primary(),
    isApiKey: p.boolean(),
    number: p.bigint().unique(),
    notedAt: p.datetime(3),
  },
});

const TokenLifetime = defineEntity({
  name: 'TokenLifetime',
  tableName: 'token_lifetimes',
  properties: {
    lifetime: p.bigint().primary().autoincrement(false),
    issuedUntil: p.datetime(3),
  },
});

const ResetRequest = defineEntity({
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

const ResetToken = defineEntity({
  name: 'ResetToken',
  tableName: 'reset_tokens',
  properties: {
    tokenHash: p.blob().primary(),
    userId: () => p.manyToOne(User).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    createdAt: p.datetime(3),
    expiresAt: p.datetime(3).index(),
    usedAt: p.datetime(3).nullable(),
  },
});

const Mail = defineEntity({
  name: 'Mail',
  tableName: 'mails',
  properties: {
    id: p.uuid().primary(),
    userId: () => p.manyToOne(User).fieldName('user_id').mapToPk().deleteRule('cascade').index(),
    recipient: p.text(),
    subject: p.text(),
    body: p.text(),
    createdAt: p.datetime(3),
    giveUpAt: p.datetime(3),
    nextTryAt: p.datetime(3).index(),
    tries: p.integer().default(0),
  },
});

export const entities = [
  User,
  UserCount,
  UserSubscription,
  Registration,
  AuditEvent,
  LoginFailure,
  AuthSession,
  RefreshToken,
  ApiKey,
  Standing,
  TokenLifetime,
  ResetRequest,
  ResetToken,
  Mail,
];
