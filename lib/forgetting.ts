import { hubTime } from './clock.ts';
import { duration, longestRetention } from './config.ts';
import type { Database } from './database.ts';
import type { Logger } from './log.ts';
import { repeat, type Loop } from './loop.ts';

/** Settings of a process that has effects, each once. */
export const effectSettings = {
  EFFECT_RETENTION: duration({ min: 86_400_000, max: longestRetention })
    .default(7 * 86_400_000)
    .describe('how long it is known what was routed and delivered, at least a day: longer than DELIVERY_DEADLINE'),
};

/** Settings of a process that keeps messages, or files for them. */
export const messageSettings = {
  MESSAGE_RETENTION: duration({ min: 86_400_000, max: longestRetention })
    .optional()
    .describe(
      'how long messages are kept, at least a day, with deliveries, history and attachments; for ever by default',
    ),
};

/** Pages of 8 KiB that are looked at by one statement: some milliseconds of work, of which nothing else notices. */
const pagesAtOnce = 500;
/** Milliseconds from one of them to the next, and from one walk through the table to the next. */
const usual = { step: 1_000, walk: 600_000 };

export interface ForgettingOptions {
  database: Pick<Database, 'sql'>;
  table: string;
  /** Which rows go, in SQL: those of which `$3`, a time, says that they are old. Two or more at once don't get in each other's way. */
  isOld: string;
  /** Milliseconds before now: that time. */
  retention: number;
  log: Logger;
  pauses?: typeof usual;
}

/**
 * Deletes old rows of a table, for tables from which nobody reads by time: walks through it again and again, some pages at a time, so
 * that it needs no index, which each new row would have to be written to. A row goes some minutes after its time, in a table of many
 * gigabytes some hours.
 */
export function startForgetting(options: ForgettingOptions): Loop {
  const { database, table, isOld, retention, log, pauses = usual } = options;
  let page = 0;
  let forgotten = 0;
  return repeat(`The end of old rows of ${table}`, log, async () => {
    const [row] = await database.sql<{ deleted: bigint; pages: bigint }>(
      `with old as (
        delete from ${table} where ctid >= $1::tid and ctid < $2::tid and ${isOld} returning 1
      )
      select count(*) as deleted, pg_relation_size('${table}') / current_setting('block_size')::int as pages from old`,
      [`(${page},0)`, `(${page + pagesAtOnce},0)`, new Date(hubTime() - retention)],
    );
    forgotten += Number(row!.deleted);
    page += pagesAtOnce;
    if (page < Number(row!.pages)) return pauses.step;
    if (forgotten > 0) log.info({ table, forgotten }, 'Rows deleted: their time is over');
    page = 0;
    forgotten = 0;
    return pauses.walk;
  });
}

export interface OldRows {
  table: string;
  /** The column by which one row is told from another; `id` by default. */
  key?: string;
  /** Which rows go, in SQL: those of which `$1`, a time, says that they are old. */
  isOld: string;
  /** The column by which the oldest go first. */
  oldestBy?: string;
}

/**
 * Deletes some old rows of a table that has an index of their times. Rows that another process is just deleting are left to it.
 *
 * @returns how many they were: `most`, if there may be more
 */
export async function deleteOld(
  database: Pick<Database, 'sql'>,
  { table, key = 'id', isOld, oldestBy }: OldRows,
  until: Date,
  most: number,
): Promise<number> {
  const order = oldestBy === undefined ? '' : `order by ${oldestBy}`;
  const rows = await database.sql(
    `delete from ${table} where ${key} in (
       select ${key} from ${table} where ${isOld} ${order} limit $2 for update skip locked
     ) returning 1`,
    [until, most],
  );
  return rows.length;
}
