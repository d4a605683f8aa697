import test, { type ExecutionContext } from 'ava';
import pg from 'pg';
import { openHarness, serviceNames } from './harness.ts';
import { opened } from './opened.ts';

/**
 * Each role × each schema of the database, by what PostgreSQL really lets a connection do. What counts is that nobody
 * gets at what is another's: whoever breaks into one service has that service's rows, and no others.
 */

const harness = opened(openHarness, (harness) => harness.stop());

/** By the name of the role, which is that of its schema, too. */
const roles = [...serviceNames, 'bus'];
const denied = '42501';

/** Runs one statement as a role, and takes back what it did. @returns the SQLSTATE of its failure, or 'done' */
async function attempt(client: pg.Client, statement: string): Promise<string> {
  await client.query('begin');
  try {
    await client.query(statement);
    return 'done';
  } catch (error) {
    return (error as pg.DatabaseError).code ?? String(error);
  } finally {
    await client.query('rollback');
  }
}

async function connectAs(t: ExecutionContext, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000, statement_timeout: 10_000 });
  await client.connect();
  t.teardown(() => client.end());
  return client;
}

/** Everything in a schema that rows can be read from, as the superuser sees it. */
async function relationsOf(admin: pg.Client, schema: string): Promise<{ relations: string[]; functions: string[] }> {
  const { rows } = await admin.query<{ kind: string; name: string }>(
    `select relkind as kind, format('%I.%I', nspname, relname) as name
       from pg_class join pg_namespace on pg_namespace.oid = relnamespace
      where nspname = $1 and relkind in ('r', 'p', 'v', 'm', 'S')`,
    [schema],
  );
  const functions = await admin.query<{ name: string }>(
    `select format('%I.%I', nspname, proname) as name from pg_proc join pg_namespace on pg_namespace.oid = pronamespace
      where nspname = $1`,
    [schema],
  );
  return { relations: rows.map(({ name }) => name), functions: functions.rows.map(({ name }) => name) };
}

for (const role of roles) {
  for (const other of roles.filter((each) => each !== role)) {
    test(`the role of ${role} gets at nothing of ${other}`, async (t) => {
      const admin = await connectAs(t, harness.adminDatabaseUrl);
      const client = await connectAs(t, harness.databaseUrl(role));
      const { relations, functions } = await relationsOf(admin, other);
      t.true(relations.length > 0, `${other} has tables`);
      for (const name of relations) {
        t.is(await attempt(client, `select * from ${name} limit 1`), denied, `select from ${name}`);
        t.is(await attempt(client, `delete from ${name}`), denied, `delete from ${name}`);
        t.is(await attempt(client, `lock table ${name} in access share mode`), denied, `lock ${name}`);
      }
      for (const name of functions) t.is(await attempt(client, `select ${name}()`), denied, `call ${name}`);
      t.is(await attempt(client, `create table ${other}.mine (id int)`), denied, 'create');
      t.is(await attempt(client, `create function ${other}.mine() returns int language sql as 'select 1'`), denied);
      t.is(await attempt(client, `drop schema ${other} cascade`), denied, 'drop');
      t.is(await attempt(client, `grant usage on schema ${other} to public`), denied, 'grant');
      t.is(await attempt(client, `set role chat4all_${other}`), denied, 'set role');
      t.is(await attempt(client, `alter role chat4all_${other} password 'mine'`), denied, 'password');
      t.is(await attempt(client, `grant chat4all_${other} to chat4all_${role}`), denied, 'membership');
    });
  }

  test(`the role of ${role} may do what is its own, and nothing to the database as a whole`, async (t) => {
    const admin = await connectAs(t, harness.adminDatabaseUrl);
    const client = await connectAs(t, harness.databaseUrl(role));
    for (const name of (await relationsOf(admin, role)).relations) {
      t.is(await attempt(client, `select * from ${name} limit 1`), 'done', name);
    }
    const [found] = (
      await admin.query(
        `select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls,
                (select count(*)::int from pg_auth_members where member = pg_roles.oid) as memberships
           from pg_roles where rolname = $1`,
        [`chat4all_${role}`],
      )
    ).rows as object[];
    t.deepEqual(found, {
      rolsuper: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      rolbypassrls: false,
      memberships: 0,
    });
    t.is(await attempt(client, 'create table public.mine (id int)'), denied, 'create in public');
    t.is(await attempt(client, 'create schema mine'), denied, 'create schema');
    t.is(await attempt(client, 'create role mine'), denied, 'create role');
    t.is(await attempt(client, 'create extension dblink'), denied, 'create extension');
    t.is(await attempt(client, 'set role postgres'), denied, 'set role');
    t.is(await attempt(client, "copy (select 1) to program 'true'"), denied, 'programs');
    t.is(await attempt(client, "select pg_read_file('/etc/hostname')"), denied, 'files');
    t.is(await attempt(client, 'select * from pg_authid'), denied, 'hashes of passwords');
  });
}
