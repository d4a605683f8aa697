import type { AuthServiceService, User as UserMessage } from '#gen/chat4all/auth/v1/auth.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import { foldCase } from './accounts/accounts.ts';
import { invalidCredentials, unknownCaller } from './auth.ts';
import type { Logins } from './logins/logins.ts';
import type { Store } from './store.ts';
import type { Tokens } from './sessions/tokens.ts';
import type { User } from './accounts/users-store.ts';

export interface HandlerOptions {
  store: Store;
  logins: Logins;
  tokens: Tokens;
  /** Milliseconds that a token is valid for. */
  tokenLifetime: number;
}

const defaultLimit = 50;

export function openHandlers({ store, logins, tokens, tokenLifetime }: HandlerOptions): Handlers<AuthServiceService> {
  return {
    async issueToken({ username, password }, { address, signal }) {
      const refused = () => invalidCredentials('username');
      return logins.login({ identifier: username, password, address, signal, refused }, async (loggedIn) => {
        const issued = await tokens.open(loggedIn, tokenLifetime);
        if (issued === undefined) return undefined;
        const { token, expiresIn, expiresAt } = issued;
        const { id: userId, username } = loggedIn.user;
        return { token, accessToken: token, tokenType: 'bearer', expiresIn, expiresAt, userId, username };
      });
    },

    async getCurrentUser(_request, { caller }: UserCall) {
      const user = await store.findUser(caller.userId);
      if (user === undefined) throw unknownCaller();
      return { user: toMessage(user) };
    },

    async listUsers({ username, limit = defaultLimit, offset }) {
      const [users, total] = await store.listUsers({
        username: username === '' ? undefined : foldCase(username),
        limit,
        offset,
      });
      return { users: users.map(toMessage), total, limit, offset };
    },

    async lookupUsers({ userIds, usernames }) {
      // PostgreSQL takes no NUL in a text, so nobody is called that.
      const possible = usernames.filter((username) => !username.includes('\0')).map(foldCase);
      return { users: (await store.lookupUsers(userIds, possible)).map(toMessage) };
    },
  };
}

function toMessage({ id, numId, username, createdAt }: User): UserMessage {
  return { userId: id, username, createdAt, numId };
}
