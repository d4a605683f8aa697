import type pg from 'pg';

/** A column of a table. */
interface Column {
  type: string;
  isRequired: boolean;
  /** What it gets where an insert doesn't say it; null if that is nothing. */
  fallback: string | null;
}

/** What code that works on a schema can go by. */
export interface Catalogue {
  /** By table and column: `messages.seq`. */
  columns: ReadonlyMap<string, Column>;
  /** What has to be unique, as PostgreSQL describes it without its name: an `on conflict` names just that. */
  unique: ReadonlySet<string>;
  /** Foreign keys, with what they do to rows. */
  references: ReadonlySet<string>;
  /** What rows are refused for beside that. */
  checks: ReadonlySet<string>;
}

/** Reads what there is in a schema, as whoever owns it sees it. */
export async function readCatalogue(client: pg.Client, schema: string): Promise<Catalogue> {
  const all = async <Row extends pg.QueryResultRow>(text: string) => (await client.query<Row>(text, [schema])).rows;
  const columns = await all<Column & { name: string }>(
    `select c.relname || '.' || a.attname as name,
        format_type(a.atttypid, a.atttypmod) || coalesce(' collate ' || l.collname, '') as type, a.attnotnull as "isRequired",
        coalesce(pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity::text, '')) as fallback
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
       left join pg_collation l on l.oid = a.attcollation and l.collname <> 'default'
      where c.relnamespace = $1::regnamespace and c.relkind = 'r' and c.relname <> 'migrations'`,
  );
  const unique = await all<{ table: string; definition: string }>(
    `select c.relname || ' ' || regexp_replace(pg_get_indexdef(i.indexrelid), '^.*? USING ', '') as definition
       from pg_index i join pg_class c on c.oid = i.indrelid
      where c.relnamespace = $1::regnamespace and i.indisunique and i.indisvalid and c.relname <> 'migrations'`,
  );
  const constraints = await all<{ isReference: boolean; definition: string }>(
    `select n.contype = 'f' as "isReference", c.relname || ' ' || pg_get_constraintdef(n.oid) as definition
       from pg_constraint n join pg_class c on c.oid = n.conrelid
      where c.relnamespace = $1::regnamespace and n.contype in ('c', 'f', 'x')`,
  );
  const those = (isReference: boolean) =>
    new Set(constraints.filter((each) => each.isReference === isReference).map(({ definition }) => definition));
  return {
    columns: new Map(columns.map(({ name, ...column }) => [name, column])),
    unique: new Set(unique.map(({ definition }) => definition)),
    references: those(true),
    checks: those(false),
  };
}

/**
 * What code that works on a schema as it was `before` can't go on with `after`, a line for each.
 *
 * @param unused what that code doesn't use any more: a column (`messages.seq`), or what was unique or referred to, as it is described
 */
export function breaches(before: Catalogue, after: Catalogue, unused: readonly string[] = []): string[] {
  const found: string[] = [];
  const tables = new Set([...before.columns.keys()].map(tableOf));
  for (const [name, was] of before.columns) {
    const is = after.columns.get(name);
    if (is === undefined) {
      if (!unused.includes(name)) found.push(`${name} is gone`);
      continue;
    }
    if (is.type !== was.type) found.push(`${name} was ${was.type} and is ${is.type}`);
    if (is.isRequired && !was.isRequired) found.push(`${name} may not be null any more`);
    if (was.fallback !== null && is.fallback === null) found.push(`${name} has lost its default`);
  }
  for (const [name, { isRequired, fallback }] of after.columns) {
    const isNew = tables.has(tableOf(name)) && !before.columns.has(name);
    if (isNew && isRequired && fallback === null) found.push(`${name} is required and has no default`);
  }
  for (const kind of ['unique', 'references'] as const) {
    for (const each of before[kind]) {
      if (!after[kind].has(each) && !unused.includes(each)) found.push(`there is no more: ${each}`);
    }
  }
  for (const kind of ['unique', 'references', 'checks'] as const) {
    for (const each of after[kind]) {
      const isOfBefore = tables.has(each.split(' ')[0]!);
      if (isOfBefore && !before[kind].has(each))
        found.push(`rows are refused for what they were not refused for: ${each}`);
    }
  }
  return found;
}

function tableOf(column: string): string {
  return column.split('.')[0]!;
}
