import type { Database } from '#lib/database.ts';
import type { DeliveryKey, EndedDelivery, Outcome, Round } from './delivery.ts';

export interface DeliveryToClaim extends DeliveryKey, Round {
  conversationId: string;
  /** UUID that will identify the delivery to the network, unless it was claimed before. */
  idempotencyKey: string;
}

/**
 * The result of a claim. `claimed`: this process makes the delivery, with that key and number of earlier attempts, now or behind those that
 * are parked in its lane; `claimedElsewhere`: another process has claimed it; `waiting`: it is parked; `taken`: the network has it, and
 * reports later; `ended`: with that outcome; `superseded`: a later round has begun.
 */
export type Claim =
  | { state: 'claimed'; idempotencyKey: string; attempts: number; isBehind: boolean }
  | { state: 'claimedElsewhere' }
  | { state: 'waiting' }
  | { state: 'taken' }
  | { state: 'ended'; outcome: Outcome }
  | { state: 'superseded' };

/** A delivery that the network has. */
export interface TakenDelivery extends DeliveryKey, Round {
  attempts: number;
  /** Request id of the call that caused it. */
  callId: string;
}

/** How a delivery ended, by a network's report. */
export interface ReportedDelivery extends DeliveryKey, Round {
  idempotencyKey: string;
  delivered: boolean;
  error: string;
  endedAt: Date;
}

/** A delivery that has ended, with what else its report needs. */
export interface SettledDelivery extends EndedDelivery {
  conversationId: string;
  callId: string;
}

const maxListed = 10_000;

/** The record of each delivery, and which process has claimed it while its event is on the bus. */
export function openDeliveries(db: Database) {
  return {
    /**
     * Claims deliveries, each at most once in the list, for one process: no other process gets them for `lease` milliseconds; to claim them
     * again renews that. A delivery that has ended, that the network has, or that another process has claimed is not claimed. One that
     * failed is open again in a later round, with the same key.
     *
     * @returns a claim for each, in the same order
     */
    async claim(deliveries: readonly DeliveryToClaim[], owner: string, lease: number): Promise<Claim[]> {
      const claimed = await db.sql<DeliveryKey & { idempotencyKey: string; attempts: number; isBehind: boolean }>(
        `with claimed as (
           insert into deliveries
             (message_id, recipient_id, channel, conversation_id, idempotency_key, claimed_by, claimed_until, replay)
           select message_id, recipient_id, channel, conversation_id, key, $6, now() + $7 * interval '1 ms', replay
             from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $8::int[])
               as wanted (message_id, recipient_id, channel, conversation_id, key, replay)
            order by 1, 2, 3
           on conflict (message_id, recipient_id, channel) do update
             set claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until, replay = excluded.replay,
                 delivered = null, error = null, ended_at = null, taken_at = null, parked_at = null,
                 attempts = case when excluded.replay = deliveries.replay then deliveries.attempts end
             where (deliveries.ended_at is null and deliveries.taken_at is null and deliveries.parked_at is null
                     and excluded.replay >= deliveries.replay
                     and (deliveries.claimed_by = excluded.claimed_by or deliveries.claimed_until < now()))
                or (deliveries.delivered is not true and excluded.replay > deliveries.replay
                     and (deliveries.ended_at is not null or deliveries.taken_at is not null
                           or deliveries.parked_at is not null))
           returning message_id, recipient_id, channel, conversation_id, idempotency_key, attempts
         )
         select message_id as "messageId", recipient_id as "recipientId", channel, idempotency_key as "idempotencyKey",
                coalesce(attempts, 0) as attempts,
                exists (select from lanes where lanes.channel = claimed.channel
                    and lanes.conversation_id = claimed.conversation_id and lanes.recipient_id = claimed.recipient_id)
                  as "isBehind"
           from claimed`,
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
        claimed.map(({ idempotencyKey, attempts, isBehind, ...key }) => [
          keyOf(key),
          { state: 'claimed', idempotencyKey, attempts, isBehind },
        ]),
      );
      const others = deliveries.filter((delivery) => !claims.has(keyOf(delivery)));
      if (others.length > 0) {
        for (const { state, ...outcome } of await findOver(others)) {
          claims.set(keyOf(outcome), state === 'ended' ? { state, outcome } : { state });
        }
      }
      return deliveries.map((delivery) => claims.get(keyOf(delivery)) ?? { state: 'claimedElsewhere' });
    },

    /** Releases claims of `owner` on open deliveries, so that other processes needn't wait until they expire. */
    async release(deliveries: readonly DeliveryKey[], owner: string): Promise<void> {
      await db.sql(
        `update deliveries set claimed_until = now() - interval '1 ms'
           from unnest($1::uuid[], $2::uuid[], $3::text[]) as given (message_id, recipient_id, channel)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and claimed_by = $4 and ended_at is null and parked_at is null`,
        [...columns(deliveries), owner],
      );
    },

    /**
     * Records how claimed deliveries ended. The first outcome of a delivery stands. A failure in an earlier round doesn't end it; a
     * delivery does.
     *
     * @returns for each the outcome that stands, in the same order
     */
    async record(ended: readonly EndedDelivery[]): Promise<EndedDelivery[]> {
      const recorded = await db.sql<EndedDelivery>(
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
      const byKey = new Map(recorded.map((each) => [keyOf(each), each]));
      return ended.map((each) => byKey.get(keyOf(each)) ?? each);
    },

    /** Records that the network has accepted deliveries and reports later: they are not made again in this round. */
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
          taken.map((each) => each.callId),
        ],
      );
    },

    /**
     * Records how deliveries ended by networks' reports, each at most once in the list. The first outcome stands. As with `record`, only a
     * failure in the current round counts, but a delivery in any.
     *
     * @returns the outcome that stands, for each delivery that is known by that key and that the report is relevant to
     */
    async recordReported(reported: readonly ReportedDelivery[]): Promise<SettledDelivery[]> {
      return db.sql<SettledDelivery>(
        `update deliveries
            set delivered = coalesce(deliveries.delivered, given.delivered),
                attempts = coalesce(deliveries.attempts, 1),
                error = coalesce(deliveries.error, given.error),
                ended_at = coalesce(deliveries.ended_at, given.ended_at)
           from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::boolean[], $6::text[], $7::timestamptz[], $8::int[])
             as given (message_id, recipient_id, channel, key, delivered, error, ended_at, replay)
          where deliveries.message_id = given.message_id and deliveries.recipient_id = given.recipient_id
            and deliveries.channel = given.channel and deliveries.idempotency_key = given.key
            and (given.delivered or given.replay = deliveries.replay)
         returning deliveries.message_id as "messageId", deliveries.recipient_id as "recipientId", deliveries.channel,
                   deliveries.conversation_id as "conversationId", deliveries.replay,
                   coalesce(deliveries.request_id, deliveries.idempotency_key::text) as "callId",
                   deliveries.delivered, deliveries.attempts, deliveries.error, deliveries.ended_at as "endedAt"`,
        [
          ...columns(reported),
          reported.map((each) => each.idempotencyKey),
          reported.map((each) => each.delivered),
          reported.map((each) => each.error),
          reported.map((each) => each.endedAt),
          reported.map((each) => each.replay),
        ],
      );
    },

    /** The deliveries of a message that have ended, by recipient and channel; 10,000 at most. */
    async listEnded(messageId: string): Promise<EndedDelivery[]> {
      return db.sql<EndedDelivery>(
        `select message_id as "messageId", recipient_id as "recipientId", channel, delivered, attempts, error,
                ended_at as "endedAt", replay
           from deliveries where message_id = $1 and ended_at is not null order by recipient_id, channel limit $2`,
        [messageId, maxListed],
      );
    },
  };

  /** Finds which of some deliveries have ended, are with the network, are parked, or have a later round. */
  function findOver(
    deliveries: readonly DeliveryToClaim[],
  ): Promise<(EndedDelivery & { state: 'ended' | 'taken' | 'waiting' | 'superseded' })[]> {
    return db.sql(
      `select message_id as "messageId", recipient_id as "recipientId", channel, delivered, attempts, error,
              ended_at as "endedAt", given.replay,
              case when delivered or (deliveries.replay = given.replay and ended_at is not null) then 'ended'
                   when deliveries.replay <> given.replay then 'superseded'
                   when taken_at is not null then 'taken' else 'waiting' end as state
         from deliveries
         join unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[]) as given (message_id, recipient_id, channel, replay)
           using (message_id, recipient_id, channel)
        where delivered or deliveries.replay > given.replay
           or (deliveries.replay = given.replay
                and (ended_at is not null or taken_at is not null or parked_at is not null))`,
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
