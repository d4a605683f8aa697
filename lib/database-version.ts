import { ConfigError } from './config.ts';
import type { DatabaseDefinition } from './database-definition.ts';

/** This code can't work on the schema as it is. The message is one line that tells an operator what to do. */
export class SchemaMismatch extends ConfigError {
  constructor(message: string) {
    super([]);
    this.name = 'SchemaMismatch';
    this.message = message;
  }
}

/** A row of the table `migrations`. */
export interface AppliedMigration {
  name: string;
  needs: string | null;
}

/** The column `needs` may not exist yet: it is added by the first migration that has needs. */
export const appliedMigrations = `select name, to_jsonb(m) ->> 'needs' as needs from migrations m order by id`;

/** SQLSTATE undefined_table. */
const undefinedTable = '42P01';

export function noneIfMissing(error: Error & { code?: string }): AppliedMigration[] {
  if (error.code === undefinedTable) return [];
  throw error;
}

/** @throws SchemaMismatch if the code of `definition` can't work on a schema on which these migrations have run */
export function requireFitting({ schema, migrations }: DatabaseDefinition, applied: readonly AppliedMigration[]): void {
  const known = new Set(migrations.map(({ name }) => name));
  const newer = applied.find(({ name, needs }) => !known.has(name) && needs !== null && !known.has(needs));
  if (newer !== undefined) {
    throw new SchemaMismatch(
      `The schema "${schema}" of DATABASE_URL is newer than this code: ${newer.name} needs code that knows ${newer.needs}. Start a newer version`,
    );
  }
  const done = new Set(applied.map(({ name }) => name));
  const missing = migrations.find(({ name }) => !done.has(name));
  if (missing === undefined) return;
  const found = applied.length === 0 ? 'has no tables' : 'is older than this code';
  throw new SchemaMismatch(
    `The schema "${schema}" of DATABASE_URL ${found}: ${missing.name} has not run. Run npm run migrate`,
  );
}
