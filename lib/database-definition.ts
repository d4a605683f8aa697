import type { Constructor, EntitySchema } from '@mikro-orm/core';
import type { Migration } from '@mikro-orm/migrations';
import type { MikroORM } from '@mikro-orm/postgresql';
import type { Pool } from 'pg';

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- a schema is invariant in its entity
export type Entities = readonly EntitySchema<any>[];

/** The tables of a service, in a schema of its own that only its own role may use. */
export interface DatabaseDefinition {
  schema: string;
  /** Imports the entities. Only a process that migrates, or uses an entity manager, loads them and MikroORM. */
  entities?: () => Promise<{ entities: Entities }>;
  /** In the order in which they run. */
  migrations: readonly SchemaMigration[];
}

/**
 * A migration of a schema. Processes of the previous version keep working on the result (expand), so it removes nothing that they use: no
 * column, no default, no constraint that an `on conflict` names. What no code uses any more is removed one version later (contract).
 *
 * A migration that isn't transactional (`isTransactional`), for `create index concurrently`, starts over after a failure: each of its
 * statements must be repeatable.
 */
export interface SchemaMigration {
  /** Recorded in the table `migrations` of the schema once the migration has run. */
  name: string;
  /** Imports the migration. Only a process that migrates loads the migrator. */
  load: () => Promise<Constructor<Migration>>;
  /** For a migration that removes something: the newest migration that code must know to work on the resulting schema. */
  needs?: string;
}

/** MikroORM reads only the host, the database and the role from a URL; the other parameters, such as `sslmode`, are passed to pg. */
export function connectionTo(url: string, options: object = {}) {
  return { clientUrl: url, driverOptions: { ...options, connectionString: url } };
}

/** The options of a MikroORM for `definition`, without those of its connection. */
export async function ormOptions(definition: DatabaseDefinition) {
  const { entities = [] } = (await definition.entities?.()) ?? {};
  return {
    schema: definition.schema,
    entities: [...entities],
    discovery: { warnWhenNoEntities: false },
    migrations: { tableName: 'migrations', snapshot: false },
    logger: () => {},
  };
}

/** Loads MikroORM and the entities, for work with them on the connections of `pool`. `url` is that of the pool. */
export async function openEntities(
  definition: DatabaseDefinition,
  { url, pool }: { url: string; pool: Pool },
): Promise<MikroORM> {
  const [orm, { PostgresDialect }, options] = await Promise.all([
    import('@mikro-orm/postgresql'),
    import('kysely'),
    ormOptions(definition),
  ]);
  return new orm.MikroORM({ ...options, clientUrl: url, driverOptions: new PostgresDialect({ pool }) });
}
