import { hash } from 'node:crypto';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { PgBoss, type Db, type JobWithMetadata } from 'pg-boss';
import { v7 as uuid } from 'uuid';
import type { Logger } from '../log.ts';
import type { Bus, BusEvent, Consumer, ConsumeOptions, ReceivedEvent } from './bus.ts';
import { handleBatch } from './handling.ts';
import { answersWithin, checkName, publisher, runs, unavailable } from './publishing.ts';

/**
 * The bus on PostgreSQL, for a single machine.
 *
 * As with Kafka, a topic has partitions and what is stored is batches: one pg-boss job is a run of events of one
 * partition. Each group has a queue of its own per topic, of pg-boss's policy `key_strict_fifo` with the partition as key:
 * pg-boss hands out the oldest job of a partition, and no other of that partition until that one is deleted. So whoever
 * has the oldest job (the claim) has the partition, and takes what waits behind it along.
 *
 * A claim is a lease: its holder renews `heartbeat_on`; one that isn't renewed goes to the next who asks. `retry_count`,
 * which pg-boss raises each time it hands the job out, is its epoch: whoever comes back late neither renews nor
 * acknowledges what another has taken over. Both are plain statements here, because pg-boss's own take no epoch, and its
 * leases last 10 s at least.
 */
export interface PgBossBusOptions {
  url: string;
  partitions: number;
  clientId: string;
  log: Logger;
}

const schema = 'bus';
/** Where pg-boss keeps the jobs of queues without a table of their own. */
const jobs = `${schema}.job_common`;

/** Milliseconds. */
const lease = { lasts: 6_000, renewed: 2_000 };
/** Behind the notifications: how long what nobody was notified of may wait, and how often dead holders are looked for. */
const pollInterval = 1_000;
const defaultInterval = 30;
const stopLimit = 10_000;
const startLimit = 30_000;
const largestJob = { events: 200, bytes: 1024 * 1024 };
/** How many claims are asked for at once: few, so that the consumers of a group get a share each. */
const claimsAtOnce = 4;

interface StoredEvent extends Omit<BusEvent, 'value'> {
  /** Base64. */
  value: string;
}

/** What a job carries. */
interface Batch {
  events: StoredEvent[];
}

interface Claim {
  id: string;
  epoch: number;
  /** Aborted once the claim is known to be somebody else's. */
  lost: AbortController;
  /** Whether it is being given up, so that it may be gone at any moment. */
  ending: boolean;
}

/** Opens the bus on the database at `url`, whose role owns the schema `bus` or may make it. */
export async function openPgBossBus({ url, partitions, clientId, log }: PgBossBusOptions): Promise<Bus> {
  const connection = {
    connectionString: url,
    application_name: `${clientId} bus`,
    connectionTimeoutMillis: 3_000,
    statement_timeout: 4_500,
    query_timeout: 5_000,
    idle_in_transaction_session_timeout: 10_000,
    keepAlive: true,
  };
  const pool = new pg.Pool({ ...connection, max: 8, idleTimeoutMillis: 60_000 });
  pool.on('error', (error) => log.debug({ err: error }, 'an idle bus connection was lost'));

  const query = preparing();
  const consumers = new Set<QueueConsumer>();
  const wake = (queue?: string) => {
    for (const consumer of consumers) if (queue === undefined || consumer.queue === queue) consumer.wake();
  };

  const database: Db = {
    executeSql: (text, values) => query(pool, text, values),
    listen: async (channel) => listen(connection, channel, wake, log),
  };
  const boss = new PgBoss({
    db: database,
    schema,
    createSchema: false,
    useListenNotify: true,
    supervise: false,
    schedule: false,
    queueCacheIntervalSeconds: 3_600,
    bamIntervalSeconds: 3_600,
  });
  boss.on('error', (error) => log.warn({ err: error }, 'pg-boss reports an error'));
  boss.on('warning', (warning) => log.warn({ warning }, 'pg-boss warns'));
  try {
    const { rows } = await pool.query('select 1 from pg_namespace where nspname = $1', [schema]);
    if (rows.length === 0) await pool.query(`create schema if not exists ${schema}`);
    await boss.start();
  } catch (error) {
    await boss.stop({ graceful: false }).catch(() => {});
    await pool.end();
    throw unavailable(error);
  }

  const partitionOf = (key: string) => Number.parseInt(hash('sha1', key).slice(0, 8), 16) % partitions;

  /**
   * Runs `work` while the groups of a topic can't change, or, with `change`, to change them. Without that, an event
   * published just when the first group comes would be left in the queue that nobody reads any more.
   */
  async function withGroups<T>(
    topic: string,
    change: 'change' | 'keep',
    work: (queues: string[], client: pg.PoolClient) => Promise<T>,
  ): Promise<T> {
    const client = await pool.connect();
    let broken: Error | undefined;
    const onError = (error: Error) => (broken = error);
    client.on('error', onError);
    try {
      const lock = change === 'change' ? 'pg_advisory_xact_lock' : 'pg_advisory_xact_lock_shared';
      // Several statements at once take no parameters; what a topic may be called needs no escaping.
      const results: unknown = await client.query(
        `begin; select ${lock}(hashtext('${schema} ${topic}')); select name from ${schema}.subscription where event = '${topic}'`,
      );
      const { rows } = (results as pg.QueryResult<{ name: string }>[])[2]!;
      const result = await work(
        rows.map((row) => row.name),
        client,
      );
      await client.query('commit');
      return result;
    } catch (error) {
      await client.query('rollback').catch((failure: Error) => (broken = failure));
      throw error;
    } finally {
      client.off('error', onError);
      client.release(broken);
    }
  }

  const madeQueues = new Set<string>();
  async function makeQueue(name: string): Promise<void> {
    if (madeQueues.has(name)) return;
    await boss.createQueue(name, { policy: 'key_strict_fifo', notify: true });
    madeQueues.add(name);
  }

  const publish = publisher(async (topic, events) => {
    await makeQueue(topic);
    const byPartition = Map.groupBy(events, (event) => String(partitionOf(event.key)));
    // Jobs of one transaction are as old as each other; then pg-boss goes by their ids, and these rise.
    const inserts = [...byPartition].flatMap(([singletonKey, some]) =>
      [...runs(some, largestJob.events, largestJob.bytes)].map((run) => ({
        id: uuid(),
        singletonKey,
        data: { events: run.map(stored) } satisfies Batch,
      })),
    );
    await withGroups(topic, 'keep', async (queues, client) => {
      const db: Db = { executeSql: (text, values) => query(client, text, values) };
      for (const queue of queues.length === 0 ? [topic] : queues) await boss.insert(queue, inserts, { db });
    });
  });

  /** Makes the group known to whoever publishes. The first one of a topic gets what was published before it came. */
  async function subscribe(topic: string, queue: string): Promise<void> {
    await makeQueue(topic);
    await makeQueue(queue);
    await withGroups(topic, 'change', async (queues, client) => {
      if (queues.includes(queue)) return;
      const db: Db = { executeSql: (text, values) => client.query(text, values) };
      await db.executeSql(`insert into ${schema}.subscription (event, name) values ($1, $2)`, [topic, queue]);
      if (queues.length === 0) await db.executeSql(`update ${jobs} set name = $2 where name = $1`, [topic, queue]);
    });
  }

  /** A database that is busy while everything starts is no reason to give up. */
  async function insistOn(work: () => Promise<void>): Promise<void> {
    for (const giveUp = performance.now() + startLimit; ; await wait(500)) {
      try {
        return await answersWithin(stopLimit, work());
      } catch (error) {
        if (performance.now() > giveUp) throw error;
        log.debug({ err: error }, 'a consumer could not start yet; trying again');
      }
    }
  }

  async function consume(options: ConsumeOptions): Promise<Consumer> {
    const { topics, group } = options;
    checkName('group', group);
    topics.forEach((topic) => checkName('topic', topic));
    await Promise.all(topics.map((topic) => insistOn(() => subscribe(topic, queueOf(topic, group)))));
    const started = topics.map((topic) =>
      consumeQueue({ boss, pool, query, topic, queue: queueOf(topic, group), options, log, publish }),
    );
    for (const consumer of started) consumers.add(consumer);
    return {
      async stop() {
        await Promise.all(started.map((consumer) => consumer.stop()));
        for (const consumer of started) consumers.delete(consumer);
      },
    };
  }

  return {
    publish,
    consume,
    async probe() {
      await answersWithin(2_000, pool.query(`select 1 from ${schema}.version`));
    },
    async lag(topic, group) {
      checkName('topic', topic);
      checkName('group', group);
      const work = withGroups(topic, 'keep', async (queues, client) => {
        const queue = queueOf(topic, group);
        const { rows } = await client.query(
          `select singleton_key, sum(jsonb_array_length(data->'events'))::int
              - coalesce(sum(jsonb_array_length(output->'through')), 0)::int as events
             from ${jobs} where name = $1 group by 1`,
          [queues.length === 0 ? topic : queue],
        );
        return rows as { singleton_key: string; events: number }[];
      });
      const counts = new Map((await answersWithin(5_000, work)).map((row) => [Number(row.singleton_key), row.events]));
      for (let partition = 0; partition < partitions; partition++) {
        if (!counts.has(partition)) counts.set(partition, 0);
      }
      return [...counts]
        .map(([partition, events]) => ({ partition, events }))
        .sort((a, b) => a.partition - b.partition);
    },
    async stop() {
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      consumers.clear();
      await boss.stop({ graceful: false });
      await pool.end();
    },
  };
}

type Query = <Row extends pg.QueryResultRow>(
  client: pg.Pool | pg.PoolClient,
  text: string,
  values?: unknown[],
) => Promise<pg.QueryResult<Row>>;

/** Far more than there are: pg-boss makes the text of a statement from the names of queues. */
const mostPrepared = 500;

/**
 * Sends statements so that each connection plans them once: planning one of pg-boss's takes longer than running it. What
 * has no parameters may be several statements at once, which can't be prepared.
 */
function preparing(): Query {
  const names = new Map<string, string>();
  return (client, text, values = []) => {
    let name = names.get(text);
    if (name === undefined && values.length > 0 && names.size < mostPrepared) {
      names.set(text, (name = `bus${names.size}`));
    }
    return client.query({ name, text, values });
  };
}

function queueOf(topic: string, group: string): string {
  return `${topic}/${group}`;
}

function stored(event: BusEvent): StoredEvent {
  return { ...event, value: Buffer.from(event.value).toString('base64') };
}

interface QueueConsumer {
  queue: string;
  /** There may be something to fetch. */
  wake: () => void;
  stop: () => Promise<void>;
}

/** Consumes one topic for one group. */
function consumeQueue({
  boss,
  pool,
  query,
  topic,
  queue,
  options,
  log,
  publish,
}: {
  boss: PgBoss;
  pool: pg.Pool;
  query: Query;
  topic: string;
  queue: string;
  options: ConsumeOptions;
  log: Logger;
  publish: Bus['publish'];
}): QueueConsumer {
  const stopping = new AbortController();
  const claims = new Map<Claim, Promise<void>>();
  let due = Promise.withResolvers<void>();
  const wake = () => due.resolve();
  const where = { topic, group: options.group };

  async function run(): Promise<void> {
    let away = false;
    let staleFrom = performance.now();
    while (!stopping.signal.aborted) {
      due = Promise.withResolvers();
      const timer = setTimeout(wake, pollInterval);
      const lookedAt = performance.now();
      try {
        if (performance.now() >= staleFrom) {
          staleFrom = performance.now() + pollInterval;
          await freeStaleClaims();
        }
        let fetched: JobWithMetadata<Batch>[];
        do {
          fetched = await boss.fetch<Batch>(queue, { batchSize: claimsAtOnce, includeMetadata: true });
          for (const job of fetched) begin(job);
          // Fewer than were asked for means that there are no more for now.
        } while (fetched.length === claimsAtOnce && !stopping.signal.aborted);
        if (away) log.info(where, 'the bus is back');
        away = false;
      } catch (error) {
        if (!away) log.warn({ ...where, err: error }, 'the bus is away; trying again');
        away = true;
        // While the database was away nobody could renew: let those who are alive do so first.
        staleFrom = performance.now() + lease.lasts;
        due = Promise.withResolvers();
      }
      await due.promise;
      clearTimeout(timer);
      const early = (options.interval ?? defaultInterval) - (performance.now() - lookedAt);
      if (early > 0) await wait(early, undefined, { signal: stopping.signal }).catch(() => {});
    }
  }

  function begin(job: JobWithMetadata<Batch>): void {
    const claim: Claim = { id: job.id, epoch: job.retryCount, lost: new AbortController(), ending: false };
    const work = workOn(claim, job)
      .catch((error: unknown) => log.warn({ ...where, err: error }, 'a batch was left to be taken over'))
      .finally(() => {
        claims.delete(claim);
        wake();
      });
    claims.set(claim, work);
  }

  async function workOn(claim: Claim, job: JobWithMetadata<Batch>): Promise<void> {
    const partition = Number(job.singletonKey);
    const waiting = await waitingBehind(job);
    const before = new Set((job.output as { through?: string[] } | null)?.through);
    const events = [job.data, ...waiting.map((each) => each.data)]
      .flatMap((batch) => batch.events)
      .filter((event) => !before.has(event.id))
      .map((event): ReceivedEvent => ({ ...event, value: Buffer.from(event.value, 'base64'), topic, partition }));

    async function through(count: number): Promise<void> {
      const ids = waiting.map((each) => each.id);
      const done = [...before, ...events.slice(0, count).map((event) => event.id)];
      const isMine =
        count === events.length ? await acknowledge(claim, ids) : await update(claim, `output = $4`, { through: done });
      if (isMine) return;
      claim.lost.abort();
      throw new Error('another consumer has taken the batch over');
    }

    const signal = AbortSignal.any([stopping.signal, claim.lost.signal]);
    if (events.length === 0) await through(0);
    else if (!(await handleBatch(events, { options, log, publish, through, signal }))) {
      if (!claim.lost.signal.aborted) await update(claim, `state = 'retry'`);
    }
  }

  /** The jobs of the same partition that fit into the batch, in order. Nobody else touches them while the claim lasts. */
  async function waitingBehind(job: JobWithMetadata<Batch>): Promise<{ id: string; data: Batch }[]> {
    let room = (options.batchSize ?? 200) - job.data.events.length;
    if (room <= 0) return [];
    const { rows } = await query<{ id: string; data: Batch }>(
      pool,
      `select id, data from (
         select id, data, created_on, sum(pg_column_size(data)) over (order by created_on, id) as bytes from (
           select id, data, created_on from ${jobs}
            where name = $1 and singleton_key = $2 and policy = 'key_strict_fifo' and state = 'created' and not blocked
            order by created_on, id limit $3
         ) as next
       ) as sized where bytes <= $4 order by created_on, id`,
      [queue, job.singletonKey, room, largestJob.bytes],
    );
    const fitting = rows.findIndex((row) => (room -= row.data.events.length) < 0);
    return fitting === -1 ? rows : rows.slice(0, fitting);
  }

  /** Deletes the claimed job and those taken along. False if it is somebody else's claim by now. */
  async function acknowledge(claim: Claim, others: readonly string[]): Promise<boolean> {
    claim.ending = true;
    const { rows } = await query(
      pool,
      `with claimed as (
         delete from ${jobs} where name = $1 and id = $2 and retry_count = $3 and state = 'active' returning 1
       ), others as (
         delete from ${jobs} where name = $1 and id = any($4::uuid[]) and exists (select from claimed)
       ) select from claimed`,
      [queue, claim.id, claim.epoch, others],
    );
    return rows.length === 1;
  }

  /** Changes the claimed job. False if it is somebody else's claim by now. */
  async function update(claim: Claim, change: string, value?: object): Promise<boolean> {
    const { rowCount } = await query(
      pool,
      `update ${jobs} set heartbeat_on = now(), ${change}
        where name = $1 and id = $2 and retry_count = $3 and state = 'active'`,
      [queue, claim.id, claim.epoch, ...(value === undefined ? [] : [JSON.stringify(value)])],
    );
    return rowCount === 1;
  }

  async function renewClaims(): Promise<void> {
    const held = [...claims.keys()];
    if (held.length === 0) return;
    const { rows } = await query<{ id: string }>(
      pool,
      `update ${jobs} as job set heartbeat_on = now()
         from unnest($2::uuid[], $3::int[]) as claim (id, epoch)
        where job.name = $1 and job.id = claim.id and job.retry_count = claim.epoch and job.state = 'active'
        returning job.id`,
      [queue, held.map((claim) => claim.id), held.map((claim) => claim.epoch)],
    );
    const renewed = new Set(rows.map((row) => row.id));
    for (const claim of held) {
      if (renewed.has(claim.id) || claim.ending || !claims.has(claim)) continue;
      log.warn(where, 'a batch that took too long was taken over by another consumer');
      claim.lost.abort();
    }
  }

  async function freeStaleClaims(): Promise<void> {
    const { rowCount } = await query(
      pool,
      `update ${jobs} set state = 'retry'
        where name = $1 and policy = 'key_strict_fifo' and state = 'active'
          and heartbeat_on < now() - $2 * interval '1 ms'`,
      [queue, lease.lasts],
    );
    if (rowCount !== 0) log.info({ ...where, batches: rowCount }, 'took over from a consumer that is gone');
  }

  let renewal: Promise<void> | undefined;
  const renewing = setInterval(() => {
    renewal ??= renewClaims()
      .catch((error: unknown) => log.debug({ ...where, err: error }, 'claims could not be renewed'))
      .finally(() => (renewal = undefined));
  }, lease.renewed);
  const running = run();

  return {
    queue,
    wake,
    async stop() {
      stopping.abort();
      wake();
      const finished = running.then(() => Promise.all(claims.values()));
      await Promise.race([finished, wait(stopLimit, undefined, { ref: false })]);
      clearInterval(renewing);
      await renewal;
    },
  };
}

/** Calls `wake` with the payload of each notification, and without one after each time that some may have been missed. */
async function listen(
  connection: pg.ClientConfig,
  channel: string,
  wake: (payload?: string) => void,
  log: Logger,
): Promise<{ close(): Promise<void> }> {
  let closed = false;
  let client: pg.Client | undefined;
  let timer: NodeJS.Timeout | undefined;

  async function connect(): Promise<void> {
    const next = new pg.Client(connection);
    client = next;
    next.on('error', (error) => log.debug({ err: error }, 'bus notifications were interrupted'));
    next.on('end', again);
    next.on('notification', ({ payload }) => wake(payload));
    try {
      await next.connect();
      await next.query(`listen "${channel}"`);
      wake();
    } catch {
      again();
      await next.end().catch(() => {});
    }
  }

  function again(): void {
    if (closed || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      void connect();
    }, 1_000);
  }

  await connect();
  return {
    async close() {
      closed = true;
      clearTimeout(timer);
      await client?.end().catch(() => {});
    },
  };
}
