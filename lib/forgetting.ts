import { hubTime } from './clock.ts';
import { duration, maxRetentionMs } from './config.ts';
import type { Database } from './database.ts';
import type { Logger } from './log.ts';
import { sweep, type Loop, type SweepOptions } from './loop.ts';

/** Settings of a process that records its effects, so that each happens once. */
export const effectSettings = {
  EFFECT_RETENTION: duration({ min: 86_400_000, max: maxRetentionMs })
    .default(7 * 86_400_000)
    .describe('how long it is known what was routed and delivered, at least a day: longer than DELIVERY_DEADLINE'),
};

/** Settings of a process that stores messages, or their files. */
export const messageSettings = {
  MESSAGE_RETENTION: duration({ min: 86_400_000, max: maxRetentionMs })
    .optional()
    .describe(
      'how long messages are kept, at least a day, with deliveries, history and attachments; for ever by default',
    ),
};

/** A batch is 500 pages of 8 KiB: one statement that takes a few milliseconds, so that it delays nothing else. */
const defaultWalk: SweepOptions = { batchSize: 500, everyMs: 600_000, pauseMs: 1_000 };

export interface ForgettingOptions {
  database: Pick<Database, 'sql'>;
  table: string;
  /** SQL condition for the rows to delete; `$3` is the current time minus the retention. Several processes may delete at once. */
  isOld: string;
  /** In milliseconds. */
  retention: number;
  log: Logger;
  /** How fast the table is scanned; a batch is a number of pages. */
  walk?: SweepOptions;
}

/**
 * Deletes old rows of a table that has no index on their times, since each insert would have to write to it: scans the table again and
 * again, some pages at a time. A row is deleted some minutes after its time, in a table of many gigabytes some hours.
 */
export function startForgetting(options: ForgettingOptions): Loop {
  const { database, table, isOld, retention, log, walk = defaultWalk } = options;
  let page = 0;
  let deleted = 0;
  return sweep(`The end of old rows of ${table}`, log, walk, async (pagesAtOnce) => {
    const [row] = await database.sql<{ deleted: bigint; pages: bigint }>(
      `with old as (
        delete from ${table} where ctid >= $1::tid and ctid < $2::tid and ${isOld} returning 1
      )
      select count(*) as deleted, pg_relation_size('${table}') / current_setting('block_size')::int as pages from old`,
      [`(${page},0)`, `(${page + pagesAtOnce},0)`, new Date(hubTime() - retention)],
    );
    deleted += Number(row!.deleted);
    page += pagesAtOnce;
    if (page < Number(row!.pages)) return pagesAtOnce;
    if (deleted > 0) log.info({ table, forgotten: deleted }, 'Rows deleted: their time is over');
    page = 0;
    deleted = 0;
    return 0;
  });
}

export interface OldRows {
  table: string;
  /** The column that identifies a row; `id` by default. */
  key?: string;
  /** SQL condition for the rows that are old at the time `$1`. */
  isOld: string;
  /** The column by which the oldest are deleted first. */
  oldestBy?: string;
}

/**
 * Deletes some old rows of a table that has an index on their times. Rows that another process is deleting are skipped.
 *
 * @returns how many rows were deleted: `maxRows` if there may be more
 */
export async function deleteOld(
  database: Pick<Database, 'sql'>,
  { table, key = 'id', isOld, oldestBy }: OldRows,
  until: Date,
  maxRows: number,
): Promise<number> {
  const order = oldestBy === undefined ? '' : `order by ${oldestBy}`;
  const rows = await database.sql(
    `delete from ${table} where ${key} in (
       select ${key} from ${table} where ${isOld} ${order} limit $2 for update skip locked
     ) returning 1`,
    [until, maxRows],
  );
  return rows.length;
}
