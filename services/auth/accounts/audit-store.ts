import { v4 as uuid } from 'uuid';
import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import type { Role, UserStatus } from './accounts.ts';
import { recordStandingChange } from '../standings/standings.ts';

/** What an administrator has changed. */
export interface AuditEvent {
  /** UUID. */
  id: string;
  /** UUID of the administrator. */
  actorId: string;
  action: string;
  /** UUID of what was changed. */
  target: string;
  at: Date;
  requestId: string;
}

/** What an administrator changes of a user; what isn't set stays. */
export interface UserChange {
  userId: string;
  role: Role | undefined;
  status: UserStatus | undefined;
}

/** The queries about what administrators do. */
export function auditQueries(db: Database) {
  return {
    /**
     * Changes the role or the status of a user, and records who did it. A value that the user has already is no change.
     *
     * @returns why not, if it wasn't done: there has to be an active administrator
     */
    async changeUser(
      { userId, role, status }: UserChange,
      by: { actorId: string; requestId: string; at: Date },
    ): Promise<'changed' | 'unchanged' | 'no such user' | 'last admin'> {
      return db.transaction(async (transaction) => {
        // One change after another, or two administrators could demote each other at the same moment.
        await transaction.sql(`select pg_advisory_xact_lock(hashtext('auth: who is an administrator'))`);
        const [before] = await transaction.sql<{ role: Role; status: UserStatus }>(
          'select role, status from users where id = $1 for no key update',
          [userId],
        );
        if (before === undefined) return 'no such user';
        const after = { role: role ?? before.role, status: status ?? before.status };
        if (after.role === before.role && after.status === before.status) return 'unchanged';
        const isActiveAdmin = (user: typeof before) => user.role === 'admin' && user.status === 'active';
        if (isActiveAdmin(before) && !isActiveAdmin(after)) {
          const others = await transaction.sql(
            `select from users where role = 'admin' and status = 'active' and id <> $1 limit 1`,
            [userId],
          );
          if (others.length === 0) return 'last admin';
        }
        await transaction.sql(`update users set role = $2, is_admin = ($2 = 'admin'), status = $3 where id = $1`, [
          userId,
          after.role,
          after.status,
        ]);
        await transaction.sql(
          `insert into audit_events (id, actor_id, action, target, at, request_id)
           values ($1, $2, 'user.update', $3, $4, $5)`,
          [uuid(), by.actorId, userId, by.at, by.requestId],
        );
        await recordStandingChange(transaction, { userId });
        return 'changed';
      });
    },

    /** A page of events, newest first, and how many match in all. */
    async listAuditEvents(page: {
      actorId: string | undefined;
      action: string | undefined;
      limit: number;
      offset: number;
    }): Promise<[AuditEvent[], number]> {
      const { actorId, action, limit, offset } = page;
      const { AuditEvent: entity } = await import('../entities.ts');
      return db.entities((em) =>
        em.findAndCount(
          entity,
          { ...(actorId === undefined ? {} : { actorId }), ...(action === undefined ? {} : { action }) },
          { orderBy: { at: 'desc', id: 'desc' }, limit, offset },
        ),
      );
    },

    /** Records events, each once, however often it is reported. */
    async recordAuditEvents(events: readonly AuditEvent[]): Promise<void> {
      await db.sql(
        `insert into audit_events (id, actor_id, action, target, at, request_id)
         select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[], $6::text[])
             as told (id, actor_id, action, target, at, request_id)
          order by id
         on conflict (id) do nothing`,
        [
          events.map(({ id }) => id),
          events.map(({ actorId }) => actorId),
          events.map(({ action }) => action),
          events.map(({ target }) => target),
          events.map(({ at }) => at),
          events.map(({ requestId }) => requestId),
        ],
      );
    },

    /** Deletes at most `limit` events from before `until`. @returns how many */
    sweepAuditEvents(until: Date, limit: number): Promise<number> {
      return deleteOld(db, { table: 'audit_events', isOld: 'at <= $1', oldestBy: 'at' }, until, limit);
    },
  };
}
