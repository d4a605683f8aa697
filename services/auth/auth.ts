import { HubError } from '#lib/errors.ts';

/** How often a login may fail for one username from one address, within how many milliseconds. */
export interface FailureLimit {
  failures: number;
  window: number;
}

/** One username tried from one address: what failures are counted by, whether or not there is such a user. */
export interface LoginPair {
  username: string;
  address: string;
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

/** RESOURCE_EXHAUSTED until the failure that filled the limit counts no more. */
export function tooManyFailures(filledAt: Date, now: Date, { window }: FailureLimit): HubError {
  const retryAfter = Math.max(1, Math.ceil((filledAt.getTime() + window - now.getTime()) / 1000));
  return new HubError(
    'RESOURCE_EXHAUSTED',
    'TOO_MANY_LOGIN_FAILURES',
    `Too many failed logins for this username: try again in ${retryAfter} seconds`,
    { retryAfter },
  );
}

/** The one answer to a wrong password and to an unknown username. */
export function invalidCredentials(): HubError {
  return new HubError('UNAUTHENTICATED', 'INVALID_CREDENTIALS', 'The username or the password is wrong');
}

/** The token is good, but the user that it names is gone. */
export function unknownCaller(): HubError {
  return new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The token is not valid: its user no longer exists');
}
