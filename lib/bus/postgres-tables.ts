import type pg from 'pg';

/** The schema of the bus on PostgreSQL. */
export const schema = 'bus';

/**
 * Created by the first process that opens the bus. Tables whose rows change all the time have free space in their pages (fillfactor), so
 * that updates need not touch the indexes (HOT).
 */
const tables = `
  create table if not exists ${schema}.partitions (
    topic text, partition int, last bigint not null default 0, primary key (topic, partition)
  ) with (fillfactor = 50);
  create table if not exists ${schema}.events (
    topic text, partition int, "offset" bigint, id text not null, type text not null, key text not null, value bytea not null,
    request_id text not null, dead_letter jsonb,
    primary key (topic, partition, "offset")
  ) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 1);
  create table if not exists ${schema}.progress (
    topic text, consumer_group text, partition int, next bigint not null, owner uuid, epoch bigint not null default 0,
    leased_until timestamptz not null default '-infinity',
    primary key (topic, consumer_group, partition)
  ) with (fillfactor = 50);
  create table if not exists ${schema}.consumers (
    topic text, consumer_group text, owner uuid, seen_until timestamptz not null,
    primary key (topic, consumer_group, owner)
  ) with (fillfactor = 50)`;

/**
 * Migrates from pg-boss, on which the bus was built before: events that not all groups have acknowledged are copied in their order, and its
 * tables are dropped. A group may see events again that it had acknowledged.
 */
const takeOver = `
  do $$
  declare
    statement text;
  begin
    if to_regclass('${schema}.job_common') is null then
      return;
    end if;
    insert into ${schema}.events (topic, partition, "offset", id, type, key, value, request_id, dead_letter)
      select topic, partition, row_number() over (partition by topic, partition order by created_on, job, place),
          event->>'id', event->>'type', event->>'key', decode(event->>'value', 'base64'), event->>'requestId',
          event->'deadLetter'
        from (
          select distinct on (topic, event->>'id') * from (
            select split_part(j.name, '/', 1) as topic, j.singleton_key::int as partition, j.created_on, j.id as job, e.*
              from ${schema}.job_common j, jsonb_array_elements(j.data->'events') with ordinality as e (event, place)
             where j.state < 'completed'
          ) as stored order by topic, event->>'id', created_on, job, place
        ) as waiting;
    insert into ${schema}.partitions (topic, partition, last)
      select topic, partition, max("offset") from ${schema}.events group by topic, partition;
    for statement in
      select format('drop table if exists %s cascade', oid::regclass) from pg_class
       where relnamespace = '${schema}'::regnamespace and relkind in ('r', 'p')
         and relname not in ('partitions', 'events', 'progress', 'consumers')
      union all
      select format('drop function if exists %s cascade', oid::regprocedure) from pg_proc
       where pronamespace = '${schema}'::regnamespace
      union all
      select format('drop type if exists %s cascade', oid::regtype) from pg_type
       where typnamespace = '${schema}'::regnamespace and typtype = 'e'
    loop
      execute statement;
    end loop;
  end $$`;

/** SQL for the offset of a partition's first event that is still stored, or of its next one if there is none. */
export function firstOf(partition: string): string {
  return `coalesce((select min("offset") from events e
    where e.topic = ${partition}.topic and e.partition = ${partition}.partition), ${partition}.last + 1)`;
}

/** Creates the tables that are missing, if the role may. */
export async function makeTables(pool: pg.Pool): Promise<void> {
  const { rows } = await pool.query(`select 1 from pg_namespace where nspname = $1`, [schema]);
  if (rows.length === 0) await pool.query(`create schema if not exists ${schema}`);
  // Processes that start together would collide in the system catalogue. Several statements in one query run as one transaction.
  await pool.query(`select pg_advisory_xact_lock(hashtext('${schema} tables')); ${tables}; ${takeOver}`);
}
