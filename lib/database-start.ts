import { correctBy } from './clock.ts';
import { ConfigError, type Config } from './config.ts';
import { openDatabase, type Database, type databaseSettings } from './database.ts';
import type { DatabaseDefinition } from './database-definition.ts';
import { awaitEngine, placeOf } from './engines.ts';
import { HubError } from './errors.ts';
import { repeat } from './loop.ts';
import type { Logger } from './log.ts';
import { gauge } from './metrics.ts';

/** The database of a running service. */
export interface ServiceDatabase extends Database {
  /** The dependency checks for `serve`: that the database answers, and that the clocks agree. */
  readonly dependencies: Readonly<Record<'database' | 'clock', () => Promise<void>>>;
}

/**
 * Opens the database of a service that starts: waits for it, checks that the role and the schema are the service's own and that its code
 * can work on the schema, and follows the database's clock, which is the hub's (`lib/clock.ts`).
 *
 * @param name the service's name
 * @throws ConfigError if PostgreSQL refuses the role, or the role or the schema belongs to another service; StartError if PostgreSQL stays
 *   unavailable. Both name `DATABASE_URL`
 */
export async function startDatabase(
  definition: DatabaseDefinition,
  { config, name, log }: { config: Config<typeof databaseSettings>; name: string; log: Logger },
): Promise<ServiceDatabase> {
  const database = openDatabase(definition, { url: config.DATABASE_URL, poolSize: config.DATABASE_POOL, name });
  try {
    const ask = () => checkRole(database, definition.schema, log);
    const engine = { setting: 'DATABASE_URL', what: `PostgreSQL at ${placeOf(config.DATABASE_URL)}`, ask };
    await awaitEngine(engine, { log, patienceMs: config.START_PATIENCE });
    await database.requireSchema();
    const clock = await followClock(database, log);
    return {
      ...database,
      dependencies: { database: database.ping, clock: clock.check },
      async close() {
        await clock.stop();
        await database.close();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** @throws ConfigError if the schema is missing, or belongs to another role than the one in DATABASE_URL */
async function checkRole(database: Database, schema: string, log: Logger): Promise<void> {
  const [found] = await database.sql<{
    role: string;
    isSuperuser: boolean;
    owner: string | null;
    isMember: boolean | null;
  }>(
    `select r.rolname::text as role, r.rolsuper as "isSuperuser", o.rolname::text as owner,
            pg_has_role(r.oid, o.oid, 'USAGE') as "isMember"
       from pg_roles r
       left join pg_namespace n on n.nspname = $1
       left join pg_roles o on o.oid = n.nspowner
      where r.rolname = current_user`,
    [schema],
  );
  const { role, isSuperuser, owner, isMember } = found!;
  if (owner === null) {
    const problem = `leads to a database without the schema ${schema}: run the migrations first (bin/migrate.ts)`;
    throw new ConfigError([`DATABASE_URL ${problem}`]);
  }
  if (owner !== role && !isSuperuser && isMember !== true) {
    throw new ConfigError([`DATABASE_URL is of the role ${role}, but the schema ${schema} belongs to ${owner}`]);
  }
  if (isSuperuser) {
    log.warn(`DATABASE_URL is of the superuser ${role}: the service should have a role of its own, which ${owner} is`);
  } else if (owner !== role) {
    log.warn(`DATABASE_URL is of the role ${role}, which may do what ${owner} may, and more: it should be ${owner}`);
  }
}

const skew = gauge(
  'clock_skew_seconds',
  "By how much the clock of this process is ahead of the database's; negative if it is behind",
);

const lookEvery = 5_000;
const wrongFrom = 1_000;

/** Follows the clock of a database. Once the promise is fulfilled, the hub's time is right. */
async function followClock(
  database: Database,
  log: Logger,
): Promise<{ check(): Promise<void>; stop(): Promise<void> }> {
  let ahead = 0;
  const isWrong = () => Math.abs(ahead) >= wrongFrom;
  const said = () => `${(Math.abs(ahead) / 1_000).toFixed(1)} s ${ahead > 0 ? 'ahead of' : 'behind'}`;

  async function look(): Promise<void> {
    const asked = Date.now();
    const [row] = await database.sql<{ now: Date }>('select clock_timestamp() as now');
    const before = isWrong();
    ahead = correctBy(row!.now.getTime(), asked, Date.now());
    skew.set(ahead / 1_000);
    if (isWrong() && !before) {
      log.warn({ clock_skew_ms: ahead }, `The clock of this machine is ${said()} the database's, which counts: set it`);
    } else if (!isWrong() && before) {
      log.info({ clock_skew_ms: ahead }, "The clock of this machine is as the database's again");
    }
  }

  await look();
  const looking = repeat("The look at the database's clock", log, async () => {
    await look();
    return lookEvery;
  });
  return {
    async check() {
      if (!isWrong()) return;
      throw new HubError('UNAVAILABLE', 'CLOCK_SKEWED', `The clock of this machine is ${said()} the database's`);
    },
    stop: () => looking.stop(),
  };
}
