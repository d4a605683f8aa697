import { defineEntity, p } from '@mikro-orm/core';
import type { Database, DatabaseDefinition } from '#lib/database.ts';
import type { Outcome, Round } from './delivery.ts';

const DeliveryEntity = defineEntity({
  name: 'Delivery',
  tableName: 'deliveries',
  properties: {
    messageId: p.uuid().primary(),
    recipientId: p.uuid().primary(),
    channel: p.text().primary(),
    conversationId: p.uuid(),
    idempotencyKey: p.uuid(),
    claimedBy: p.uuid(),
    claimedUntil: p.datetime(3),
    delivered: p.boolean().nullable(),
    attempts: p.integer().nullable(),
    error: p.text().nullable(),
    endedAt: p.datetime(3).nullable(),
    replay: p.integer().default(0),
  },
  checks: [{ name: 'deliveries_outcome', expression: 'num_nulls(delivered, attempts, error, ended_at) in (0, 4)' }],
});

export const database: DatabaseDefinition = {
  schema: 'connectors',
  entities: [DeliveryEntity],
  migrations: async () => [
    { name: '0001-deliveries', class: (await import('./migrations/0001-deliveries.ts')).Deliveries },
    { name: '0003-replays', class: (await import('./migrations/0003-replays.ts')).Replays },
  ],
};

/** What identifies a delivery. */
export interface DeliveryKey {
  messageId: string;
  recipientId: string;
  channel: string;
}

export interface DeliveryToClaim extends DeliveryKey, Round {
  conversationId: string;
  /** UUID that the network is to know the delivery by, if nobody has claimed it before. */
  idempotencyKey: string;
}

/**
 * Whose a delivery is: ours to make, with that key; with somebody else for now; made, with that outcome; or nobody's any
 * more, because a later round of it has begun.
 */
export type Claim =
  | { state: 'ours'; idempotencyKey: string }
  | { state: 'theirs' }
  | { state: 'ended'; outcome: Outcome }
  | { state: 'superseded' };

export type EndedDelivery = DeliveryKey & Outcome & Round;

/** The most ended deliveries of one message that are listed. */
const longestList = 10_000;

export type Store = ReturnType<typeof openStore>;

/** The queries of the connectors. */
export function openStore(db: Database) {
  return {
    /**
     * Claims deliveries, each at most once in the list, for one process: nobody else gets them for `lease` milliseconds,
     * or longer if it claims them again before that. A delivery that has ended, or is somebody else's, is not claimed,
     * save that one that has failed is open again in a later round; its key stays the same.
     *
     * @returns a claim for each, in the same order
     */
    async claim(deliveries: readonly DeliveryToClaim[], owner: string, lease: number): Promise<Claim[]> {
      const claimed = await db.sql<DeliveryKey & { idempotencyKey: string }>(
        `insert into deliveries
           (message_id, recipient_id, channel, conversation_id, idempotency_key, claimed_by, claimed_until, replay)
         select message_id, recipient_id, channel, conversation_id, key, $6, now() + $7 * interval '1 ms', replay
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $8::int[])
             as wanted (message_id, recipient_id, channel, conversation_id, key, replay)
          order by 1, 2, 3
         on conflict (message_id, recipient_id, channel) do update
           set claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until, replay = excluded.replay,
               delivered = null, attempts = null, error = null, ended_at = null
           where (deliveries.ended_at is null and excluded.replay >= deliveries.replay
                   and (deliveries.claimed_by = excluded.claimed_by or deliveries.claimed_until < now()))
              or (not deliveries.delivered and excluded.replay > deliveries.replay)
         returning message_id as "messageId", recipient_id as "recipientId", channel,
                   idempotency_key as "idempotencyKey"`,
        [
          ...columns(deliveries),
          deliveries.map((delivery) => delivery.conversationId),
          deliveries.map((delivery) => delivery.idempotencyKey),
          owner,
          lease,
          deliveries.map((delivery) => delivery.replay),
        ],
      );
      const claims = new Map<string, Claim>(
        claimed.map((row) => [keyOf(row), { state: 'ours', idempotencyKey: row.idempotencyKey }]),
      );
      const others = deliveries.filter((delivery) => !claims.has(keyOf(delivery)));
      if (others.length > 0) {
        for (const { isOver, ...outcome } of await findOver(others)) {
          claims.set(keyOf(outcome), isOver ? { state: 'ended', outcome } : { state: 'superseded' });
        }
      }
      return deliveries.map((delivery) => claims.get(keyOf(delivery)) ?? { state: 'theirs' });
    },

    /** Gives back what `owner` has claimed and not ended, so that others needn't wait for the lease to run out. */
    async release(deliveries: readonly DeliveryKey[], owner: string): Promise<void> {
      await db.sql(
        `update deliveries set claimed_until = now() - interval '1 ms'
           from unnest($1::uuid[], $2::uuid[], $3::text[]) as given (message_id, recipient_id, channel)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and claimed_by = $4 and ended_at is null`,
        [...columns(deliveries), owner],
      );
    },

    /**
     * Records how claimed deliveries ended. The first outcome of a delivery stands. That it failed in an earlier round
     * doesn't end it; that it was delivered does.
     *
     * @returns the one that stands, for each, in the same order
     */
    async record(ended: readonly EndedDelivery[]): Promise<EndedDelivery[]> {
      const standing = await db.sql<EndedDelivery>(
        `update deliveries
            set delivered = coalesce(deliveries.delivered, given.delivered),
                attempts = coalesce(deliveries.attempts, given.attempts),
                error = coalesce(deliveries.error, given.error),
                ended_at = coalesce(deliveries.ended_at, given.ended_at)
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::integer[], $6::text[], $7::timestamptz[],
                       $8::int[])
             as given (message_id, recipient_id, channel, delivered, attempts, error, ended_at, replay)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and (given.delivered or given.replay = deliveries.replay)
         returning deliveries.message_id as "messageId", deliveries.recipient_id as "recipientId", deliveries.channel,
                   deliveries.delivered, deliveries.attempts, deliveries.error, deliveries.ended_at as "endedAt",
                   deliveries.replay`,
        [
          ...columns(ended),
          ended.map((each) => each.delivered),
          ended.map((each) => each.attempts),
          ended.map((each) => each.error),
          ended.map((each) => each.endedAt),
          ended.map((each) => each.replay),
        ],
      );
      const byKey = new Map(standing.map((each) => [keyOf(each), each]));
      return ended.map((each) => byKey.get(keyOf(each)) ?? each);
    },

    /** The deliveries of a message that have ended, by recipient and channel; 10,000 at most. */
    async listEnded(messageId: string): Promise<EndedDelivery[]> {
      const found = await db.entities((em) =>
        em.find(
          DeliveryEntity,
          { messageId, endedAt: { $ne: null } },
          { orderBy: { recipientId: 'asc', channel: 'asc' }, limit: longestList },
        ),
      );
      return found as EndedDelivery[];
    },
  };

  /** Of some deliveries those that have ended, or of which a later round has begun. */
  function findOver(deliveries: readonly DeliveryToClaim[]): Promise<(EndedDelivery & { isOver: boolean })[]> {
    return db.sql<EndedDelivery & { isOver: boolean }>(
      `select message_id as "messageId", recipient_id as "recipientId", channel, delivered, attempts, error,
              ended_at as "endedAt", given.replay, delivered is true or deliveries.replay = given.replay as "isOver"
         from deliveries
         join unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[]) as given (message_id, recipient_id, channel, replay)
           using (message_id, recipient_id, channel)
        where ended_at is not null or deliveries.replay > given.replay`,
      [...columns(deliveries), deliveries.map((delivery) => delivery.replay)],
    );
  }
}

function keyOf({ messageId, recipientId, channel }: DeliveryKey): string {
  return `${messageId}/${recipientId}/${channel}`;
}

function columns(deliveries: readonly DeliveryKey[]): string[][] {
  return [
    deliveries.map((delivery) => delivery.messageId),
    deliveries.map((delivery) => delivery.recipientId),
    deliveries.map((delivery) => delivery.channel),
  ];
}
