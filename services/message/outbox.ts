import type { Database } from '#lib/database.ts';
import { messageColumns, storedMessage, type MessageRow, type StoredMessage } from './store.ts';

/** A message that the bus has not been told of yet. */
export interface OutboxEntry {
  id: bigint;
  message: StoredMessage;
  /** Of a message that was replayed: the deliveries that are to be made again. */
  only: readonly { recipientId: string; channel: string }[];
  requestId: string;
}

/** Who may bring messages to the bus. The epoch is another one each time that the lease goes to another owner. */
export interface Lease {
  owner: string;
  epoch: bigint;
}

export type Outbox = ReturnType<typeof openOutbox>;

/** What was accepted and the bus has not been told of yet, and the lease of the one that tells it. */
export function openOutbox(database: Database) {
  return {
    /** The messages that the bus has not been told of yet, in the order in which it has to be. */
    async unpublished(limit: number): Promise<OutboxEntry[]> {
      const rows = await database.sql<
        MessageRow & { id: bigint; request_id: string; only: OutboxEntry['only'] | null }
      >(
        `select o.id, o.request_id, ${messageColumns},
            case when m.replay > 0 then (
              select jsonb_agg(jsonb_build_object('recipientId', d.recipient_id, 'channel', d.channel)
                  order by array_position(m.recipient_ids, d.recipient_id), d.channel)
                from deliveries d where d.message_id = m.message_id and d.replay = m.replay
            ) end as only
          from outbox o join messages m using (message_id)
          order by o.id limit $1`,
        [limit],
      );
      return rows.map((row) => ({
        id: row.id,
        message: storedMessage(row),
        only: row.only ?? [],
        requestId: row.request_id,
      }));
    },

    /** Takes events that are on the bus out of the outbox, unless the lease has gone to somebody else. */
    async published(ids: readonly bigint[], lease: Lease): Promise<void> {
      await database.sql(
        `delete from outbox where id = any($1)
          and exists (select from leases where name = 'relay' and owner = $2 and epoch = $3)`,
        [ids, lease.owner, lease.epoch],
      );
    },

    /** How long the oldest event has been waiting for the bus, in milliseconds; 0 if none is. */
    async age(): Promise<number> {
      const [oldest] = await database.sql<{ created_at: Date }>('select created_at from outbox order by id limit 1');
      return oldest === undefined ? 0 : Math.max(0, Date.now() - oldest.created_at.getTime());
    },

    /** How many events wait for the bus, and for how many milliseconds the oldest one has. */
    async backlog(): Promise<{ events: number; age: number }> {
      const [row] = await database.sql<{ events: bigint; oldest: Date | null }>(
        'select count(*) as events, min(created_at) as oldest from outbox',
      );
      const { events, oldest } = row!;
      return { events: Number(events), age: oldest === null ? 0 : Math.max(0, Date.now() - oldest.getTime()) };
    },

    /** Takes or keeps the relay's lease for `milliseconds`; undefined while somebody else has it. */
    async holdLease(owner: string, milliseconds: number): Promise<Lease | undefined> {
      const [lease] = await database.sql<{ epoch: bigint }>(
        `insert into leases as l (name, owner, epoch, expires_at)
          values ('relay', $1, 1, now() + $2 * interval '1 millisecond')
          on conflict (name) do update set
            owner = excluded.owner,
            epoch = case when l.owner = excluded.owner then l.epoch else l.epoch + 1 end,
            expires_at = excluded.expires_at
          where l.owner = excluded.owner or l.expires_at < now()
          returning epoch`,
        [owner, milliseconds],
      );
      return lease === undefined ? undefined : { owner, epoch: lease.epoch };
    },

    /** Lets go of the relay's lease, so that another process need not wait for its end. */
    async releaseLease(owner: string): Promise<void> {
      await database.sql(`update leases set expires_at = now() where name = 'relay' and owner = $1`, [owner]);
    },
  };
}
