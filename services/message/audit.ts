import type { Database } from '#lib/database.ts';

/** How much of something there is, by what became of it. */
export interface Balance {
  accepted: bigint;
  delivered: bigint;
  failed: bigint;
  inFlight: bigint;
}

export interface SeqGap {
  conversationId: string;
  /** The positions that were looked at, both inclusive. */
  fromSeq: bigint;
  toSeq: bigint;
  missing: bigint;
}

/** The books for a period, all of them as they were at one moment. */
export interface Books {
  messages: Balance;
  deliveries: Balance;
  /** Messages whose deliveries or history don't go with them: 20 at most, and how many there are. */
  mismatched: string[];
  mismatchedTotal: bigint;
  /** Messages in flight that should have ended by now. */
  overdue: bigint;
  oldestInFlight: { messageId: string; acceptedAt: Date } | undefined;
  /** Conversations whose positions have a gap: 20 at most, and how many there are. */
  gaps: SeqGap[];
  gapsTotal: bigint;
  /** Whatever the period. */
  outboxEvents: bigint;
  oldestOutboxEvent: Date | undefined;
  deadLettersWaiting: bigint;
}

/** The most messages of a period that are looked at: some seconds of work for a database that is busy. */
export const mostMessages = 200_000;
const longestList = 20;
/** Milliseconds: what should have ended is swept up some times a second. */
const grace = 1_000;

export type Audit = ReturnType<typeof openAudit>;

export function openAudit(database: Database) {
  return {
    /** The books for the messages accepted in a period; undefined if there are more than `mostMessages`. */
    async books(from: Date, to: Date): Promise<Books | undefined> {
      return database.transaction(async (transaction) => {
        await transaction.sql('set transaction isolation level repeatable read read only');
        await transaction.sql(`set local work_mem = '64MB'`);
        const period = [from, to];
        const [size] = await transaction.sql<{ messages: bigint }>(
          `select count(*) as messages from (
            select from messages where created_at >= $1 and created_at < $2 limit ${mostMessages + 1}
          ) as found`,
          period,
        );
        if (size!.messages > mostMessages) return undefined;

        // `wanted` is what was promised at the acceptance; the ledger and the history are what is there.
        const [sums] = await transaction.sql<Sums>(
          `with m as materialized (
            select message_id, status, created_at, expires_at, cardinality(recipient_ids) * cardinality(channels) as wanted
              from messages where created_at >= $1 and created_at < $2
          ), ledger as (
            select message_id, count(*) as made, count(*) filter (where d.status = 'delivered') as delivered,
                count(*) filter (where d.status = 'failed') as failed
              from m join deliveries d using (message_id) group by message_id
          ), history as (
            select distinct on (message_id) message_id, h.status
              from m join status_changes h using (message_id) order by message_id, h.id desc
          ), book as (
            select m.*, made, delivered, failed, m.status in ('accepted', 'in_transit') as open,
                (made = wanted and h.status = m.status and case
                    when delivered + failed < made then m.status in ('accepted', 'in_transit')
                    when failed > 0 then m.status = 'failed'
                    else m.status = 'delivered' end) is true as matches
              from m left join ledger using (message_id) left join history h using (message_id)
          )
          select count(*) as messages,
              count(*) filter (where status = 'delivered') as messages_delivered,
              count(*) filter (where status = 'failed') as messages_failed,
              count(*) filter (where open) as messages_open,
              coalesce(sum(wanted), 0)::bigint as wanted, coalesce(sum(delivered), 0)::bigint as delivered,
              coalesce(sum(failed), 0)::bigint as failed,
              coalesce(sum(made - delivered - failed), 0)::bigint as open,
              count(*) filter (where open and expires_at < now() - $3 * interval '1 ms') as overdue,
              count(*) filter (where not matches) as mismatched_total,
              (array_agg(message_id::text order by created_at) filter (where not matches))[1:${longestList}] as mismatched,
              (array_agg(message_id::text order by created_at) filter (where open))[1] as oldest_id,
              min(created_at) filter (where open) as oldest_at
            from book`,
          [...period, grace],
        );

        // Each conversation from its first to its last message of the period, the one before the first, and the last
        // position that was given out.
        const gaps = await transaction.sql<SeqGap & { total: bigint }>(
          `with touched as (
            select conversation_id, min(seq) as low, max(seq) as high
              from messages where created_at >= $1 and created_at < $2 group by conversation_id
          ), seen as (
            select t.conversation_id, greatest(low - 1, 1) as low, h.last_seq,
                (select count(*) from messages m where m.conversation_id = t.conversation_id
                  and m.seq between t.low - 1 and t.high) as found,
                high, (select max(seq) from messages m where m.conversation_id = t.conversation_id) as newest
              from touched t left join conversation_heads h using (conversation_id)
          ), counted as (
            select *, high - low + 1 - found + coalesce(greatest(last_seq - newest, 0), 1) as missing from seen
          )
          select conversation_id as "conversationId", low as "fromSeq",
              case when last_seq > newest then last_seq else high end as "toSeq", missing, count(*) over () as total
            from counted where missing <> 0 order by conversation_id limit ${longestList}`,
          period,
        );
        const [waiting] = await transaction.sql<{ events: bigint; oldest: Date | null; letters: bigint }>(
          `select count(*) as events, min(created_at) as oldest,
              (select count(*) from dead_letters where replayed_at is null) as letters
            from outbox`,
        );
        return booksOf(sums!, gaps, waiting!);
      });
    },
  };
}

interface Sums {
  messages: bigint;
  messages_delivered: bigint;
  messages_failed: bigint;
  messages_open: bigint;
  wanted: bigint;
  delivered: bigint;
  failed: bigint;
  open: bigint;
  overdue: bigint;
  mismatched_total: bigint;
  mismatched: string[] | null;
  oldest_id: string | null;
  oldest_at: Date | null;
}

function booksOf(
  sums: Sums,
  gaps: readonly (SeqGap & { total: bigint })[],
  waiting: { events: bigint; oldest: Date | null; letters: bigint },
): Books {
  return {
    messages: {
      accepted: sums.messages,
      delivered: sums.messages_delivered,
      failed: sums.messages_failed,
      inFlight: sums.messages_open,
    },
    deliveries: { accepted: sums.wanted, delivered: sums.delivered, failed: sums.failed, inFlight: sums.open },
    mismatched: sums.mismatched ?? [],
    mismatchedTotal: sums.mismatched_total,
    overdue: sums.overdue,
    oldestInFlight:
      sums.oldest_id === null ? undefined : { messageId: sums.oldest_id, acceptedAt: sums.oldest_at as Date },
    gaps: gaps.map(({ total: _, ...gap }) => gap),
    gapsTotal: gaps[0]?.total ?? 0n,
    outboxEvents: waiting.events,
    oldestOutboxEvent: waiting.oldest ?? undefined,
    deadLettersWaiting: waiting.letters,
  };
}

/** Whether all that was accepted is accounted for. */
export function balances(books: Books): boolean {
  const isWhole = ({ accepted, delivered, failed, inFlight }: Balance) => accepted === delivered + failed + inFlight;
  return (
    isWhole(books.messages) &&
    isWhole(books.deliveries) &&
    books.mismatchedTotal === 0n &&
    books.gapsTotal === 0n &&
    books.overdue === 0n
  );
}
