import { v7 as orderedUuid } from 'uuid';
import { hubDate, hubTime } from '#lib/clock.ts';
import type { Database, SqlTransaction } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { newSecret } from './signature.ts';

export type EndpointStatus = 'active' | 'paused' | 'disabled';

/** A webhook as its owner sees it. */
export interface Endpoint {
  id: string;
  userId: string;
  url: string;
  /** The numbers of the fields of its types in `StreamEventsResponse.event`; of all if empty. */
  types: number[];
  conversationIds: string[];
  secret: Buffer;
  oldSecret: Buffer | null;
  oldSecretUntil: Date | null;
  status: EndpointStatus;
  createdAt: Date;
  updatedAt: Date;
  /** Since when everything has failed. */
  failingSince: Date | null;
}

export interface EndpointChange {
  url?: string | undefined;
  types?: readonly number[] | undefined;
  conversationIds?: readonly string[] | undefined;
}

const maxEndpointsOfUser = 10;
/** For so long the old secret signs beside a new one. */
const overlapMs = 24 * 3_600_000;

/** The columns of an Endpoint, in a statement that calls the table `e`. */
export const endpointColumns = `e.id, e.user_id as "userId", e.url, e.types, e.conversation_ids as "conversationIds", e.secret,
  e.old_secret as "oldSecret", e.old_secret_until as "oldSecretUntil", e.status, e.created_at as "createdAt",
  e.updated_at as "updatedAt", e.failing_since as "failingSince"`;

export type EndpointsStore = ReturnType<typeof openEndpointsStore>;

/**
 * The webhooks of users. Whoever changes what is delivered of an endpoint, or whether, takes it from the process that works on it: what
 * that one has under way doesn't count any more.
 */
export function openEndpointsStore(database: Database) {
  async function changed(userId: string, id: string, change: string, values: readonly unknown[]): Promise<Endpoint> {
    const [endpoint] = await database.sql<Endpoint>(
      `update endpoints e set ${change}, updated_at = $3, lease_by = null, lease_until = null
        where user_id = $1 and id = $2 returning ${endpointColumns}`,
      [userId, id, hubDate(), ...values],
    );
    return endpoint ?? notFound();
  }

  return {
    /** @throws HubError RESOURCE_EXHAUSTED `TOO_MANY_WEBHOOKS` */
    async create(userId: string, wanted: Required<EndpointChange>): Promise<Endpoint> {
      return database.transaction(async (transaction) => {
        // One after the other, so that they are counted right.
        void transaction.sql('select pg_advisory_xact_lock(hashtextextended($1, 0))', [userId]);
        // Without a mark, so that the log is looked at in any case: an event may come just before this is visible to others.
        const [endpoint] = await transaction.sql<Endpoint>(
          `insert into endpoints as e (id, user_id, url, types, conversation_ids, secret, status, created_at, updated_at, failures,
              epoch, position, marked_to, due_at)
            select $1, $2, $3, $4, $5, $6, 'active', $7, $7, 0, h.epoch, h.last_id, null, $7
              from heads h where h.name = 'log' and (select count(*) from endpoints where user_id = $2) < $8
            returning ${endpointColumns}`,
          [
            orderedUuid(),
            userId,
            wanted.url,
            wanted.types,
            wanted.conversationIds,
            newSecret(),
            hubDate(),
            maxEndpointsOfUser,
          ],
        );
        if (endpoint !== undefined) return endpoint;
        const text = `You have ${maxEndpointsOfUser} webhooks already`;
        throw new HubError('RESOURCE_EXHAUSTED', 'TOO_MANY_WEBHOOKS', text);
      });
    },

    async list(userId: string): Promise<Endpoint[]> {
      return database.sql<Endpoint>(
        `select ${endpointColumns} from endpoints e where user_id = $1 order by id limit $2`,
        [userId, maxEndpointsOfUser],
      );
    },

    /** @throws HubError NOT_FOUND `WEBHOOK_NOT_FOUND`, as all that follow */
    async get(userId: string, id: string): Promise<Endpoint> {
      const [endpoint] = await database.sql<Endpoint>(
        `select ${endpointColumns} from endpoints e where user_id = $1 and id = $2`,
        [userId, id],
      );
      return endpoint ?? notFound();
    },

    async update(userId: string, id: string, change: EndpointChange): Promise<Endpoint> {
      return changed(
        userId,
        id,
        `url = coalesce($4, url), types = coalesce($5::smallint[], types),
          conversation_ids = coalesce($6::uuid[], conversation_ids)`,
        [change.url ?? null, change.types ?? null, change.conversationIds ?? null],
      );
    },

    async delete(userId: string, id: string): Promise<void> {
      const rows = await database.sql(
        `with gone as (delete from endpoints where user_id = $1 and id = $2 returning id),
          waiting as (delete from backlogs where endpoint_id in (select id from gone)),
          told as (delete from attempts where endpoint_id in (select id from gone))
        select id from gone`,
        [userId, id],
      );
      if (rows.length === 0) notFound();
    },

    async rotateSecret(userId: string, id: string): Promise<Endpoint> {
      const [endpoint] = await database.sql<Endpoint>(
        `update endpoints e set old_secret = secret, old_secret_until = $4, secret = $5, updated_at = $3
          where user_id = $1 and id = $2 returning ${endpointColumns}`,
        [userId, id, hubDate(), new Date(hubTime() + overlapMs), newSecret()],
      );
      return endpoint ?? notFound();
    },

    async pause(userId: string, id: string): Promise<Endpoint> {
      return changed(
        userId,
        id,
        `status = case when status = 'active' then 'paused' else status end, due_at = null`,
        [],
      );
    },

    /** Pauses all endpoints of these users. @returns the ids of those that were active */
    async pauseAllOf(userIds: readonly string[]): Promise<string[]> {
      const rows = await database.sql<{ id: string }>(
        `update endpoints set status = 'paused', due_at = null, updated_at = $2
          where user_id = any($1::uuid[]) and status = 'active' returning id`,
        [userIds, hubDate()],
      );
      return rows.map(({ id }) => id);
    },

    /** Goes on from where it stopped, or with `skip` from the end of the log. Does nothing to one that is active, unless it skips. */
    async resume(userId: string, id: string, skip: boolean): Promise<Endpoint> {
      return database.transaction(async (transaction) => {
        const endpoint = await find(transaction, userId, id);
        if (endpoint.status === 'active' && !skip) return endpoint;
        if (skip) void transaction.sql(`delete from backlogs where endpoint_id = $1 and kind <> 'replay'`, [id]);
        const [resumed] = await transaction.sql<Endpoint>(
          `update endpoints e set status = 'active', failures = 0, failing_since = null, hold_until = null,
              position = case when $3 then h.last_id else e.position end, epoch = case when $3 then h.epoch else e.epoch end,
              marked_to = null, due_at = $2, updated_at = $2, lease_by = null, lease_until = null
            from heads h where e.id = $1 and h.name = 'log' returning ${endpointColumns}`,
          [id, hubDate(), skip],
        );
        void transaction.sql('update backlogs set next_at = $2, failing_since = null where endpoint_id = $1', [
          id,
          hubDate(),
        ]);
        return resumed!;
      });
    },

    /**
     * Has events sent once more: `limit` of those behind an id, up to another one.
     *
     * @throws HubError FAILED_PRECONDITION `WEBHOOK_NOT_ACTIVE` or `REPLAY_UNDER_WAY`
     */
    async replay(
      userId: string,
      id: string,
      { after, upTo, limit }: { after: number; upTo: number; limit: number },
    ): Promise<void> {
      await database.transaction(async (transaction) => {
        const { status } = await find(transaction, userId, id);
        if (status !== 'active') {
          throw new HubError('FAILED_PRECONDITION', 'WEBHOOK_NOT_ACTIVE', `The webhook is ${status}: resume it first`);
        }
        const rows = await transaction.sql(
          `insert into backlogs (id, endpoint_id, kind, after_id, up_to, remaining, attempts, next_at)
            select $1, $2, 'replay', $3, $4, $5, 0, $6
              where not exists (select from backlogs where endpoint_id = $2 and kind = 'replay') returning id`,
          [orderedUuid(), id, after, upTo, limit, hubDate()],
        );
        if (rows.length === 0) {
          throw new HubError('FAILED_PRECONDITION', 'REPLAY_UNDER_WAY', 'An earlier replay has not ended');
        }
        await transaction.sql('update endpoints set due_at = $2, lease_by = null, lease_until = null where id = $1', [
          id,
          hubDate(),
        ]);
      });
    },
  };
}

/** Locks an endpoint. @throws HubError NOT_FOUND `WEBHOOK_NOT_FOUND` */
async function find(transaction: SqlTransaction, userId: string, id: string): Promise<Endpoint> {
  const [endpoint] = await transaction.sql<Endpoint>(
    `select ${endpointColumns} from endpoints e where user_id = $1 and id = $2 for update`,
    [userId, id],
  );
  return endpoint ?? notFound();
}

function notFound(): never {
  throw new HubError('NOT_FOUND', 'WEBHOOK_NOT_FOUND', 'You have no such webhook');
}
