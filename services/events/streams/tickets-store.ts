import { createHash, randomBytes } from 'node:crypto';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Database } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';

const lifetimeMs = 30_000;

export type Tickets = ReturnType<typeof openTickets>;

/** Tickets in place of a token, for clients that can't send one. Only their digests are kept. */
export function openTickets(database: Database) {
  return {
    /** Makes a ticket for a user, and deletes some of those that have expired unused. */
    async create(userId: string): Promise<{ ticket: string; expiresAt: Date }> {
      const ticket = randomBytes(32).toString('base64url');
      const expiresAt = new Date(hubTime() + lifetimeMs);
      await database.sql(
        `with over as (
          delete from tickets where digest in (select digest from tickets where expires_at < $4 order by expires_at limit 100)
        )
        insert into tickets (digest, user_id, expires_at) values ($1, $2, $3)`,
        [digestOf(ticket), userId, expiresAt, hubDate()],
      );
      return { ticket, expiresAt };
    },

    /** Uses a ticket, which is worth nothing then. @returns whose it was @throws HubError UNAUTHENTICATED `TICKET_INVALID` */
    async use(ticket: string): Promise<string> {
      const [row] = await database.sql<{ user_id: string; expires_at: Date }>(
        'delete from tickets where digest = $1 returning user_id, expires_at',
        [digestOf(ticket)],
      );
      if (row !== undefined && row.expires_at > hubDate()) return row.user_id;
      throw new HubError('UNAUTHENTICATED', 'TICKET_INVALID', 'The ticket is unknown, was used before, or has expired');
    },
  };
}

/** A ticket has 256 random bits: a plain SHA-256 can't be reversed by guessing. */
function digestOf(ticket: string): Buffer {
  return createHash('sha256').update(ticket).digest();
}
