import { open, stat } from 'node:fs/promises';
import pg from 'pg';
import { readMetrics } from './metrics.ts';

/** What a hub has done so far, as PostgreSQL, the metrics of its processes and its log tell. */
export interface Counters {
  commits: number;
  /** As the position in the write-ahead log tells: every change, whoever made it. */
  walBytes: number;
  /** How often the write-ahead log was made durable. */
  walSyncs: number;
  /** Rows, by schema. */
  rows: Record<string, Rows>;
  /** What metrics count, by name and labels as Prometheus writes them, added up over the processes. */
  metrics: Record<string, number>;
  logLines: number;
  logBytes: number;
}

export interface Rows {
  inserted: number;
  updated: number;
  /** Of the updated ones: those for which no index was written (heap-only tuples). */
  hotUpdated: number;
  deleted: number;
  /** Read by scans of tables and of indexes. */
  read: number;
}

/** Reads the counters of one hub. */
export interface CounterReader {
  read(): Promise<Counters>;
  close(): Promise<void>;
}

export interface CounterSources {
  databaseUrl: string;
  /** Where processes may serve metrics; one that doesn't answer is left out. */
  metricsPorts: readonly number[];
  /** Each line of it is one of the log. */
  logFile: string;
}

/**
 * Opens what the counters are read from. PostgreSQL's processes tell of what they do up to a second late, so a difference over a few
 * seconds only is too small or too large by what happens in one; the position in the write-ahead log is exact.
 */
export async function openCounters({ databaseUrl, metricsPorts, logFile }: CounterSources): Promise<CounterReader> {
  const database = new pg.Client({ connectionString: databaseUrl, query_timeout: 10_000 });
  // That it was closed at the other end is told by the next read.
  database.on('error', () => {});
  await database.connect();
  const log = lineCounter(logFile);
  return {
    async read() {
      const [[server], tables, metrics, { lines, bytes }] = await Promise.all([
        readServer(database),
        readTables(database),
        readMetrics(metricsPorts),
        log(),
      ]);
      return {
        commits: Number(server!.commits),
        walBytes: Number(server!.wal_bytes),
        walSyncs: Number(server!.wal_syncs),
        rows: Object.fromEntries(tables.map(({ schema, ...rows }) => [schema, numbers(rows)])),
        metrics,
        logLines: lines,
        logBytes: bytes,
      };
    },
    close: () => database.end(),
  };
}

async function readServer(database: pg.Client) {
  const { rows } = await database.query<{ commits: string; wal_bytes: string; wal_syncs: string }>(
    `select (select sum(xact_commit) from pg_stat_database) as commits,
            pg_current_wal_insert_lsn() - '0/0' as wal_bytes,
            (select sum(fsyncs) from pg_stat_io where object = 'wal') as wal_syncs`,
  );
  return rows;
}

async function readTables(database: pg.Client) {
  const { rows } = await database.query<{ schema: string } & Record<keyof Rows, string>>(
    `select schemaname as schema, sum(n_tup_ins) as inserted, sum(n_tup_upd) as updated, sum(n_tup_hot_upd) as "hotUpdated",
            sum(n_tup_del) as deleted, sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) as read
       from pg_stat_user_tables group by 1 order by 1`,
  );
  return rows;
}

function numbers(rows: Record<keyof Rows, string>): Rows {
  return Object.fromEntries(Object.entries(rows).map(([name, value]) => [name, Number(value)])) as unknown as Rows;
}

/** Counts the lines of a file that grows, each time from where it was the last time. */
function lineCounter(file: string): () => Promise<{ lines: number; bytes: number }> {
  let lines = 0;
  let bytes = 0;
  const piece = Buffer.alloc(1024 * 1024);
  return async () => {
    const end = (await stat(file)).size;
    await using handle = await open(file);
    while (bytes < end) {
      const { bytesRead } = await handle.read(piece, 0, Math.min(piece.length, end - bytes), bytes);
      if (bytesRead === 0) break;
      for (let at = piece.indexOf(10); at !== -1 && at < bytesRead; at = piece.indexOf(10, at + 1)) lines += 1;
      bytes += bytesRead;
    }
    return { lines, bytes };
  };
}

/** What was counted from `before` to `after`. What is there for the first time, as of a process that has started, counts in full. */
export function countedBetween(before: Counters, after: Counters): Counters {
  const none: Rows = { inserted: 0, updated: 0, hotUpdated: 0, deleted: 0, read: 0 };
  return {
    commits: after.commits - before.commits,
    walBytes: after.walBytes - before.walBytes,
    walSyncs: after.walSyncs - before.walSyncs,
    rows: Object.fromEntries(
      Object.entries(after.rows).map(([schema, rows]) => [schema, minus(rows, before.rows[schema] ?? none)]),
    ),
    metrics: minus(after.metrics, before.metrics),
    logLines: after.logLines - before.logLines,
    logBytes: after.logBytes - before.logBytes,
  };
}

function minus<T extends object>(after: T, before: Partial<T>): T {
  const earlier = before as Record<string, number>;
  return Object.fromEntries(Object.entries(after).map(([name, value]) => [name, value - (earlier[name] ?? 0)])) as T;
}
