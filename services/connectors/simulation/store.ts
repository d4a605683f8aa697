import type { Database } from '#lib/database.ts';
import { deleteOld } from '#lib/forgetting.ts';
import { emptyProfile, type OwedReceipt, type Profile } from './profile.ts';

/** A request to accept a message, as a simulated network sees it. */
export interface TakeRequest {
  idempotencyKey: string;
  replay: number;
  messageId: string;
  conversationId: string;
  seq: bigint;
  recipientId: string;
  /** Whether it is refused, unless it was accepted before. */
  refused: boolean;
  /** Its later reports; null if there are none. */
  receipts: readonly OwedReceipt[] | null;
}

/** A network's answer to a request. */
export interface Answer {
  /** Whether this request took effect, rather than an earlier one. */
  first: boolean;
  /** Whether reports follow. */
  reportsLater: boolean;
}

export interface DueReceipt extends Pick<OwedReceipt, 'status' | 'reason'> {
  id: bigint;
  channel: string;
  idempotencyKey: string;
  replay: number;
  messageId: string;
  recipientId: string;
}

export interface Effect {
  position: bigint;
  channel: string;
  idempotencyKey: string;
  messageId: string;
  conversationId: string;
  seq: bigint;
  recipientId: string;
  firstAt: Date;
  requests: number;
  effects: number;
}

export interface EffectFilter {
  channel?: string;
  messageId?: string;
  /** A position. */
  after: bigint;
}

export type SimulationStore = ReturnType<typeof openSimulationStore>;

/** The data of simulated networks. It stands for external servers, so it is independent of the hub's own data. */
export function openSimulationStore(db: Database) {
  return {
    /** The profiles that administrators have set, by channel, and whether any receipts are owed. */
    async load(): Promise<{ profiles: Map<string, Profile>; owesReceipts: boolean }> {
      const rows = await db.sql<{ channel: string | null; profile: Profile | null; owed: boolean }>(
        `select channel, profile, exists (select from provider_receipts) as owed
           from (values (true)) as always left join provider_profiles on true`,
      );
      const profiles = rows.flatMap(({ channel, profile }) =>
        channel === null ? [] : [[channel, { ...emptyProfile, ...profile! }] as const],
      );
      return { profiles: new Map(profiles), owesReceipts: rows[0]!.owed };
    },

    async setProfile(channel: string, profile: Profile): Promise<void> {
      await db.sql(
        `insert into provider_profiles (channel, profile, updated_at) values ($1, $2, now())
         on conflict (channel) do update set profile = excluded.profile, updated_at = excluded.updated_at`,
        [channel, JSON.stringify(profile)],
      );
    },

    async resetProfile(channel: string): Promise<void> {
      await db.sql('delete from provider_profiles where channel = $1', [channel]);
    },

    /**
     * Counts requests against the rate limit of the current second.
     *
     * @returns how many of them are within it, and the seconds until the next one
     */
    async count(channel: string, requests: number, limit: number): Promise<{ within: number; wait: number }> {
      const [row] = await db.sql<{ requests: number; wait: number }>(
        `insert into provider_rates as r (channel, second, requests)
         values ($1, floor(extract(epoch from now())), $2)
         on conflict (channel) do update
           set requests = case when r.second >= excluded.second then r.requests else 0 end + excluded.requests,
               second = greatest(r.second, excluded.second)
         returning requests, (second + 1 - extract(epoch from clock_timestamp()))::float8 as wait`,
        [channel, requests],
      );
      const { requests: counted, wait } = row!;
      return { within: Math.max(0, Math.min(requests, limit - (counted - requests))), wait: Math.max(0, wait) };
    },

    /**
     * Accepts messages, each key once, together with their future receipts, in one transaction. A later round of an accepted message gets
     * receipts of its own.
     *
     * @returns an answer for each; undefined if it is refused, or being accepted by another call at this moment
     */
    async take(channel: string, requests: readonly TakeRequest[]): Promise<(Answer | undefined)[]> {
      const byKey = Map.groupBy(requests, ({ idempotencyKey }) => idempotencyKey);
      const given = [...byKey.values()].map((same) => ({
        ...same[0]!,
        times: same.length,
        replay: Math.max(...same.map(({ replay }) => replay)),
      }));
      const owed = given.flatMap(({ idempotencyKey, receipts }) =>
        (receipts ?? []).map((receipt) => ({ idempotencyKey, ...receipt })),
      );
      const rows = await db.sql<{ key: string; first: boolean; reportsLater: boolean }>(
        `with given as (
           select * from unnest($2::uuid[], $3::int[], $4::uuid[], $5::uuid[], $6::bigint[], $7::uuid[], $8::boolean[],
               $9::boolean[], $14::int[]) with ordinality
             as given (key, times, message_id, conversation_id, seq, recipient_id, refused, reports_later, replay, place)
         ), repeated as (
           update provider_effects e
               set requests = e.requests + given.times, replay = greatest(e.replay, given.replay)
             from given join provider_effects before on before.channel = $1 and before.idempotency_key = given.key
             where e.id = before.id
           returning e.idempotency_key as key, e.message_id, e.recipient_id, e.reports_later, e.replay,
             given.replay > before.replay as is_later_round
         ), taken as (
           insert into provider_effects
               (channel, idempotency_key, message_id, conversation_id, seq, recipient_id, first_at, requests, reports_later, replay)
             select $1, key, message_id, conversation_id, seq, recipient_id, clock_timestamp(), times, reports_later, replay
               from given where not refused and not exists (select from repeated where repeated.key = given.key)
              order by place
             on conflict (channel, idempotency_key) do nothing
           returning idempotency_key as key, message_id, recipient_id, reports_later, replay
         ), owing as (
           select key, message_id, recipient_id, replay from taken
           union all
           select key, message_id, recipient_id, replay from repeated where reports_later and is_later_round
         ), owed as (
           insert into provider_receipts (channel, idempotency_key, message_id, recipient_id, status, reason, due_at, replay)
             select $1, key, message_id, recipient_id, status, reason, now() + delay * interval '1 ms', replay
               from owing
               join unnest($10::uuid[], $11::text[], $12::text[], $13::int[]) with ordinality
                 as owed (key, status, reason, delay, place) using (key)
              order by delay, place
         )
         select key, true as first, reports_later as "reportsLater" from taken
         union all select key, false, reports_later from repeated`,
        [
          channel,
          given.map(({ idempotencyKey }) => idempotencyKey),
          given.map(({ times }) => times),
          given.map(({ messageId }) => messageId),
          given.map(({ conversationId }) => conversationId),
          given.map(({ seq }) => seq),
          given.map(({ recipientId }) => recipientId),
          given.map(({ refused }) => refused),
          given.map(({ receipts }) => receipts !== null),
          owed.map(({ idempotencyKey }) => idempotencyKey),
          owed.map(({ status }) => status),
          owed.map(({ reason }) => reason),
          owed.map(({ delay }) => delay),
          given.map(({ replay }) => replay),
        ],
      );
      const answers = new Map(rows.map(({ key, ...answer }) => [key, answer]));
      return requests.map(({ idempotencyKey }) => {
        const answer = answers.get(idempotencyKey);
        // Only the first of several requests with one key has taken effect.
        if (answer?.first) answers.set(idempotencyKey, { ...answer, first: false });
        return answer;
      });
    },

    /** Claims due receipts of these channels, oldest first. They are due again after `lease` milliseconds unless they are settled. */
    async dueReceipts(channels: readonly string[], limit: number, lease: number): Promise<DueReceipt[]> {
      return db.sql<DueReceipt>(
        `with due as materialized (
           select id, due_at from provider_receipts where due_at <= now() and channel = any($1::text[])
            order by due_at, id limit $2 for update skip locked
         ), leased as (
           update provider_receipts r set due_at = now() + $3 * interval '1 ms' from due where r.id = due.id
           returning r.*, due.due_at as was_due_at
         )
         select id, channel, idempotency_key as "idempotencyKey", message_id as "messageId",
                recipient_id as "recipientId", status, reason, replay
           from leased order by was_due_at, id`,
        [channels, limit, lease],
      );
    },

    /** Deletes receipts that were received. */
    async settleReceipts(ids: readonly bigint[]): Promise<void> {
      await db.sql('delete from provider_receipts where id = any($1::bigint[])', [ids]);
    },

    /** A page of effects by position, and how many match in all. */
    async listEffects(filter: EffectFilter, page: { limit: number; offset: number }): Promise<[Effect[], number]> {
      const { channel = null, messageId = null, after } = filter;
      const matching = `from provider_effects e
        where ($1::text is null or channel = $1) and ($2::uuid is null or message_id = $2) and id > $3`;
      const effects = await db.sql<Effect>(
        `select id as position, channel, idempotency_key as "idempotencyKey", message_id as "messageId",
                conversation_id as "conversationId", seq, recipient_id as "recipientId", first_at as "firstAt", requests,
                (select count(*)::int from provider_effects other where other.message_id = e.message_id
                    and other.recipient_id = e.recipient_id and other.channel = e.channel) as effects
           ${matching} order by id limit $4 offset $5`,
        [channel, messageId, after, page.limit, page.offset],
      );
      const [count] = await db.sql<{ total: bigint }>(`select count(*) as total ${matching}`, [
        channel,
        messageId,
        after,
      ]);
      return [effects, Number(count!.total)];
    },

    /** Deletes at most `limit` effects, and as many receipts, from before `until`. @returns the greater of both numbers */
    async sweep(until: Date, limit: number): Promise<number> {
      return Math.max(
        await deleteOld(db, { table: 'provider_effects', isOld: 'first_at < $1', oldestBy: 'first_at' }, until, limit),
        await deleteOld(db, { table: 'provider_receipts', isOld: 'due_at < $1', oldestBy: 'due_at' }, until, limit),
      );
    },
  };
}
