import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { LoginPair } from '../auth.ts';
import type { RefreshState } from './sessions.ts';

export interface Session {
  /** UUID. */
  id: string;
  userId: string;
  createdAt: Date;
  expiresAt: Date;
}

/** A refresh token, by its hash alone. */
export interface RefreshToken {
  hash: Buffer;
  expiresAt: Date;
  /** Until when it is to be recognized, at least. */
  keptUntil: Date;
}

/** Whose session it is that goes on. */
export interface Refreshed {
  sessionId: string;
  userId: string;
  numId: bigint;
  username: string;
  isAdmin: boolean;
}

/** The queries about sessions and their refresh tokens. */
export function sessionQueries(db: Database) {
  return {
    /**
     * Records a session, with its first refresh token if it has one; the pair that logged in has a clean slate.
     *
     * @param passwordHash what the password was compared with
     * @returns false, and records nothing, if the user has another password by now or is disabled
     */
    async openSession(
      session: Session,
      passwordHash: string,
      pair: LoginPair,
      refreshToken?: RefreshToken,
    ): Promise<boolean> {
      const { id, userId, createdAt, expiresAt } = session;
      // The lock on the user makes whoever changes the password wait, and end this session, too.
      const rows = await db.sql(
        `with usable as (
           select id from users where id = $2 and password_hash = $6 and status = 'active' for share
         ), forgiven as (
           delete from login_failures where username = $7 and address = $8 and exists (select from usable)
         ), opened as (
           insert into auth_sessions (id, user_id, created_at, expires_at, kept_until)
           select $1, id, $3, $4, $5 from usable
           returning id
         ), issued as (
           insert into refresh_tokens (token_hash, session_id, created_at, expires_at)
           select $9::bytea, id, $3, $4 from opened where $9 is not null
         )
         select from opened`,
        [
          id,
          userId,
          createdAt,
          expiresAt,
          refreshToken?.keptUntil ?? null,
          passwordHash,
          pair.username,
          pair.address,
          refreshToken?.hash ?? null,
        ],
      );
      return rows.length > 0;
    },

    /**
     * Puts a new refresh token in the place of one that is fresh, so that of many calls at once one does. If it was used before, the
     * session ends.
     */
    async rotate(
      hash: Buffer,
      next: RefreshToken,
      now: Date,
    ): Promise<({ state: 'fresh' } & Refreshed) | { state: Exclude<RefreshState, 'fresh'> }> {
      return db.transaction(async ({ sql }) => {
        const [claimed] = await sql<{ sessionId: string }>(
          `update refresh_tokens set used_at = $2 where token_hash = $1 and used_at is null and expires_at > $2
           returning session_id as "sessionId"`,
          [hash, now],
        );
        if (claimed === undefined) return { state: await refusedState(sql, hash, now) };
        const [session] = await sql<Refreshed & { hasEnded: boolean; isDisabled: boolean }>(
          `select s.id as "sessionId", s.ended_at is not null as "hasEnded", u.id as "userId", u.num_id as "numId", u.username,
                  u.role = 'admin' as "isAdmin", u.status <> 'active' as "isDisabled"
             from auth_sessions s join users u on u.id = s.user_id
            where s.id = $1 for update of s`,
          [claimed.sessionId],
        );
        if (session === undefined) return { state: 'unknown' };
        const { hasEnded, isDisabled, ...refreshed } = session;
        if (hasEnded) return { state: 'ended' };
        if (isDisabled) {
          // Whoever is enabled again goes on with it.
          await sql('update refresh_tokens set used_at = null where token_hash = $1', [hash]);
          return { state: 'disabled' };
        }
        await sql(
          `with extended as (
             update auth_sessions set expires_at = $4, kept_until = $5 where id = $1
           )
           insert into refresh_tokens (token_hash, session_id, created_at, expires_at) values ($2, $1, $3, $4)`,
          [session.sessionId, next.hash, now, next.expiresAt, next.keptUntil],
        );
        return { state: 'fresh', ...refreshed };
      });
    },

    /** Ends the session that one of a user's refresh tokens belongs to. @returns false if the user has no such token */
    async endSession(userId: string, hash: Buffer, now: Date): Promise<boolean> {
      const rows = await db.sql(
        `update auth_sessions s set ended_at = coalesce(s.ended_at, $3)
           from refresh_tokens t where t.token_hash = $2 and s.id = t.session_id and s.user_id = $1
         returning 1`,
        [userId, hash, now],
      );
      return rows.length > 0;
    },

    /** Deletes at most `limit` sessions that nobody has to recognize any more. @returns how many */
    sweepSessions(now: Date, limit: number): Promise<number> {
      return deleteOld(
        db,
        { table: 'auth_sessions', isOld: 'kept_until <= $1 or (kept_until is null and expires_at <= $1)' },
        now,
        limit,
      );
    },

    /** Deletes at most `limit` refresh tokens of sessions that go on, which expired before `until`. @returns how many */
    sweepRefreshTokens(until: Date, limit: number): Promise<number> {
      return deleteOld(
        db,
        { table: 'refresh_tokens', key: 'token_hash', isOld: 'expires_at <= $1', oldestBy: 'expires_at' },
        until,
        limit,
      );
    },
  };
}

/** Why a token isn't fresh. Of one that was used before, somebody has a copy: the session ends. */
async function refusedState(
  sql: Database['sql'],
  hash: Buffer,
  now: Date,
): Promise<Exclude<RefreshState, 'fresh' | 'disabled'>> {
  const [found] = await sql<{ sessionId: string; wasUsed: boolean; hasEnded: boolean }>(
    `select t.session_id as "sessionId", t.used_at is not null as "wasUsed", s.ended_at is not null as "hasEnded"
       from refresh_tokens t join auth_sessions s on s.id = t.session_id
      where t.token_hash = $1`,
    [hash],
  );
  if (found === undefined) return 'unknown';
  if (found.wasUsed) {
    await sql('update auth_sessions set ended_at = coalesce(ended_at, $2) where id = $1', [found.sessionId, now]);
    return 'used';
  }
  return found.hasEnded ? 'ended' : 'expired';
}
