import { HubError, type FieldViolation } from '#lib/errors.ts';

/** What somebody may do. */
export type Role = 'user' | 'admin';

/** Whether somebody may do anything. */
export type UserStatus = 'active' | 'disabled';

/** Somebody's account. */
export interface Account {
  /** UUID. */
  id: string;
  /** In lower case. */
  username: string;
  name: string;
  /** As its owner wrote it. */
  email: string | undefined;
  role: Role;
  status: UserStatus;
  createdAt: Date;
}

/** How often somebody may register from one address, within how many milliseconds. */
export interface RegistrationLimit {
  perAddress: number;
  window: number;
}

const maxNameLength = 100;
const maxUsernameLength = 32;
const minUsernameLength = 3;
const minPasswordLength = 8;
/** In UTF-8: bcrypt reads no further. */
export const maxPasswordBytes = 72;

/**
 * A username or an email as it is compared: without the case of the letters A to Z, as PostgreSQL's lower() has it in the
 * collation C, which the database checks by.
 */
export function foldCase(name: string): string {
  return name.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** What is wrong with a name, without the spaces around it. */
export function nameViolations(name: string, field = 'name'): FieldViolation[] {
  const trimmed = name.trim();
  if (trimmed === '') return [{ field, rule: 'required', description: 'must not be blank' }];
  if (Array.from(trimmed).length <= maxNameLength) return [];
  return [{ field, rule: 'max_length', description: `must have at most ${maxNameLength} characters` }];
}

/** What is wrong with a username that somebody chooses. */
export function usernameViolations(username: string): FieldViolation[] {
  if (new RegExp(`^[a-z0-9._-]{${minUsernameLength},${maxUsernameLength}}$`).test(foldCase(username))) return [];
  return [
    {
      field: 'username',
      rule: 'pattern',
      description: `must be ${minUsernameLength} to ${maxUsernameLength} of the characters a-z, 0-9, ".", "_" and "-"`,
    },
  ];
}

/** What a password must have, each with its rule. Letters and digits are those of all scripts. */
const passwordParts: readonly [rule: string, pattern: RegExp, description: string][] = [
  ['uppercase', /\p{Lu}/u, 'must have an upper-case letter'],
  ['lowercase', /\p{Ll}/u, 'must have a lower-case letter'],
  ['digit', /\p{Nd}/u, 'must have a digit'],
  ['special', /[^\p{Lu}\p{Ll}\p{Nd}\p{C}\p{M}\p{Zl}\p{Zp}]/u, 'must have a character that is neither letter nor digit'],
];

/** What is wrong with a new password: an entry for each rule that it doesn't meet. */
export function passwordViolations(password: string, field = 'password'): FieldViolation[] {
  const violations: FieldViolation[] = [];
  if (Array.from(password).length < minPasswordLength) {
    violations.push({ field, rule: 'min_length', description: `must have at least ${minPasswordLength} characters` });
  }
  for (const [rule, pattern, description] of passwordParts) {
    if (!pattern.test(password)) violations.push({ field, rule, description });
  }
  if (isTooLong(password)) {
    violations.push({ field, rule: 'max_bytes', description: `must have at most ${maxPasswordBytes} bytes of UTF-8` });
  }
  return violations;
}

/** Whether a password is longer than bcrypt reads: no user has such a one. */
export function isTooLong(password: string): boolean {
  return Buffer.byteLength(password) > maxPasswordBytes;
}

/**
 * Usernames to try for somebody who has chosen none, the best first.
 *
 * @param suffix a text that nobody else has, for when many have the same email before the @
 */
export function usernamesFor(email: string, suffix: string): string[] {
  const base = foldCase(email.slice(0, email.lastIndexOf('@')))
    .replaceAll(/[^a-z0-9._-]+/g, '-')
    .replaceAll(/^[._-]+|[._-]+$/g, '');
  const name = base.length < minUsernameLength ? `user${base === '' ? '' : `-${base}`}` : base;
  const withEnd = (end: string) => `${name.slice(0, maxUsernameLength - end.length)}${end}`;
  return [withEnd(''), ...['-2', '-3', '-4', `-${suffix}`].map(withEnd)];
}

export function emailTaken(): HubError {
  return new HubError('ALREADY_EXISTS', 'EMAIL_TAKEN', 'Somebody has registered with this email already', {
    fields: [{ field: 'email', rule: 'unique', description: 'is taken' }],
  });
}

export function usernameTaken(): HubError {
  return new HubError('ALREADY_EXISTS', 'USERNAME_TAKEN', 'Somebody has this username already', {
    fields: [{ field: 'username', rule: 'unique', description: 'is taken' }],
  });
}

/** @param filledAt when the registration was that has to become too old first */
export function tooManyRegistrations(filledAt: Date, now: Date, { window }: RegistrationLimit): HubError {
  const retryAfter = Math.max(1, Math.ceil((filledAt.getTime() + window - now.getTime()) / 1_000));
  return new HubError(
    'RESOURCE_EXHAUSTED',
    'TOO_MANY_REGISTRATIONS',
    `Too many accounts were registered from this address: try again in ${retryAfter} seconds`,
    { retryAfter },
  );
}

export function unknownUser(): HubError {
  return new HubError('NOT_FOUND', 'USER_NOT_FOUND', 'There is no such user');
}

/** Without an administrator nobody could become one again. */
export function lastAdmin(): HubError {
  return new HubError(
    'ALREADY_EXISTS',
    'LAST_ADMIN',
    'Nobody else is an active administrator: make somebody one before you change this user',
  );
}

/** What somebody is subscribed to, as another service has told. */
export interface Subscription {
  plan: string;
  /** When it ends; undefined while it renews itself. */
  expiresAt: Date | undefined;
}

/** What has become of a subscription by now. */
export function subscriptionStatus({ expiresAt }: Subscription, now: Date): 'active' | 'cancelled' | 'expired' {
  if (expiresAt === undefined) return 'active';
  return expiresAt > now ? 'cancelled' : 'expired';
}
