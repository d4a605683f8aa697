import type { Constructor, EntitySchema } from '@mikro-orm/core';
import type { Migration } from '@mikro-orm/migrations';

/** What a service keeps, in a schema of its own that only its own role may use. */
export interface DatabaseDefinition {
  schema: string;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- a schema is invariant in its entity
  entities: readonly EntitySchema<any>[];
  /** In the order in which they run. */
  migrations: readonly SchemaMigration[];
}

/**
 * One step of a schema. The processes of the version before go on with what it makes (expand), so it takes nothing away that they use:
 * no column, no default, no constraint that an `on conflict` names. What nothing uses any more goes a version later (contract).
 *
 * One that isn't transactional (`isTransactional`), for `create index concurrently`, is begun anew after a failure: each of its
 * statements may be repeated.
 */
export interface SchemaMigration {
  /** Stands in the table `migrations` of the schema once it has run. */
  name: string;
  /** Imports the migration, and with it the migrator: only a process that migrates pays for that. */
  load: () => Promise<Constructor<Migration>>;
  /** Of one that takes something away: the name of the migration that code must know at least to run on the schema from now on. */
  needs?: string;
}

/** MikroORM takes the host, the name and the role out of a URL; the rest of it, `sslmode` above all, is for pg itself. */
export function connectionTo(url: string, options: object = {}) {
  return { clientUrl: url, driverOptions: { ...options, connectionString: url } };
}

/** Options of MikroORM for the database of a service. */
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
