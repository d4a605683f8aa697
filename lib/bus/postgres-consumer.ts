import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { waitAtMost } from '../deadline.ts';
import type { Logger } from '../log.ts';
import { repeat } from '../loop.ts';
import type { Bus, ConsumeOptions, DeadLetter, ReceivedEvent } from './bus.ts';
import { defaultBatchSize, roundHandler, type PartitionBatch, type Progress } from './handling.ts';
import { Pace } from './pace.ts';
import { firstOf } from './postgres-tables.ts';

const lease = { lastsMs: 6_000, renewEveryMs: 2_000 };
/** How long a consumer counts as a member of its group, whose members share the partitions, and how often it renews that. */
const presence = { lastsMs: 30_000, renewEveryMs: 10_000 };
/** Polling finds events whose notification was lost, and expired leases. */
const pollIntervalMs = 3_000;
/** The pause between two searches for events that can be deleted, and between two deletions while there are some. */
const deletion = { lookEvery: 5_000, pause: 1_000 };
const stopLimitMs = 10_000;
const maxRoundBytes = 1024 * 1024;

/** The maximum number of events of a partition that one statement deletes. */
const deletedAtOnce = 2_000n;

/** A partition that is claimed for one round, with its events. */
interface Claim extends PartitionBatch {
  epoch: string;
  /** The offsets of the events. */
  offsets: readonly bigint[];
  /** Aborts `lost`, once another consumer is known to have the partition. */
  losing: AbortController;
  /** Whether the claim is being released, so that another consumer may take it at any moment. */
  ending: boolean;
  /** How many of the events are settled. */
  done: number;
}

interface EventRow {
  partition: number;
  epoch: string;
  offset: string;
  id: string;
  type: string;
  key: string;
  value: Buffer;
  request_id: string;
  dead_letter: DeadLetter | null;
  is_taken_over: boolean;
}

type Query = <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<Row[]>;

export interface TopicConsumer {
  topic: string;
  /** There may be something to fetch. */
  wake: () => void;
  stop: () => Promise<void>;
}

/** Consumes one topic for one group. */
export function consumeTopic({
  query,
  topic,
  options,
  log,
  publish,
}: {
  query: Query;
  topic: string;
  options: ConsumeOptions;
  log: Logger;
  publish: Bus['publish'];
}): TopicConsumer {
  const { group, batchSize = defaultBatchSize, interval } = options;
  const owner = randomUUID();
  const where = { topic, group };
  const stopping = new AbortController();
  const claims = new Map<Claim, Promise<void>>();
  /** How many claims are tried together. Those that have failed or are slow don't count against this consumer's share. */
  let together = 0;
  /** Counts the attempts to claim partitions. */
  let asked = 0;
  /** Whether there may be something to claim. */
  let isDue = true;
  let nudged = Promise.withResolvers<void>();
  const wake = () => {
    isDue = true;
    nudged.resolve();
  };
  const pace = new Pace(interval, () => nudged.resolve());

  async function run(): Promise<void> {
    let isAway = false;
    while (!stopping.signal.aborted) {
      nudged = Promise.withResolvers();
      const rest = isDue ? pace.wait() : pollIntervalMs;
      if (rest > 0) {
        const timer = setTimeout(isDue ? () => nudged.resolve() : wake, rest);
        await nudged.promise;
        clearTimeout(timer);
        continue;
      }
      isDue = false;
      pace.rest();
      try {
        begin(await claim());
        if (isAway) log.info(where, 'consuming again');
        isAway = false;
      } catch (error) {
        if (!isAway) log.warn({ ...where, err: error }, 'the bus can not be read; trying again');
        isAway = true;
      }
    }
  }

  /**
   * Claims free partitions with their next events: the first event of each, then the second ones, up to the limits of a round. Leaves the
   * other consumers of the group their share of partitions.
   */
  async function claim(): Promise<Claim[]> {
    asked += 1;
    const rows = await query<EventRow>(
      `with due as (
         select g.partition, g.next, g.epoch, g.leased_until as since, g.owner is not null as is_taken_over
           from progress g join partitions p using (topic, partition)
          where g.topic = $1 and g.consumer_group = $2 and g.next <= p.last
            and (g.owner is null or g.leased_until < now()) and g.partition <> all($3::int[])
          order by g.leased_until, g.partition
          limit (
            select greatest(0, ceil(count(*)::float8 / greatest(1, (
                select count(*) from consumers c where c.topic = $1 and c.consumer_group = $2 and c.seen_until > now()
              )))::int - $8::int) from partitions where topic = $1
          )
          for update of g skip locked
       ), following as (
         select d.partition, d.since, e.*, row_number() over (partition by d.partition order by e."offset") as place
           from due d cross join lateral (
             select "offset", id, type, key, value, request_id, dead_letter from events e
              where e.topic = $1 and e.partition = d.partition and e."offset" >= d.next
              order by e."offset" limit (select ceil(2.0 * $6 / greatest(1, count(*)))::int from due)
           ) as e
       ), sized as (
         select *, row_number() over line as count, sum(length(value)) over line as bytes
           from following window line as (order by place, since, partition rows unbounded preceding)
       ), chosen as (
         select * from sized where count = 1 or (count <= $6 and bytes <= $7)
       ), claimed as (
         update progress g set owner = $4, epoch = g.epoch + 1, leased_until = now() + $5 * interval '1 ms'
           from due where g.topic = $1 and g.consumer_group = $2 and g.partition = due.partition
             and due.partition in (select partition from chosen)
           returning g.partition, g.epoch, due.is_taken_over
       )
       select c.*, e."offset", e.id, e.type, e.key, e.value, e.request_id, e.dead_letter
         from claimed c join chosen e using (partition) order by c.partition, e."offset"`,
      [
        topic,
        group,
        [...claims.keys()].map(({ partition }) => partition),
        owner,
        lease.lastsMs,
        batchSize,
        maxRoundBytes,
        together,
      ],
    );
    return [...Map.groupBy(rows, ({ partition }) => partition)].map(([partition, some]) => {
      const [{ epoch, is_taken_over: isTakenOver }] = some as [EventRow];
      if (isTakenOver) log.info({ ...where, partition }, 'took over from a consumer that is gone');
      const losing = new AbortController();
      return {
        partition,
        epoch,
        events: some.map((row) => received(topic, row)),
        offsets: some.map(({ offset }) => BigInt(offset)),
        lost: losing.signal,
        losing,
        ending: false,
        done: 0,
      };
    });
  }

  function begin(some: readonly Claim[]): void {
    if (some.length === 0) return;
    const at = asked;
    const events = some.reduce((sum, claim) => sum + claim.events.length, 0);
    const bytes = some.reduce((sum, claim) => sum + bytesOf(claim.events), 0);
    // If the round is nearly full, there are probably more events.
    const isFull = events >= batchSize || bytes > maxRoundBytes / 2;
    const round = handleRound(some);
    for (const [index, claim] of some.entries()) {
      const finished = round.batches[index]!.then((complete) => {
        if (!complete) return release(claim);
      })
        .catch((error: unknown) =>
          log.error({ ...where, partition: claim.partition, err: error }, 'a batch was broken off'),
        )
        .finally(() => {
          claims.delete(claim);
          // Attempts to claim while this claim was held have left its partition out.
          if (isFull || asked !== at) wake();
        });
      claims.set(claim, finished);
    }
    together += some.length;
    void round.triedTogether.then(() => (together -= some.length));
    pace.begin(round.triedTogether, isFull);
  }

  /** Releases a claim. The events that are left go to the next claim of the partition. */
  async function release(claim: Claim): Promise<void> {
    if (claim.lost.aborted) return;
    claim.ending = true;
    await record([{ batch: claim, count: claim.done, isLast: true }]).catch(() => {});
  }

  const handleRound = roundHandler<Claim>({
    options,
    log,
    publish,
    stopping: stopping.signal,
    async commit(progress) {
      const kept = progress
        .filter(({ batch }) => !batch.lost.aborted)
        .map(({ batch, count }) => ({ batch, count, isLast: count === batch.events.length }));
      for (const { batch, isLast } of kept) if (isLast) batch.ending = true;
      if (kept.length > 0) await record(kept);
    },
  });

  /** Records the progress of claims, and releases those of which it is the last. Claims that another consumer has taken over are lost. */
  async function record(progress: readonly (Progress<Claim> & { isLast: boolean })[]): Promise<void> {
    const rows = await query<{ partition: number }>(
      `update progress g set next = s.next, owner = case when s.is_last then null else g.owner end,
           leased_until = now() + case when s.is_last then interval '0' else $7 * interval '1 ms' end
         from unnest($3::int[], $4::bigint[], $5::bigint[], $6::bool[]) as s (partition, epoch, next, is_last)
        where g.topic = $1 and g.consumer_group = $2 and g.partition = s.partition and g.epoch = s.epoch and g.owner = $8
        returning g.partition`,
      [
        topic,
        group,
        progress.map(({ batch }) => batch.partition),
        progress.map(({ batch }) => batch.epoch),
        progress.map(({ batch, count }) => String(batch.offsets[count] ?? batch.offsets.at(-1)! + 1n)),
        progress.map(({ isLast }) => isLast),
        lease.lastsMs,
        owner,
      ],
    );
    const recorded = new Set(rows.map(({ partition }) => partition));
    for (const { batch, count } of progress) {
      if (recorded.has(batch.partition)) batch.done = count;
      else batch.losing.abort();
    }
  }

  async function renewClaims(): Promise<void> {
    const held = [...claims.keys()];
    if (held.length === 0) return;
    const rows = await query<{ partition: number }>(
      `update progress g set leased_until = now() + $5 * interval '1 ms'
         from unnest($3::int[], $4::bigint[]) as c (partition, epoch)
        where g.topic = $1 and g.consumer_group = $2 and g.partition = c.partition and g.epoch = c.epoch and g.owner = $6
        returning g.partition`,
      [topic, group, held.map(({ partition }) => partition), held.map(({ epoch }) => epoch), lease.lastsMs, owner],
    );
    const renewed = new Set(rows.map(({ partition }) => partition));
    for (const claim of held) {
      if (renewed.has(claim.partition) || claim.ending || !claims.has(claim)) continue;
      log.warn(where, 'a batch that took too long was taken over by another consumer');
      claim.losing.abort();
    }
  }

  const renewing = repeat('renewing claims', log, async () => {
    await renewClaims();
    return lease.renewEveryMs;
  });
  const present = repeat('saying that a consumer is there', log, async () => {
    await query(
      `with gone as (
         delete from consumers where topic = $1 and consumer_group = $2 and seen_until < now() - interval '1 hour'
       )
       insert into consumers (topic, consumer_group, owner, seen_until) values ($1, $2, $3, now() + $4 * interval '1 ms')
         on conflict (topic, consumer_group, owner) do update set seen_until = excluded.seen_until`,
      [topic, group, owner, presence.lastsMs],
    );
    return presence.renewEveryMs;
  });
  /** By partition, the offset below which all events are known to be deleted. */
  const deleted = new Map<number, bigint>();
  const deleting = repeat('deleting events that all groups have', log, async () => {
    if (deleted.size === 0) {
      // Cached, since the query reads past all recently deleted rows.
      const firsts = await query<{ partition: number; first: string }>(
        `select partition, ${firstOf('p')} as first from partitions p where topic = $1`,
        [topic],
      );
      for (const { partition, first } of firsts) deleted.set(partition, BigInt(first));
    }
    const rows = await query<{ partition: number; upto: string }>(
      'select partition, min(next) as upto from progress where topic = $1 group by partition order by partition',
      [topic],
    );
    const due = rows.flatMap(({ partition, upto: next }) => {
      const from = deleted.get(partition) ?? 0n;
      const upto = min(BigInt(next), from + deletedAtOnce);
      return upto > from ? [{ partition, from, upto }] : [];
    });
    if (due.length === 0) return deletion.lookEvery;
    // Rows are locked in a fixed order, so that two concurrent deletions don't deadlock.
    await query(
      `delete from events e using unnest($2::int[], $3::bigint[], $4::bigint[]) as d (partition, low, high)
        where e.topic = $1 and e.partition = d.partition and e."offset" >= d.low and e."offset" < d.high`,
      [
        topic,
        due.map(({ partition }) => partition),
        due.map(({ from }) => String(from)),
        due.map(({ upto }) => String(upto)),
      ],
    );
    for (const { partition, upto } of due) deleted.set(partition, upto);
    return due.some(({ from, upto }) => upto === from + deletedAtOnce) ? 0 : deletion.pause;
  });
  const running = run();

  return {
    topic,
    wake,
    async stop() {
      stopping.abort();
      wake();
      await waitAtMost(
        stopLimitMs,
        running.then(() => Promise.all(claims.values())),
      );
      await Promise.all([renewing.stop(), deleting.stop(), present.stop()]);
      // If this fails, the row expires a little later.
      await query('delete from consumers where topic = $1 and consumer_group = $2 and owner = $3', [
        topic,
        group,
        owner,
      ]).catch(() => {});
    },
  };
}

function min(one: bigint, other: bigint): bigint {
  return one < other ? one : other;
}

function bytesOf(events: readonly ReceivedEvent[]): number {
  return events.reduce((sum, { value }) => sum + value.byteLength, 0);
}

function received(topic: string, row: EventRow): ReceivedEvent {
  return {
    topic,
    partition: row.partition,
    id: row.id,
    type: row.type,
    key: row.key,
    value: row.value,
    requestId: row.request_id,
    ...(row.dead_letter === null ? {} : { deadLetter: row.dead_letter }),
  };
}
