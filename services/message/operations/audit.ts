import { setTimeout as wait } from 'node:timers/promises';
import type { Database } from '#lib/database.ts';

/** Numbers of messages or deliveries by status. */
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

/** The balance of a period. */
export interface Books {
  messages: Balance;
  deliveries: Balance;
  /** Messages that contradict their deliveries or history: 20 at most, and their number. */
  mismatched: string[];
  mismatchedTotal: bigint;
  /** Messages in flight that should have ended by now. */
  overdue: bigint;
  oldestInFlight: { messageId: string; acceptedAt: Date } | undefined;
  /** Gaps in the positions of conversations, for each part of the period: 20 at most, and their number. */
  gaps: SeqGap[];
  gapsTotal: bigint;
  /** Independent of the period. */
  outboxEvents: bigint;
  oldestOutboxEvent: Date | undefined;
  deadLettersWaiting: bigint;
  /** Messages that were accepted before this were removed at the end of their retention. */
  removedBefore: Date | undefined;
}

/** Few enough for short transactions, which don't hold up vacuum. */
const messagesAtOnce = 20_000;
/** After this no further transaction is begun, so that the call is answered in time. */
const lookLimitMs = 8_000;
/** The pause after each transaction, as a share of the time that it took, to leave room for other queries. */
const restShare = 0.1;
const maxListed = 20;
/** A message counts as overdue only after this: the sweep for expired ones runs several times a second. */
const graceMs = 1_000;

export type Audit = ReturnType<typeof openAudit>;

export function openAudit(database: Database, { atOnce = messagesAtOnce, limitMs = lookLimitMs } = {}) {
  /** The end of the part of the period that begins at `from`: after about `atOnce` messages, or at the end of the period. */
  async function endOfPart(from: Date, to: Date): Promise<Date> {
    const [row] = await database.sql<{ end: Date }>(
      // At least 1 ms after `from`, however many messages have that time.
      `select greatest(created_at, $1::timestamptz + interval '1 ms') as end from messages
        where created_at >= $1 and created_at < $2 order by created_at offset $3 limit 1`,
      [from, to, atOnce],
    );
    return row === undefined || row.end > to ? to : row.end;
  }

  return {
    /**
     * The balance of the messages accepted in a period, or in as much of it as can be read within some seconds. It is read in parts, each
     * from one snapshot.
     *
     * @returns the balance, and its actual end: `to`, or earlier
     */
    async books(from: Date, to: Date): Promise<{ books: Books; to: Date }> {
      const giveUp = performance.now() + limitMs;
      let sum: Books | undefined;
      for (let next = from; ;) {
        const began = performance.now();
        const end = await endOfPart(next, to);
        const part = await booksOfPart(database, next, end);
        sum = sum === undefined ? part : added(sum, part);
        if (end >= to || performance.now() > giveUp) return { books: sum, to: end };
        await wait((performance.now() - began) * restShare);
        next = end;
      }
    },
  };
}

/** The balance of a part of a period, from one snapshot. */
async function booksOfPart(database: Database, from: Date, to: Date): Promise<Books> {
  return database.transaction(async (transaction) => {
    await transaction.sql('set transaction isolation level repeatable read read only');
    const period = [from, to];
    // `wanted` is what was promised at acceptance; the ledger and the history are what is stored. The deliveries of each message are looked
    // up by its id, to avoid a scan of all deliveries for each part. The CTE is materialized, so that its rows are not computed once per
    // use.
    const [sums] = await transaction.sql<Sums>(
      `with book as materialized (
        select m.message_id, m.status, created_at, expires_at, wanted, ledger.delivered, ledger.failed,
            m.status in ('accepted', 'in_transit') as open,
            step = m.status and meant and case
                when ledger.delivered + ledger.failed < wanted then m.status in ('accepted', 'in_transit')
                when ledger.delivered + ledger.failed > wanted then false
                when ledger.failed > 0 then m.status = 'failed'
                else m.status = 'delivered' end as matches
          from messages m,
            lateral (select cardinality(m.recipient_ids) * cardinality(m.channels) as wanted,
              coalesce(m.history->-1->>'status', case when m.status = 'accepted' then m.status else
                (select h.status from status_changes h where h.message_id = m.message_id order by h.id desc limit 1)
              end, '') as step) as promised,
            lateral (select count(*) filter (where d.status = 'delivered') as delivered,
                count(*) filter (where d.status = 'failed') as failed,
                coalesce(bool_and(d.recipient_id = any(m.recipient_ids) and d.channel = any(m.channels)), true) as meant
              from deliveries d where d.message_id = m.message_id) as ledger
          where created_at >= $1 and created_at < $2
      )
      select count(*) as messages,
          count(*) filter (where status = 'delivered') as messages_delivered,
          count(*) filter (where status = 'failed') as messages_failed,
          count(*) filter (where open) as messages_open,
          coalesce(sum(wanted), 0)::bigint as wanted, coalesce(sum(delivered), 0)::bigint as delivered,
          coalesce(sum(failed), 0)::bigint as failed,
          coalesce(sum(wanted - delivered - failed), 0)::bigint as open,
          count(*) filter (where open and expires_at < now() - $3 * interval '1 ms') as overdue,
          count(*) filter (where not matches) as mismatched_total,
          (select array_agg(message_id::text) from (
            select message_id from book where not matches order by created_at limit ${maxListed}
          ) as first) as mismatched,
          (select message_id from book where open order by created_at limit 1) as oldest_id,
          min(created_at) filter (where open) as oldest_at
        from book`,
      [...period, graceMs],
    );

    // For each conversation: from the message before its first one in the period (or the first stored one) to its last one in the period;
    // if that is its newest, to the last position that was assigned.
    const gaps = await transaction.sql<SeqGap & { total: bigint }>(
      `with touched as (
        select conversation_id, min(seq) as low, max(seq) as high
          from messages where created_at >= $1 and created_at < $2 group by conversation_id
      ), seen as (
        select t.*, h.last_seq,
            greatest((select max(seq) from messages m where m.conversation_id = t.conversation_id and m.seq < t.low), h.first_seq - 1, 0)
              as before,
            (select count(*) from messages m where m.conversation_id = t.conversation_id and m.seq between t.low and t.high) as found,
            (select max(seq) from messages m where m.conversation_id = t.conversation_id) as newest
          from touched t left join conversation_heads h using (conversation_id)
      ), counted as (
        select *, case when high < newest then 0 else coalesce(greatest(last_seq - newest, 0), 1) end as lost from seen
      )
      select conversation_id as "conversationId", before + 1 as "fromSeq", high + lost as "toSeq",
          greatest(high - before, 0) - least(found, greatest(high - before, 0)) + lost as missing, count(*) over () as total
        from counted where greatest(high - before, 0) > found or lost > 0 order by conversation_id limit ${maxListed}`,
      period,
    );
    const [waiting] = await transaction.sql<Waiting>(
      `select count(*) as events, min(created_at) as oldest,
          (select count(*) from dead_letters where replayed_at is null) as letters,
          (select before from removals where name = 'messages') as "removedBefore"
        from outbox`,
    );
    return booksOf(sums!, gaps, waiting!);
  });
}

/** Adds the balances of two parts. Current backlogs are those of the later one. */
function added(one: Books, next: Books): Books {
  const sum = (some: Balance, more: Balance): Balance => ({
    accepted: some.accepted + more.accepted,
    delivered: some.delivered + more.delivered,
    failed: some.failed + more.failed,
    inFlight: some.inFlight + more.inFlight,
  });
  return {
    ...next,
    messages: sum(one.messages, next.messages),
    deliveries: sum(one.deliveries, next.deliveries),
    mismatched: [...one.mismatched, ...next.mismatched].slice(0, maxListed),
    mismatchedTotal: one.mismatchedTotal + next.mismatchedTotal,
    overdue: one.overdue + next.overdue,
    oldestInFlight: one.oldestInFlight ?? next.oldestInFlight,
    gaps: [...one.gaps, ...next.gaps].slice(0, maxListed),
    gapsTotal: one.gapsTotal + next.gapsTotal,
  };
}

interface Waiting {
  events: bigint;
  oldest: Date | null;
  letters: bigint;
  removedBefore: Date | null;
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

function booksOf(sums: Sums, gaps: readonly (SeqGap & { total: bigint })[], waiting: Waiting): Books {
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
    removedBefore: waiting.removedBefore ?? undefined,
  };
}

/** Whether everything that was accepted is accounted for. */
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
