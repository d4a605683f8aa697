import { HubError } from '#lib/errors.ts';

/** How often logins may fail within how many milliseconds. */
export interface FailureLimit {
  /** For one user from one address. */
  failures: number;
  /** From one address, for all users together; undefined is no limit. */
  perAddress: number | undefined;
  window: number;
}

/** One user tried from one address: what failures are counted by, whether or not there is such a user. */
export interface LoginPair {
  /** In lower case; what was tried in its place where nobody is called that. */
  username: string;
  /** What limits count the address for: `clientOf` of `lib/client-address.ts`. */
  address: string;
}

/** When the failures happened that filled the limits, as far as these are full. */
export interface FilledLimits {
  ofPair: Date | undefined;
  ofAddress: Date | undefined;
}

/**
 * How long a token that is issued now is valid: whole seconds, and a moment on a whole second before which no fewer
 * seconds than that pass.
 *
 * @param lifetime in milliseconds
 */
export function tokenValidity(now: Date, lifetime: number): { expiresIn: number; expiresAt: Date } {
  const expiresIn = Math.floor(lifetime / 1000);
  return { expiresIn, expiresAt: new Date(Math.ceil(now.getTime() / 1000 + expiresIn) * 1000) };
}

/** The failures before this moment count no more. */
export function failuresCountFrom(now: Date, { window }: FailureLimit): Date {
  return new Date(now.getTime() - window);
}

/** RESOURCE_EXHAUSTED until the failures that filled the limits count no more; undefined if none is full. */
export function tooManyFailures(filled: FilledLimits, now: Date, { window }: FailureLimit): HubError | undefined {
  const { ofPair, ofAddress } = filled;
  const filledAt = Math.max(ofPair?.getTime() ?? 0, ofAddress?.getTime() ?? 0);
  if (filledAt === 0) return undefined;
  const retryAfter = Math.max(1, Math.ceil((filledAt + window - now.getTime()) / 1000));
  const whose = ofAddress === undefined ? 'for this user' : 'from this address';
  return new HubError(
    'RESOURCE_EXHAUSTED',
    'TOO_MANY_LOGIN_FAILURES',
    `Too many failed logins ${whose}: try again in ${retryAfter} seconds`,
    { retryAfter },
  );
}

/** The one answer to a wrong password and to somebody unknown, who is named by username or by email. */
export function invalidCredentials(named: 'username' | 'email'): HubError {
  return new HubError('UNAUTHENTICATED', 'INVALID_CREDENTIALS', `The ${named} or the password is wrong`);
}

/** The token is good, but the user that it names is gone. */
export function unknownCaller(): HubError {
  return new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The token is not valid: its user no longer exists');
}
