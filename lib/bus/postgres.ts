import { hash } from 'node:crypto';
import pg from 'pg';
import { mayConnect } from '../connections.ts';
import { isAway } from '../database-errors.ts';
import type { Logger } from '../log.ts';
import { listen } from '../notifications.ts';
import { retryUntilDone } from '../retry.ts';
import { withArrays } from '../sql-arrays.ts';
import type { Bus, Consumer } from './bus.ts';
import { consumeTopic, type TopicConsumer } from './postgres-consumer.ts';
import { firstOf, makeTables, schema } from './postgres-tables.ts';
import { answersWithin, checkName, publisher, runs, warnOfPartitions, unavailable } from './publishing.ts';

/**
 * The bus on PostgreSQL, for a single machine: like Kafka, it has a log of events for each partition of a topic.
 *
 * - `partitions`: the offset of the last event of each partition. A publisher locks the partitions that it appends to until it has
 * committed, so offsets have no gaps and are committed in order: a reader that has seen one offset has missed none before it.
 * - `events`: the events, by topic, partition and offset. They are deleted once all groups have acknowledged them.
 * - `progress`: for each group and partition the offset of the first event that is not acknowledged, and the consumer that works there. A
 * consumer claims all partitions that have events, or its share of them, for one round. A claim is a lease that its holder renews; an
 * expired one goes to the next consumer that asks. `epoch` grows with each claim and is the fencing token: a consumer whose claim was taken
 * over can neither renew nor acknowledge.
 * - `consumers`: the live consumers of each group, who share its partitions.
 */
export interface PostgresBusOptions {
  url: string;
  partitions: number;
  clientId: string;
  log: Logger;
}

/** Publishers notify this channel of PostgreSQL, with the topic. */
const channel = 'bus';

/** How long a consumer may take to start, with all its attempts. */
const startTimeoutMs = 30_000;
const tryLimit = 10_000;
const startBackoff = { firstMs: 500, maxMs: 500, jitter: 0 };
/** Beside the connection that listens for notifications. */
const maxConnections = 8;
/** The limits of one statement that publishes. */
const maxRun = { events: 500, bytes: 1024 * 1024 };

/**
 * Opens the bus on the database at `url`, whose role owns the schema `bus` or may create it.
 *
 * @throws HubError UNAVAILABLE `BUS_UNAVAILABLE` if the database is unavailable; PostgreSQL's own error if it refuses us
 */
export async function openPostgresBus({ url, partitions, clientId, log }: PostgresBusOptions): Promise<Bus> {
  const connection = {
    connectionString: url,
    application_name: `${clientId} bus`,
    connectionTimeoutMillis: 3_000,
    statement_timeout: 4_500,
    query_timeout: 5_000,
    idle_in_transaction_session_timeout: 10_000,
    keepAlive: true,
    options: `-c search_path=${schema}`,
  };
  const pool = new pg.Pool({ ...connection, max: maxConnections, idleTimeoutMillis: 60_000 });
  const forget = mayConnect(maxConnections);
  pool.on('error', (error) => log.debug({ err: error }, 'an idle bus connection was lost'));
  const names = new Map<string, string>();
  /** `text` must be a constant: it is prepared once on each connection. */
  async function query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    let name = names.get(text);
    if (name === undefined) names.set(text, (name = `bus${names.size}`));
    const config = { name, text, values: withArrays(values) };
    return (await pool.query<Row>(config).catch((error: unknown) => Promise.reject(unavailable(error)))).rows;
  }

  let stopped = false;
  const consumers = new Set<TopicConsumer>();
  const wake = (topic?: string) => {
    for (const consumer of consumers) if (topic === undefined || consumer.topic === topic) consumer.wake();
  };
  let notifications: { close(): Promise<void> };
  try {
    await makeTables(pool);
    notifications = await listen(connection, channel, wake, log);
  } catch (error) {
    forget();
    await pool.end();
    throw isAway(error) ? unavailable(error) : error;
  }

  const partitionOf = (key: string) => Number.parseInt(hash('sha1', key).slice(0, 8), 16) % partitions;

  const publish = publisher(async (topic, events, isLate) => {
    await makeTopic(topic);
    for (const run of runs(events, maxRun.events, maxRun.bytes)) {
      if (isLate()) return;
      await query(
        `with given as (
           select * from unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::jsonb[])
             with ordinality as g (partition, id, type, key, value, request_id, dead_letter, place)
         ), heads as (
           insert into partitions as p (topic, partition, last)
             select $1, partition, count(*) from given group by partition order by partition
             on conflict (topic, partition) do update set last = p.last + excluded.last
             returning partition, last
         ), stored as (
           insert into events (topic, partition, "offset", id, type, key, value, request_id, dead_letter)
             select $1, partition,
                 h.last - count(*) over (partition by partition) + row_number() over (partition by partition order by place),
                 id, type, key, value, request_id, dead_letter
               from given join heads h using (partition)
         )
         select pg_notify('${channel}', $1)`,
        [
          topic,
          run.map(({ key }) => partitionOf(key)),
          run.map(({ id }) => id),
          run.map(({ type }) => type),
          run.map(({ key }) => key),
          run.map(({ value }) => value),
          run.map(({ requestId }) => requestId),
          run.map(({ deadLetter }) => (deadLetter === undefined ? null : JSON.stringify(deadLetter))),
        ],
      );
    }
  });

  const madeTopics = new Set<string>();
  /** Creates a topic with all its partitions in one statement, so that a reader never sees only some of them. */
  async function makeTopic(topic: string): Promise<void> {
    if (madeTopics.has(topic)) return;
    const [row] = await query<{ found: number }>(
      `with made as (
         insert into partitions (topic, partition) select $1, * from generate_series(0, $2::int - 1) on conflict do nothing
       )
       select count(*)::int as found from partitions where topic = $1`,
      [topic, partitions],
    );
    // The number from before this statement, which may be 0.
    if (row!.found > 0) warnOfPartitions(log, { topic, partitions, found: row!.found });
    madeTopics.add(topic);
  }

  /** Registers the group if it is new: it begins with the first event that is still stored. */
  async function subscribe(topic: string, group: string): Promise<void> {
    await makeTopic(topic);
    await query(
      `insert into progress (topic, consumer_group, partition, next)
         select topic, $2, partition, ${firstOf('p')} from partitions p where topic = $1 on conflict do nothing`,
      [topic, group],
    );
  }

  /** Retries, since the database may be busy while all processes start. */
  async function retryForAWhile(work: () => Promise<void>): Promise<void> {
    const giveUpAt = performance.now() + startTimeoutMs;
    await retryUntilDone(() => answersWithin(tryLimit, work()), {
      backoff: startBackoff,
      onFailure(error) {
        if (stopped || performance.now() > giveUpAt) throw error;
        log.debug({ err: error }, 'a consumer could not start yet; trying again');
      },
    });
  }

  return {
    publish,

    async consume(options): Promise<Consumer> {
      const { topics, group } = options;
      checkName('group', group);
      topics.forEach((topic) => checkName('topic', topic));
      await Promise.all(topics.map((topic) => retryForAWhile(() => subscribe(topic, group))));
      if (stopped) throw unavailable(new Error('the bus was stopped'));
      const started = topics.map((topic) => consumeTopic({ query, topic, options, log, publish }));
      for (const consumer of started) consumers.add(consumer);
      return {
        async stop() {
          await Promise.all(started.map((consumer) => consumer.stop()));
          for (const consumer of started) consumers.delete(consumer);
        },
      };
    },

    async probe() {
      await answersWithin(2_000, pool.query('select 1 from partitions limit 1'));
    },

    async lag(topic, group) {
      checkName('topic', topic);
      checkName('group', group);
      const work = async () => {
        await makeTopic(topic);
        return query<{ partition: number; events: string; next: string }>(
          `select p.partition, p.last + 1 - g.next as events, g.next from partitions p
             cross join lateral (
               select coalesce((select next from progress where topic = p.topic and partition = p.partition and consumer_group = $2),
                 ${firstOf('p')}) as next
             ) as g
            where p.topic = $1 order by p.partition`,
          [topic, group],
        );
      };
      const rows = await answersWithin(5_000, work());
      return rows.map(({ partition, events, next }) => ({ partition, events: Number(events), next: Number(next) }));
    },

    async stop() {
      stopped = true;
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      consumers.clear();
      await notifications.close();
      await pool.end();
      forget();
    },
  };
}
