import { v4 as uuid } from 'uuid';
import { hubDate } from '#lib/clock.ts';
import type { Identities } from '#lib/identity.ts';
import { tokenValidity } from '../auth.ts';
import type { LoggedIn } from '../logins/logins.ts';
import { hashOf, newToken } from './opaque-tokens.ts';
import { refreshRefused, type Lifetimes } from './sessions.ts';
import type { RefreshToken } from './sessions-store.ts';
import type { Store } from '../store.ts';

/** An access token, and until when it is valid. */
export interface AccessToken {
  token: string;
  /** Seconds from now. */
  expiresIn: number;
  expiresAt: Date;
}

/** What a client gets at a login, and at each refresh. */
export interface TokenPair {
  accessToken: string;
  refreshToken: string;
  tokenType: string;
  expiresIn: number;
}

/** Issues tokens, each of a session that is recorded. */
export interface Tokens {
  /** A session with an access token alone, valid for `lifetime` milliseconds; undefined if the user may not have it any more. */
  open(loggedIn: LoggedIn, lifetime: number): Promise<AccessToken | undefined>;
  /** A session that goes on as long as its refresh tokens are used. */
  openRefreshable(loggedIn: LoggedIn): Promise<TokenPair | undefined>;
  /** @throws HubError UNAUTHENTICATED `UNAUTHORIZED`, `TOKEN_EXPIRED` or `REFRESH_TOKEN_REUSED` */
  refresh(refreshToken: string): Promise<TokenPair>;
}

export function openTokens(options: { store: Store; identities: Identities; lifetimes: Lifetimes }): Tokens {
  const { store, identities, lifetimes } = options;

  function newRefreshToken(now: Date): { text: string; kept: RefreshToken } {
    const text = newToken('refresh');
    const expiresAt = new Date(now.getTime() + lifetimes.refresh);
    // One that is too old, or was used, is to be told from one that never was, for as long again.
    const keptUntil = new Date(expiresAt.getTime() + lifetimes.refresh);
    return { text, kept: { hash: hashOf(text), expiresAt, keptUntil } };
  }

  async function accessToken(
    user: { userId: string; numId: bigint; username: string; isAdmin: boolean; sessionId: string },
    { expiresIn, expiresAt }: { expiresIn: number; expiresAt: Date },
  ): Promise<AccessToken> {
    const { userId, numId, username, isAdmin, sessionId } = user;
    const token = await identities.userToken({ userId, numId, username, admin: isAdmin, sessionId, expiresAt });
    return { token, expiresIn, expiresAt };
  }

  function pairOf({ token, expiresIn }: AccessToken, refreshToken: string): TokenPair {
    return { accessToken: token, refreshToken, tokenType: 'bearer', expiresIn };
  }

  return {
    async open({ user, pair, now }, lifetime) {
      const sessionId = uuid();
      const validity = tokenValidity(now, lifetime);
      const session = { id: sessionId, userId: user.id, createdAt: now, expiresAt: validity.expiresAt };
      if (!(await store.openSession(session, user.passwordHash, pair))) return undefined;
      return accessToken({ ...user, userId: user.id, sessionId }, validity);
    },

    async openRefreshable({ user, pair, now }) {
      const sessionId = uuid();
      const { text, kept } = newRefreshToken(now);
      const session = { id: sessionId, userId: user.id, createdAt: now, expiresAt: kept.expiresAt };
      if (!(await store.openSession(session, user.passwordHash, pair, kept))) return undefined;
      const validity = tokenValidity(now, lifetimes.access);
      return pairOf(await accessToken({ ...user, userId: user.id, sessionId }, validity), text);
    },

    async refresh(refreshToken) {
      const now = hubDate();
      const { text, kept } = newRefreshToken(now);
      const result = await store.rotate(hashOf(refreshToken), kept, now);
      if (result.state !== 'fresh') throw refreshRefused(result.state);
      return pairOf(await accessToken(result, tokenValidity(now, lifetimes.access)), text);
    },
  };
}
