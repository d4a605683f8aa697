import { v4 as uuid } from 'uuid';
import type { AuthServiceService, User as UserMessage } from '#gen/chat4all/auth/v1/auth.ts';
import { clientOf } from '#lib/client-address.ts';
import type { Identities } from '#lib/identity.ts';
import type { UserCall } from '#lib/rpc/call.ts';
import type { Handlers } from '#lib/rpc/server.ts';
import {
  failuresCountFrom,
  invalidCredentials,
  tokenValidity,
  tooManyFailures,
  unknownCaller,
  type FailureLimit,
  type LoginPair,
} from './auth.ts';
import type { Passwords } from './passwords.ts';
import type { Store, User } from './store.ts';
import type { Turns } from './turns.ts';

export interface HandlerOptions {
  store: Store;
  identities: Identities;
  passwords: Passwords;
  turns: Turns;
  failureLimit: FailureLimit;
  /** Milliseconds that a token is valid for. */
  tokenLifetime: number;
}

const defaultLimit = 50;

export function openHandlers(options: HandlerOptions): Handlers<AuthServiceService> {
  const { store, identities, passwords, turns, failureLimit, tokenLifetime } = options;

  async function refuseAfterFailures(pair: LoginPair): Promise<void> {
    const now = new Date();
    const since = failuresCountFrom(now, failureLimit);
    const refusal = tooManyFailures(await store.filledLimits(pair, failureLimit, since), now, failureLimit);
    if (refusal !== undefined) throw refusal;
  }

  return {
    async issueToken({ username, password }, { address, signal }) {
      const client = clientOf(address);
      const pair = { username, address: client };
      await refuseAfterFailures(pair);
      return turns.take(client, username, signal, async () => {
        // Asked again, for those that waited while others failed: no more than those at work at once get past the limit.
        await refuseAfterFailures(pair);
        const found = await store.findCredentials(username);
        const matches = await passwords.matches(password, found?.passwordHash);
        const now = new Date();
        if (found === undefined || !matches) {
          await store.recordFailure(pair, now);
          throw invalidCredentials();
        }
        if (passwords.isOutdated(found.passwordHash)) {
          await store.replaceHash(found.id, found.passwordHash, await passwords.hash(password));
        }
        const sessionId = uuid();
        const { expiresIn, expiresAt } = tokenValidity(now, tokenLifetime);
        await store.openSession({ id: sessionId, userId: found.id, createdAt: now, expiresAt }, pair);
        const token = await identities.userToken({
          userId: found.id,
          username: found.username,
          admin: found.isAdmin,
          sessionId,
          expiresAt,
        });
        return {
          token,
          accessToken: token,
          tokenType: 'bearer',
          expiresIn,
          expiresAt,
          userId: found.id,
          username: found.username,
        };
      });
    },

    async getCurrentUser(_request, { caller }: UserCall) {
      const user = await store.findUser(caller.userId);
      if (user === undefined) throw unknownCaller();
      return { user: toMessage(user) };
    },

    async listUsers({ username, limit = defaultLimit, offset }) {
      const [users, total] = await store.listUsers({ username: username === '' ? undefined : username, limit, offset });
      return { users: users.map(toMessage), total: BigInt(total), limit, offset };
    },

    async lookupUsers({ userIds, usernames }) {
      // PostgreSQL takes no NUL in a text, so nobody is called that.
      const possible = usernames.filter((username) => !username.includes('\0'));
      return { users: (await store.lookupUsers(userIds, possible)).map(toMessage) };
    },
  };
}

function toMessage({ id, username, createdAt }: User): UserMessage {
  return { userId: id, username, createdAt };
}
