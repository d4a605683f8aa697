import { v4 as uuid } from 'uuid';
import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { LoginPair } from '../auth.ts';

/** How many requests for a mail count, within how many milliseconds. */
export interface ResetLimits {
  perEmail: number;
  perAddress: number;
  window: number;
}

/** A mail to somebody who may have forgotten their password: the user, and where to. */
export interface ResetRecipient {
  userId: string;
  email: string;
}

export interface NewResetToken {
  hash: Buffer;
  expiresAt: Date;
}

export interface NewMail {
  /** UUID; becomes part of its Message-ID. */
  id: string;
  recipient: string;
  subject: string;
  body: string;
  giveUpAt: Date;
}

/** The queries about passwords that were forgotten. */
export function resetQueries(db: Database) {
  return {
    /**
     * Records a request from an address for a mail to an email (in lower case), whether or not a user has that email. Above the limits no mail
     * is sent, and above that of an address nothing is recorded.
     */
    async requestReset(emailKey: string, address: string, limits: ResetLimits, now: Date): Promise<void> {
      const since = new Date(now.getTime() - limits.window);
      await db.sql(
        `insert into reset_requests (id, email_key, address, requested_at, pending)
         select $1, $2, $3, $4,
                (select count(*) from (
                  select from reset_requests where email_key = $2 and requested_at > $5 limit $6
                ) as of_email) < $6
          where (select count(*) from (
                  select from reset_requests where address = $3 and requested_at > $5 limit $7
                ) as of_address) < $7`,
        [uuid(), emailKey, address, now, since, limits.perEmail, limits.perAddress],
      );
    },

    /**
     * Writes mails for requests that wait, at most `limit`, where there is an active user with the email.
     *
     * @param compose makes a token and the mail that holds it
     * @returns how many requests there were
     */
    async answerRequests(
      limit: number,
      now: Date,
      compose: (recipient: ResetRecipient) => { token: NewResetToken; mail: NewMail },
    ): Promise<number> {
      return db.transaction(async ({ sql }) => {
        const requests = await sql<{ userId: string | null; email: string | null }>(
          `with taken as (
             select id, email_key, requested_at from reset_requests where pending order by requested_at limit $1
                for update skip locked
           ), answered as (
             update reset_requests set pending = false where id in (select id from taken)
           )
           select u.id as "userId", u.email from taken left join users u
               on u.email_key = taken.email_key and u.status = 'active'
            order by taken.requested_at`,
          [limit],
        );
        for (const { userId, email } of requests) {
          if (userId === null || email === null) continue;
          const { token, mail } = compose({ userId, email });
          await sql('insert into reset_tokens (token_hash, user_id, created_at, expires_at) values ($1, $2, $3, $4)', [
            token.hash,
            userId,
            now,
            token.expiresAt,
          ]);
          await sql(
            `insert into mails (id, user_id, recipient, subject, body, created_at, give_up_at, next_try_at)
             values ($1, $2, $3, $4, $5, $6, $7, $6)`,
            [mail.id, userId, mail.recipient, mail.subject, mail.body, now, mail.giveUpAt],
          );
        }
        return requests.length;
      });
    },

    /** Whether a reset token may be used. */
    async isResetTokenGood(hash: Buffer, now: Date): Promise<boolean> {
      const rows = await db.sql(
        'select from reset_tokens where token_hash = $1 and used_at is null and expires_at > $2',
        [hash, now],
      );
      return rows.length > 0;
    },

    /**
     * Uses a reset token: sets the password, ends all sessions of the user, voids the user's other reset tokens and the mails with
     * them that are still to be sent, and forgives the user's failed logins from this address.
     *
     * @returns whether the token was good
     */
    async resetPassword(
      hash: Buffer,
      passwordHash: string,
      address: LoginPair['address'],
      now: Date,
    ): Promise<boolean> {
      return db.transaction(async ({ sql }) => {
        const [used] = await sql<{ userId: string }>(
          `update reset_tokens set used_at = $2 where token_hash = $1 and used_at is null and expires_at > $2
           returning user_id as "userId"`,
          [hash, now],
        );
        if (used === undefined) return false;
        const [user] = await sql<{ username: string }>(
          `update users set password_hash = $2 where id = $1 returning username`,
          [used.userId, passwordHash],
        );
        await sql('update reset_tokens set used_at = $2 where user_id = $1 and used_at is null', [used.userId, now]);
        await sql('update auth_sessions set ended_at = $2 where user_id = $1 and ended_at is null', [used.userId, now]);
        await sql('delete from mails where user_id = $1', [used.userId]);
        await sql('delete from login_failures where username = $1 and address = $2', [user?.username, address]);
        return true;
      });
    },

    /** Deletes at most `limit` requests from before `until`. @returns how many */
    sweepResetRequests(until: Date, limit: number): Promise<number> {
      return deleteOld(
        db,
        { table: 'reset_requests', isOld: 'not pending and requested_at <= $1', oldestBy: 'requested_at' },
        until,
        limit,
      );
    },

    /** Deletes at most `limit` reset tokens that expired before `until`. @returns how many */
    sweepResetTokens(until: Date, limit: number): Promise<number> {
      return deleteOld(
        db,
        { table: 'reset_tokens', key: 'token_hash', isOld: 'expires_at <= $1', oldestBy: 'expires_at' },
        until,
        limit,
      );
    },
  };
}
