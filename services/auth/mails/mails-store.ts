import type { Database } from '#lib/database.ts';

/** A mail that waits to be sent. */
export interface WaitingMail {
  /** UUID. */
  id: string;
  userId: string;
  recipient: string;
  subject: string;
  body: string;
  createdAt: Date;
  /** With this one. */
  tries: number;
}

/** The queries about mails that wait to be sent. */
export function mailQueries(db: Database) {
  return {
    /** Takes at most `limit` mails that are due, which nobody else gets for `lease` milliseconds. */
    async takeMails(limit: number, lease: number, now: Date): Promise<WaitingMail[]> {
      return db.sql<WaitingMail>(
        `update mails set next_try_at = $3, tries = tries + 1 where id in (
           select id from mails where next_try_at <= $2 and give_up_at > $2 order by next_try_at limit $1
              for update skip locked
         )
         returning id, user_id as "userId", recipient, subject, body, created_at as "createdAt", tries`,
        [limit, now, new Date(now.getTime() + lease)],
      );
    },

    /** Forgets a mail, and the token in it, once it is sent. */
    async forgetMail(id: string): Promise<void> {
      await db.sql('delete from mails where id = $1', [id]);
    },

    /** Has a mail tried again at `nextTryAt`, unless it was taken again meanwhile. */
    async postponeMail(id: string, tries: number, nextTryAt: Date): Promise<void> {
      await db.sql('update mails set next_try_at = $3 where id = $1 and tries = $2', [id, tries, nextTryAt]);
    },

    /** Forgets at most `limit` mails that were tried for long enough. @returns these */
    async giveUpMails(now: Date, limit: number): Promise<Pick<WaitingMail, 'id' | 'userId' | 'tries'>[]> {
      return db.sql(
        `delete from mails where id in (
           select id from mails where give_up_at <= $1 and next_try_at <= $1 order by next_try_at limit $2
              for update skip locked
         ) returning id, user_id as "userId", tries`,
        [now, limit],
      );
    },
  };
}
