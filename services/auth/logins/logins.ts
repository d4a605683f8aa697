import { clientOf } from '#lib/client-address.ts';
import { hubDate } from '#lib/clock.ts';
import type { HubError } from '#lib/errors.ts';
import { foldCase, isTooLong } from '../accounts/accounts.ts';
import { failuresCountFrom, tooManyFailures, type FailureLimit, type LoginPair } from '../auth.ts';
import type { Passwords } from './passwords.ts';
import type { Store } from '../store.ts';
import type { Turns } from './turns.ts';
import type { Credentials } from '../accounts/users-store.ts';

export interface LoginOptions {
  store: Store;
  passwords: Passwords;
  turns: Turns;
  failureLimit: FailureLimit;
}

/** An attempt to log in. */
export interface Attempt {
  /** A username or an email. */
  identifier: string;
  password: string;
  /** The address that it comes from. */
  address: string;
  signal: AbortSignal;
  /** The error for a wrong password, and for a user that doesn't exist. */
  refused: () => HubError;
}

/** Somebody whose password was right. */
export interface LoggedIn {
  user: Credentials;
  pair: LoginPair;
  now: Date;
}

/** The one way to log in, for the API of accounts as well as for that of tokens. */
export interface Logins {
  /**
   * Checks a password, in the turn of its client and within the limits of failures.
   *
   * @param open opens a session; undefined if the password was changed, or the user disabled, since it was checked
   * @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_LOGIN_FAILURES`, UNAVAILABLE `TOO_BUSY`, or what the attempt says
   */
  login<T>(attempt: Attempt, open: (loggedIn: LoggedIn) => Promise<T | undefined>): Promise<T>;
}

/** How often a login begins anew because the password, or its hash, was changed while it was checked. */
const maxAttempts = 3;

export function openLogins({ store, passwords, turns, failureLimit }: LoginOptions): Logins {
  /** One user tried by name or by email is one pair. */
  async function find(identifier: string, address: string) {
    const found = await store.findCredentials(identifier);
    const pair = { username: found?.username ?? identifier, address };
    const now = hubDate();
    const since = failuresCountFrom(now, failureLimit);
    const refusal = tooManyFailures(await store.filledLimits(pair, failureLimit, since), now, failureLimit);
    if (refusal !== undefined) throw refusal;
    return { found, pair };
  }

  return {
    async login({ identifier, password, address, signal, refused }, open) {
      const client = clientOf(address);
      const name = foldCase(identifier);
      // bcrypt ignores what comes after 72 bytes.
      const usable = isTooLong(password) ? '' : password;
      const { pair } = await find(name, client);
      return turns.take(client, pair.username, signal, async () => {
        for (let attempt = 1; ; attempt += 1) {
          // Checked again, since others may have failed while this one waited: only those that are checked concurrently can exceed the limit.
          const { found, pair } = await find(name, client);
          const own = found === undefined || found.isDisabled || usable !== password ? undefined : found.passwordHash;
          const matches = await passwords.matches(usable, own);
          const now = hubDate();
          if (found === undefined || !matches) {
            await store.recordFailure(pair, now);
            throw refused();
          }
          const user = { ...found };
          if (passwords.isOutdated(user.passwordHash)) {
            const renewed = await passwords.hash(password);
            await store.replaceHash(user.id, user.passwordHash, renewed);
            user.passwordHash = renewed;
          }
          const opened = await open({ user, pair, now });
          if (opened !== undefined) return opened;
          if (attempt === maxAttempts) throw refused();
        }
      });
    },
  };
}
