import { hubTime } from '#lib/clock.ts';
import { columns, type Database } from '#lib/database.ts';
import type { EndedDelivery, Round } from './delivery.ts';

/**
 * The deliveries to one recipient of one conversation over one channel: they are made in order, and parked together. A lane has a row while
 * deliveries of it are parked.
 */
export interface LaneKey {
  channel: string;
  conversationId: string;
  recipientId: string;
}

/** A request for deliveries, as received from the bus. */
export interface ParkedRequest {
  /** UUID of the event. */
  id: string;
  /** The value of the event. */
  value: Uint8Array;
  callId: string;
}

export interface DeliveryToPark extends LaneKey, Round {
  messageId: string;
  request: ParkedRequest;
  attempts: number;
  /** Why the last attempt failed; empty if there was none. */
  error: string;
}

export interface LaneToPark {
  /** In their order. */
  deliveries: readonly DeliveryToPark[];
  /**
   * When the first one may be tried; null if its attempt is in flight, and the process that parks it keeps the lane; left out if it is
   * behind others.
   */
  dueAt?: Date | null;
}

/** A parked delivery, as stored. */
export interface ParkedDelivery extends Round, LaneKey {
  id: bigint;
  messageId: string;
  request: ParkedRequest;
  attempts: number;
  error: string;
  idempotencyKey: string;
  /**
   * `open`: still to be made; `ended`: recorded, though that may not be reported yet; `over`: nothing to do here, because the network has it
   * or a later round has begun.
   */
  state: 'open' | 'ended' | 'over';
  /** Set if it has ended. */
  ended: EndedDelivery | undefined;
}

/** A claimed lane, with the first of its deliveries. */
export interface ClaimedLane extends LaneKey {
  deliveries: ParkedDelivery[];
}

/** The results of parked deliveries, to be recorded together. */
export interface Progress {
  /** Deliveries that are no longer parked. */
  done: readonly { id: bigint; requestId: string }[];
  /** Deliveries whose attempt failed. */
  tried: readonly { id: bigint; attempts: number; error: string }[];
  /** Lanes that `owner` releases, and when they are due again; those without deliveries are deleted. */
  released: readonly (LaneKey & { dueAt: Date })[];
  owner: string;
}

/** The parked deliveries of a channel. */
export interface Backlog {
  channel: string;
  /** Deliveries. */
  waiting: number;
  /** Seconds since the oldest of them was parked. */
  age: number;
}

/** With texts of maximum length these are half a megabyte. */
const maxClaimedOfLane = 8;

/** The parked deliveries: they wait for their next attempt, or behind one that does, in the order of their lanes. */
export function openLanes(db: Database) {
  return {
    /**
     * Parks deliveries that `owner` has claimed, with everything that an attempt needs: once that is committed, their events may be
     * acknowledged. Those whose claim was lost meanwhile are left out.
     *
     * @param lease milliseconds for which `owner` keeps the lanes whose `dueAt` is null
     * @returns how many are parked
     */
    async park(lanes: readonly LaneToPark[], owner: string, lease: number): Promise<number> {
      const given = lanes.flatMap(({ deliveries, dueAt }) =>
        deliveries.map(({ request, ...delivery }) => ({
          ...delivery,
          requestId: request.id,
          wait: dueAt ? millisecondsUntil(dueAt) : null,
          isKept: dueAt === null,
        })),
      );
      const requests = [
        ...new Map(lanes.flatMap(({ deliveries }) => deliveries).map(({ request }) => [request.id, request])).values(),
      ];
      const [row] = await db.sql<{ parked: number }>(
        `with given as materialized (
           select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::int[], $6::uuid[], $7::int[], $8::text[],
               $9::float8[], $10::boolean[]) with ordinality
             as given (message_id, recipient_id, channel, conversation_id, replay, request_id, attempts, error, wait,
                       is_kept, place)
         ), held as (
           update deliveries d set parked_at = now(), attempts = greatest(d.attempts, given.attempts)
             from given
            where d.message_id = given.message_id and d.recipient_id = given.recipient_id and d.channel = given.channel
              and d.claimed_by = $14 and d.replay = given.replay and d.ended_at is null and d.taken_at is null
              and d.parked_at is null
           returning given.*
         ), rows as (
           insert into parked
               (channel, conversation_id, recipient_id, message_id, replay, request_id, error, parked_at)
             select channel, conversation_id, recipient_id, message_id, replay, request_id, error, now()
               from held order by place
         ), of_lanes as (
           insert into lanes (channel, conversation_id, recipient_id, due_at, claimed_by, deliveries)
             select channel, conversation_id, recipient_id,
                    now() + case when bool_or(is_kept) then $15 else coalesce(min(wait), 0) end * interval '1 ms',
                    case when bool_or(is_kept) then $14::uuid end, count(*)
               from held group by 1, 2, 3 order by 1, 2, 3
             on conflict (channel, conversation_id, recipient_id) do update
               set deliveries = lanes.deliveries + excluded.deliveries
         ), of_requests as (
           insert into requests (id, value, call_id, deliveries)
             select id, value, call_id, held.deliveries
               from unnest($11::uuid[], $12::bytea[], $13::text[]) as request (id, value, call_id)
               join (select request_id, count(*) as deliveries from held group by 1) as held on held.request_id = id
              order by id
             on conflict (id) do update set deliveries = requests.deliveries + excluded.deliveries
         )
         select count(*)::int as parked from held`,
        [
          ...columns(given, [
            'messageId',
            'recipientId',
            'channel',
            'conversationId',
            'replay',
            'requestId',
            'attempts',
            'error',
            'wait',
            'isKept',
          ]),
          requests.map(({ id }) => id),
          requests.map(({ value }) => Buffer.from(value)),
          requests.map(({ callId }) => callId),
          owner,
          lease,
        ],
      );
      return row!.parked;
    },

    /** Milliseconds until the next lane of a channel is due, 0 or less if one is; undefined if nothing is parked. */
    async nextDue(channel: string): Promise<number | undefined> {
      const [row] = await db.sql<{ wait: number | null }>(
        `select (extract(epoch from min(due_at) - now()) * 1000)::float8 as wait from lanes where channel = $1`,
        [channel],
      );
      return row?.wait ?? undefined;
    },

    /**
     * Claims lanes that are due, the longest overdue first: no other process gets them for `lease` milliseconds, or longer if they are
     * renewed.
     */
    async claimLanes(channel: string, limit: number, owner: string, lease: number): Promise<ClaimedLane[]> {
      const rows = await db.sql<ParkedRow>(
        `with due as materialized (
           select channel, conversation_id, recipient_id from lanes where channel = $1 and due_at <= now()
            order by due_at limit $2 for update skip locked
         ), claimed as (
           update lanes set claimed_by = $3, due_at = now() + $4 * interval '1 ms' from due as given
            where ${isGivenLane}
           returning lanes.channel, lanes.conversation_id, lanes.recipient_id
         )
         ${deliveriesOfClaimed}`,
        [channel, limit, owner, lease],
      );
      return lanesOf(rows);
    },

    /**
     * Loads the deliveries of lanes of `owner`, and renews their claims for `lease` milliseconds. @returns the lanes that are still
     * `owner`'s
     */
    async reloadLanes(lanes: readonly LaneKey[], owner: string, lease: number): Promise<ClaimedLane[]> {
      const rows = await db.sql<ParkedRow>(
        `with claimed as (
           update lanes set due_at = now() + $5 * interval '1 ms'
             from unnest($1::text[], $2::uuid[], $3::uuid[]) as given (channel, conversation_id, recipient_id)
            where ${isGivenLane} and claimed_by = $4
           returning lanes.channel, lanes.conversation_id, lanes.recipient_id
         )
         ${deliveriesOfClaimed}`,
        [...columns(lanes, ['channel', 'conversationId', 'recipientId']), owner, lease],
      );
      return lanesOf(rows);
    },

    /** Renews the claims on lanes for `lease` milliseconds. @returns the lanes that are still `owner`'s */
    async renewLanes(lanes: readonly LaneKey[], owner: string, lease: number): Promise<LaneKey[]> {
      return db.sql<LaneKey>(
        `update lanes set due_at = now() + $5 * interval '1 ms'
           from unnest($1::text[], $2::uuid[], $3::uuid[]) as given (channel, conversation_id, recipient_id)
          where ${isGivenLane} and claimed_by = $4
         returning lanes.channel, lanes.conversation_id as "conversationId", lanes.recipient_id as "recipientId"`,
        [...columns(lanes, ['channel', 'conversationId', 'recipientId']), owner, lease],
      );
    },

    /** Records the results of parked deliveries in one transaction. May be repeated. */
    async advance({ done, tried, released, owner }: Progress): Promise<void> {
      await db.transaction(async (transaction) => {
        const requestIds = [...new Set(done.map(({ requestId }) => requestId))];
        if (done.length > 0) {
          void transaction.sql(
            `with gone as (
               delete from parked where id = any($1::bigint[])
               returning channel, conversation_id, recipient_id, request_id
             ), of_lanes as (
               update lanes set deliveries = lanes.deliveries - given.deliveries
                 from (select channel, conversation_id, recipient_id, count(*) as deliveries from gone group by 1, 2, 3)
                   as given
                where ${isGivenLane}
             )
             update requests set deliveries = requests.deliveries - given.deliveries
               from (select request_id, count(*) as deliveries from gone group by 1) as given
              where requests.id = given.request_id`,
            [done.map(({ id }) => id)],
          );
        }
        if (tried.length > 0) {
          void transaction.sql(
            `with given as (
               select * from unnest($1::bigint[], $2::int[], $3::text[]) as given (id, attempts, error)
             ), noted as (
               update parked p set error = given.error from given where p.id = given.id
               returning p.message_id, p.recipient_id, p.channel, p.replay, given.attempts
             )
             update deliveries d set attempts = greatest(d.attempts, noted.attempts) from noted
              where d.message_id = noted.message_id and d.recipient_id = noted.recipient_id
                and d.channel = noted.channel and d.replay = noted.replay and d.ended_at is null`,
            columns(tried, ['id', 'attempts', 'error']),
          );
        }
        if (released.length > 0) {
          const keys = columns(released, ['channel', 'conversationId', 'recipientId']);
          void transaction.sql(
            `update lanes set claimed_by = null, due_at = now() + given.wait * interval '1 ms'
               from unnest($1::text[], $2::uuid[], $3::uuid[], $5::float8[])
                 as given (channel, conversation_id, recipient_id, wait)
              where ${isGivenLane} and claimed_by = $4`,
            [...keys, owner, released.map(({ dueAt }) => millisecondsUntil(dueAt))],
          );
          void transaction.sql(
            `delete from lanes using unnest($1::text[], $2::uuid[], $3::uuid[])
                 as given (channel, conversation_id, recipient_id)
              where ${isGivenLane} and lanes.deliveries <= 0`,
            keys,
          );
        }
        if (requestIds.length > 0) {
          void transaction.sql('delete from requests where id = any($1::uuid[]) and deliveries <= 0', [requestIds]);
        }
      });
    },

    /**
     * Adds to the counts of all processes, each channel at most once in the list.
     *
     * @returns the sums, and the number of parked deliveries, by channel
     */
    async addCounts(
      counts: readonly { channel: string; taken: number; prompt: number; held: number }[],
    ): Promise<Map<string, { taken: number; prompt: number; held: number; parked: number }>> {
      const rows = await db.sql<{ channel: string; taken: bigint; prompt: bigint; held: bigint; parked: bigint }>(
        `insert into loads as l (channel, taken, prompt, held)
           select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) order by 1
         on conflict (channel) do update
           set taken = l.taken + excluded.taken, prompt = l.prompt + excluded.prompt, held = l.held + excluded.held
         returning channel, taken, prompt, held,
           (select coalesce(sum(deliveries), 0) from lanes where lanes.channel = l.channel) as parked`,
        columns(counts, ['channel', 'taken', 'prompt', 'held']),
      );
      return new Map(
        rows.map(({ channel, taken, prompt, held, parked }) => [
          channel,
          { taken: Number(taken), prompt: Number(prompt), held: Number(held), parked: Number(parked) },
        ]),
      );
    },

    /** How much is parked, by channel. */
    async backlog(): Promise<Backlog[]> {
      return db.sql<Backlog>(
        `select channel, count(*)::int as waiting, extract(epoch from now() - min(parked_at))::float8 as age
           from parked group by channel`,
      );
    },
  };
}

const isGivenLane = `lanes.channel = given.channel and lanes.conversation_id = given.conversation_id
  and lanes.recipient_id = given.recipient_id`;

/** SQL: the first deliveries of the lanes that the statement has claimed, in order. */
const deliveriesOfClaimed = `
  select c.channel, c.conversation_id as "conversationId", c.recipient_id as "recipientId", p.id,
         p.message_id as "messageId", p.replay, p.request_id as "requestId", p.error as "lastError", r.value,
         r.call_id as "callId", d.idempotency_key as "idempotencyKey", coalesce(d.attempts, 0) as attempts, d.delivered,
         d.error, d.ended_at as "endedAt",
         case when d.delivered or (d.replay = p.replay and d.ended_at is not null) then 'ended'
              when d.replay = p.replay and d.taken_at is null and r.value is not null then 'open'
              else 'over' end as state
    from claimed c
    left join lateral (
      select * from parked where channel = c.channel and conversation_id = c.conversation_id
         and recipient_id = c.recipient_id order by id limit ${maxClaimedOfLane}
    ) p on true
    left join requests r on r.id = p.request_id
    left join deliveries d
      on d.message_id = p.message_id and d.recipient_id = p.recipient_id and d.channel = p.channel
   order by p.id`;

/** The time until a lane is due, by the database's clock. */
function millisecondsUntil(moment: Date): number {
  return Math.max(0, moment.getTime() - hubTime());
}

export function laneId({ channel, conversationId, recipientId }: LaneKey): string {
  return `${channel}/${conversationId}/${recipientId}`;
}

interface ParkedRow extends LaneKey {
  /** Null, as the fields below, for a lane without deliveries. */
  id: bigint | null;
  messageId: string;
  replay: number;
  requestId: string;
  lastError: string;
  value: Buffer | null;
  callId: string | null;
  idempotencyKey: string;
  attempts: number;
  delivered: boolean | null;
  error: string | null;
  endedAt: Date | null;
  state: ParkedDelivery['state'];
}

function lanesOf(rows: readonly ParkedRow[]): ClaimedLane[] {
  return [...Map.groupBy(rows, laneId).values()].map((some) => {
    const { channel, conversationId, recipientId } = some[0]!;
    const deliveries = some.flatMap((row) => (row.id === null ? [] : [parkedDelivery(row, row.id)]));
    return { channel, conversationId, recipientId, deliveries };
  });
}

function parkedDelivery(row: ParkedRow, id: bigint): ParkedDelivery {
  const { channel, conversationId, recipientId, messageId, replay, attempts, idempotencyKey, state } = row;
  const { delivered, error, endedAt } = row;
  const outcome = { delivered: delivered!, attempts, error: error!, endedAt: endedAt! };
  return {
    id,
    channel,
    conversationId,
    recipientId,
    messageId,
    replay,
    request: { id: row.requestId, value: row.value ?? Buffer.alloc(0), callId: row.callId ?? '' },
    attempts,
    error: row.lastError,
    idempotencyKey,
    state,
    ended: state === 'ended' ? { messageId, recipientId, channel, replay, ...outcome } : undefined,
  };
}
