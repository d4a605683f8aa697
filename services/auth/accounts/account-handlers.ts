import { v4 as uuid } from 'uuid';
import type { Account as AccountMessage, AccountServiceService } from '#gen/chat4all/account/v1/account.ts';
import { clientOf } from '#lib/client-address.ts';
import { hubDate } from '#lib/clock.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Checks, Handlers } from '#lib/rpc/server.ts';
import { roleMessages } from './account-wire.ts';
import {
  emailTaken,
  foldCase,
  nameViolations,
  passwordViolations,
  tooManyRegistrations,
  usernamesFor,
  usernameTaken,
  usernameViolations,
  type Account,
  type RegistrationLimit,
} from './accounts.ts';
import { apiKeyNotFound, isActive, maxActiveKeys, maxInactiveKeys, tooManyApiKeys } from '../api-keys/api-keys.ts';
import { invalidCredentials, unknownCaller } from '../auth.ts';
import type { Logins } from '../logins/logins.ts';
import { hashOf, newToken, prefixOf } from '../sessions/opaque-tokens.ts';
import type { Passwords } from '../logins/passwords.ts';
import type { Resets } from '../mails/resets.ts';
import { invalidResetToken, unknownRefreshToken } from '../sessions/sessions.ts';
import type { Store } from '../store.ts';
import type { Tokens } from '../sessions/tokens.ts';
import type { Turns } from '../logins/turns.ts';

export interface AccountHandlerOptions {
  store: Store;
  logins: Logins;
  tokens: Tokens;
  passwords: Passwords;
  turns: Turns;
  resets: Resets;
  /** Usernames, in lower case, that nobody may register with: who has one of them becomes an administrator. */
  reserved: ReadonlySet<string>;
  /** Undefined is no limit. */
  registrationLimit: RegistrationLimit | undefined;
}

export function openAccountHandlers(options: AccountHandlerOptions): Handlers<AccountServiceService> {
  const { store, logins, tokens, passwords, turns, resets, reserved, registrationLimit } = options;

  async function add(account: { name: string; email: string; passwordHash: string }, wanted: string | undefined) {
    const id = uuid();
    const candidates = wanted === undefined ? usernamesFor(account.email, id.slice(0, 8)) : [wanted];
    for (const username of candidates.filter((each) => !reserved.has(each))) {
      const user = { ...account, id, username, role: 'user', createdAt: hubDate() } as const;
      if (await store.addUser(user)) return user;
      if ((await store.findTaken(foldCase(account.email), undefined)).email) throw emailTaken();
    }
    throw usernameTaken();
  }

  return {
    async register({ name, email, password, username }, { address, signal }) {
      const wanted = username === undefined ? undefined : foldCase(username);
      if (registrationLimit !== undefined) {
        const now = hubDate();
        const filledAt = await store.noteRegistration(clientOf(address), registrationLimit, now);
        if (filledAt !== undefined) throw tooManyRegistrations(filledAt, now, registrationLimit);
      }
      // Asked before the work of hashing, though only the insertion decides.
      const taken = await store.findTaken(foldCase(email), wanted);
      if (taken.email) throw emailTaken();
      if (wanted !== undefined && (taken.username || reserved.has(wanted))) throw usernameTaken();
      const passwordHash = await turns.take(clientOf(address), foldCase(email), signal, () => passwords.hash(password));
      const user = await add({ name: name.trim(), email, passwordHash }, wanted);
      return {
        id: user.id,
        username: user.username,
        name: user.name,
        email: user.email,
        role: roleMessages.user,
        createdAt: user.createdAt,
      };
    },

    async login({ email, password }, { address, signal }) {
      const refused = () => invalidCredentials('email');
      return logins.login({ identifier: email, password, address, signal, refused }, (loggedIn) =>
        tokens.openRefreshable(loggedIn),
      );
    },

    async refreshTokens({ refreshToken }) {
      return tokens.refresh(refreshToken);
    },

    async logout({ refreshToken }, { caller }: UserCall) {
      if (await store.endSession(caller.userId, hashOf(refreshToken), hubDate())) return {};
      throw unknownRefreshToken();
    },

    async requestPasswordReset({ email }, { address }) {
      await resets.request(foldCase(email), clientOf(address));
      return {};
    },

    async resetPassword({ token, newPassword }, { address, signal }) {
      const hash = hashOf(token);
      // Nobody has to wait for a hash to hear that the token is no good.
      if (!(await store.isResetTokenGood(hash, hubDate()))) throw invalidResetToken();
      const client = clientOf(address);
      const passwordHash = await turns.take(client, hash.toString('hex'), signal, () => passwords.hash(newPassword));
      if (await store.resetPassword(hash, passwordHash, client, hubDate())) return {};
      throw invalidResetToken();
    },

    async getAccount(_request, { caller }: UserCall) {
      return { account: toMessage(await store.findAccount(caller.userId)) };
    },

    async updateAccount({ name }, { caller }: UserCall) {
      const account =
        name === undefined
          ? await store.findAccount(caller.userId)
          : await store.renameAccount(caller.userId, name.trim());
      return { account: toMessage(account) };
    },

    async listApiKeys(_request, { caller }: UserCall) {
      const now = hubDate();
      const keys = await store.listApiKeys(caller.userId);
      return {
        apiKeys: keys.map((key) => ({
          id: key.id,
          name: key.name,
          keyPrefix: key.keyPrefix,
          active: isActive(key, now),
          createdAt: key.createdAt,
          lastUsedAt: key.lastUsedAt,
          expiresAt: key.expiresAt,
        })),
      };
    },

    async createApiKey({ name, expiresAt }, { caller }: UserCall) {
      const key = newToken('apiKey');
      const made = { id: uuid(), name: name.trim(), keyPrefix: prefixOf(key), createdAt: hubDate(), expiresAt };
      const added = await store.addApiKey(
        { ...made, userId: caller.userId, keyHash: hashOf(key) },
        { active: maxActiveKeys, inactive: maxInactiveKeys },
      );
      if (added === 'no such user') throw unknownCaller();
      if (added === 'too many') throw tooManyApiKeys();
      return { ...made, key };
    },

    async revokeApiKey({ keyId }, { caller }: UserCall) {
      if (await store.revokeApiKey(caller.userId, keyId, hubDate())) return {};
      throw apiKeyNotFound();
    },
  };
}

/** What is wrong with accounts beyond the rules in the proto. */
export const accountChecks: Checks<AccountServiceService> = {
  register: ({ name, password, username }) => [
    ...nameViolations(name),
    ...passwordViolations(password),
    ...(username === undefined ? [] : usernameViolations(username)),
  ],
  resetPassword: ({ newPassword }) => passwordViolations(newPassword, 'new_password'),
  updateAccount: ({ name }) => (name === undefined ? [] : nameViolations(name)),
  createApiKey: ({ name }) => nameViolations(name),
};

function toMessage(account: Account | undefined): AccountMessage {
  if (account === undefined) throw unknownCaller();
  const { id, username, name, email, role, createdAt } = account;
  return { id, username, name, email, role: roleMessages[role], createdAt };
}
