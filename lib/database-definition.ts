import type { Constructor, EntitySchema } from '@mikro-orm/core';
import type { Migration } from '@mikro-orm/migrations';

/** The tables of a service, in a schema of its own that only its own role may use. */
export interface DatabaseDefinition {
  schema: string;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a schema is invariant in its entity
  entities: readonly EntitySchema<any>[];
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

export function ormOptions(definition: DatabaseDefinition, url: string, options: object = {}) {
  return {
    ...connectionTo(url, options),
    schema: definition.schema,
    entities: [...definition.entities],
    discovery: { warnWhenNoEntities: false },
    migrations: { tableName: 'migrations', snapshot: false },
    logger: () => {},
  };
}
