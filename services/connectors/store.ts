import { defineEntity, p } from '@mikro-orm/core';
import type { Database, DatabaseDefinition } from '#lib/database.ts';
import type { Outcome, Round } from './delivery.ts';
import type { Profile } from './profile.ts';

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
    takenAt: p.datetime(3).nullable(),
    requestId: p.text().nullable(),
    replay: p.integer().default(0),
  },
  checks: [
    {
      name: 'deliveries_outcome',
      expression: 'num_nulls(delivered, error, ended_at) in (0, 3) and (ended_at is null or attempts is not null)',
    },
  ],
});

const ProviderProfileEntity = defineEntity({
  name: 'ProviderProfile',
  tableName: 'provider_profiles',
  properties: { channel: p.text().primary(), profile: p.json<Profile>(), updatedAt: p.datetime(3) },
});

const ProviderRateEntity = defineEntity({
  name: 'ProviderRate',
  tableName: 'provider_rates',
  properties: { channel: p.text().primary(), second: p.bigint('number'), requests: p.integer() },
});

const ProviderEffectEntity = defineEntity({
  name: 'ProviderEffect',
  tableName: 'provider_effects',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    channel: p.text(),
    idempotencyKey: p.uuid(),
    messageId: p.uuid(),
    conversationId: p.uuid(),
    seq: p.bigint('number'),
    recipientId: p.uuid(),
    firstAt: p.datetime(3).index(),
    requests: p.integer(),
    reportsLater: p.boolean(),
  },
  uniques: [{ properties: ['channel', 'idempotencyKey'] }],
  indexes: [{ name: 'provider_effects_delivery_index', properties: ['messageId', 'recipientId', 'channel'] }],
});

const ProviderReceiptEntity = defineEntity({
  name: 'ProviderReceipt',
  tableName: 'provider_receipts',
  properties: {
    id: p.bigint('number').primary().autoincrement(),
    channel: p.text(),
    idempotencyKey: p.uuid(),
    messageId: p.uuid(),
    recipientId: p.uuid(),
    status: p.text(),
    reason: p.text(),
    dueAt: p.datetime(3).index(),
  },
});

export const database: DatabaseDefinition = {
  schema: 'connectors',
  entities: [DeliveryEntity, ProviderProfileEntity, ProviderRateEntity, ProviderEffectEntity, ProviderReceiptEntity],
  migrations: async () => [
    { name: '0001-deliveries', class: (await import('./migrations/0001-deliveries.ts')).Deliveries },
    {
      name: '0002-providers-and-receipts',
      class: (await import('./migrations/0002-providers-and-receipts.ts')).ProvidersAndReceipts,
    },
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
 * Whose a delivery is: ours to make, with that key, after so many attempts; with somebody else for now; with the network,
 * which reports later; ended, with that outcome; or nobody's any more, because a later round of it has begun.
 */
export type Claim =
  | { state: 'ours'; idempotencyKey: string; attempts: number }
  | { state: 'theirs' }
  | { state: 'taken' }
  | { state: 'ended'; outcome: Outcome }
  | { state: 'superseded' };

export type EndedDelivery = DeliveryKey & Outcome & Round;

/** An open delivery that was tried. */
export interface TriedDelivery extends DeliveryKey, Round {
  attempts: number;
}

export interface TakenDelivery extends TriedDelivery {
  /** Of the call that it comes from. */
  requestId: string;
}

/** How a network says that a delivery ended. */
export interface ReportedDelivery extends DeliveryKey {
  idempotencyKey: string;
  delivered: boolean;
  error: string;
  endedAt: Date;
}

/** A delivery that has ended, with what a report of it needs beside that. */
export interface SettledDelivery extends EndedDelivery {
  conversationId: string;
  requestId: string;
}

/** The most ended deliveries of one message that are listed. */
const longestList = 10_000;

export type Store = ReturnType<typeof openStore>;

/** The queries of the connectors. */
export function openStore(db: Database) {
  return {
    /**
     * Claims deliveries, each at most once in the list, for one process: nobody else gets them for `lease` milliseconds,
     * or longer if it claims them again before that. A delivery that has ended, that the network has, or that is
     * somebody else's is not claimed, save that one that was not delivered is open again in a later round; its key stays
     * the same.
     *
     * @returns a claim for each, in the same order
     */
    async claim(deliveries: readonly DeliveryToClaim[], owner: string, lease: number): Promise<Claim[]> {
      const claimed = await db.sql<DeliveryKey & { idempotencyKey: string; attempts: number }>(
        `insert into deliveries
           (message_id, recipient_id, channel, conversation_id, idempotency_key, claimed_by, claimed_until, replay)
         select message_id, recipient_id, channel, conversation_id, key, $6, now() + $7 * interval '1 ms', replay
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $8::int[])
             as wanted (message_id, recipient_id, channel, conversation_id, key, replay)
          order by 1, 2, 3
         on conflict (message_id, recipient_id, channel) do update
           set claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until, replay = excluded.replay,
               delivered = null, error = null, ended_at = null, taken_at = null,
               attempts = case when excluded.replay = deliveries.replay then deliveries.attempts end
           where (deliveries.ended_at is null and deliveries.taken_at is null and excluded.replay >= deliveries.replay
                   and (deliveries.claimed_by = excluded.claimed_by or deliveries.claimed_until < now()))
              or (deliveries.delivered is not true and excluded.replay > deliveries.replay
                   and (deliveries.ended_at is not null or deliveries.taken_at is not null))
         returning message_id as "messageId", recipient_id as "recipientId", channel,
                   idempotency_key as "idempotencyKey", coalesce(attempts, 0) as attempts`,
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
        claimed.map(({ idempotencyKey, attempts, ...key }) => [
          keyOf(key),
          { state: 'ours', idempotencyKey, attempts },
        ]),
      );
      const others = deliveries.filter((delivery) => !claims.has(keyOf(delivery)));
      if (others.length > 0) {
        for (const { state, ...outcome } of await findOver(others)) {
          claims.set(keyOf(outcome), state === 'ended' ? { state, outcome } : { state });
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
                attempts = case when deliveries.ended_at is null
                  then greatest(deliveries.attempts, given.attempts) else deliveries.attempts end,
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

    /** Notes how often open deliveries were tried, for whoever tries them next. */
    async recordAttempts(tried: readonly TriedDelivery[]): Promise<void> {
      await db.sql(
        `update deliveries set attempts = greatest(deliveries.attempts, given.attempts)
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::integer[])
             as given (message_id, recipient_id, channel, replay, attempts)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and deliveries.replay = given.replay and ended_at is null`,
        [...columns(tried), tried.map((each) => each.replay), tried.map((each) => each.attempts)],
      );
    },

    /** Notes that the network has open deliveries and reports later: nobody makes them again in this round. */
    async recordTaken(taken: readonly TakenDelivery[]): Promise<void> {
      await db.sql(
        `update deliveries
            set taken_at = now(), attempts = greatest(deliveries.attempts, given.attempts), request_id = given.request_id
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::integer[], $6::text[])
             as given (message_id, recipient_id, channel, replay, attempts, request_id)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and deliveries.replay = given.replay and ended_at is null`,
        [
          ...columns(taken),
          taken.map((each) => each.replay),
          taken.map((each) => each.attempts),
          taken.map((each) => each.requestId),
        ],
      );
    },

    /**
     * Records how deliveries ended by what networks report, each at most once in the list. The first outcome stands.
     *
     * @returns the one that stands, of each delivery that is known by that key
     */
    async recordReported(reported: readonly ReportedDelivery[]): Promise<SettledDelivery[]> {
      return db.sql<SettledDelivery>(
        `update deliveries
            set delivered = coalesce(deliveries.delivered, given.delivered),
                attempts = coalesce(deliveries.attempts, 1),
                error = coalesce(deliveries.error, given.error),
                ended_at = coalesce(deliveries.ended_at, given.ended_at)
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::boolean[], $6::text[], $7::timestamptz[])
             as given (message_id, recipient_id, channel, key, delivered, error, ended_at)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and deliveries.idempotency_key = given.key
         returning deliveries.message_id as "messageId", deliveries.recipient_id as "recipientId", deliveries.channel,
                   deliveries.conversation_id as "conversationId", deliveries.replay,
                   coalesce(deliveries.request_id, deliveries.idempotency_key::text) as "requestId",
                   deliveries.delivered, deliveries.attempts, deliveries.error, deliveries.ended_at as "endedAt"`,
        [
          ...columns(reported),
          reported.map((each) => each.idempotencyKey),
          reported.map((each) => each.delivered),
          reported.map((each) => each.error),
          reported.map((each) => each.endedAt),
        ],
      );
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

  /** Of some deliveries those that have ended, that the network has, or of which a later round has begun. */
  function findOver(
    deliveries: readonly DeliveryToClaim[],
  ): Promise<(EndedDelivery & { state: 'ended' | 'taken' | 'superseded' })[]> {
    return db.sql(
      `select message_id as "messageId", recipient_id as "recipientId", channel, delivered, attempts, error,
              ended_at as "endedAt", given.replay,
              case when delivered or (deliveries.replay = given.replay and ended_at is not null) then 'ended'
                   when deliveries.replay = given.replay then 'taken' else 'superseded' end as state
         from deliveries
         join unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[]) as given (message_id, recipient_id, channel, replay)
           using (message_id, recipient_id, channel)
        where delivered or deliveries.replay > given.replay
           or (deliveries.replay = given.replay and (ended_at is not null or taken_at is not null))`,
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
