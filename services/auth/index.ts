import { availableParallelism } from 'node:os';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConfigError, duration, integer, laptopSettings, list, type Config } from '#lib/config.ts';
import { databaseSettings, openDatabase } from '#lib/database.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { failuresCountFrom } from './auth.ts';
import { openHandlers } from './handlers.ts';
import { openPasswords, type Passwords } from './passwords.ts';
import { database, openStore, type Store } from './store.ts';
import { openTurns } from './turns.ts';

export { database };

const hour = 3_600_000;

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...databaseSettings,
  ...laptopSettings,
  TOKEN_TTL: duration({ min: hour, max: 365 * 24 * hour })
    .default(hour)
    .describe('how long a token is valid; at least an hour'),
  BCRYPT_COST: integer({ min: 10, max: 15 })
    .default(12)
    .describe('log2 of the rounds that a password is hashed with; one more doubles the time of a login'),
  LOGIN_FAILURES: integer({ min: 1, max: 10_000 })
    .default(20)
    .describe('how often a login may fail for one username from one address before it is refused for a while'),
  LOGIN_FAILURES_PER_ADDRESS: integer({ min: 0, max: 1_000_000 })
    .default(500)
    .describe('how often logins may fail from one address, for all usernames together; 0 is no limit'),
  LOGIN_FAILURE_WINDOW: duration({ min: 1_000, max: 24 * hour })
    .default(hour / 4)
    .describe('how long a failed login counts'),
  SEED_USERS: integer({ min: 0, max: 100_000 })
    .default(0)
    .describe(
      'makes the users user1 to user<n> at the start, with the password password123: with LAPTOP_MODE=true only',
    ),
  ADMIN_USERS: list()
    .optional()
    .describe('usernames of the administrators, with commas between them; from the start on nobody else is one'),
};

const seedPassword = 'password123';
/** Hashing is done by libuv's four threads, as work on files and names is: one stays free for that. */
const hashesAtOnce = Math.min(availableParallelism(), 3);
/** At a quarter of a second for each, the last one waits as long as its caller does. Of one address about half may wait. */
const hashesWaiting = 64;
const sweep = { every: 60_000, batch: 1_000, pause: 100 };

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  if (config.SEED_USERS > 0 && !config.LAPTOP_MODE) {
    throw new ConfigError(['SEED_USERS makes users whose password everybody knows: it needs LAPTOP_MODE=true']);
  }
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config);
  const db = openDatabase(database, { url: config.DATABASE_URL, poolSize: config.DATABASE_POOL, name: 'auth' });
  opened.defer(() => db.close());
  const store = openStore(db);
  const passwords = openPasswords({ cost: config.BCRYPT_COST, highest: await store.highestCost() });
  const failureLimit = {
    failures: config.LOGIN_FAILURES,
    perAddress: config.LOGIN_FAILURES_PER_ADDRESS === 0 ? undefined : config.LOGIN_FAILURES_PER_ADDRESS,
    window: config.LOGIN_FAILURE_WINDOW,
  };

  await seed(store, passwords, config.SEED_USERS);
  await appoint(store, config.ADMIN_USERS ?? [], log);

  const handlers = openHandlers({
    store,
    identities,
    passwords,
    turns: openTurns({ atOnce: hashesAtOnce, waiting: hashesWaiting }),
    failureLimit,
    tokenLifetime: config.TOKEN_TTL,
  });
  const sweeping = repeat('sweeping away what has expired', log, async () => {
    const now = new Date();
    const sessions = await store.sweepSessions(now, sweep.batch);
    const failures = await store.sweepFailures(failuresCountFrom(now, failureLimit), sweep.batch);
    return Math.max(sessions, failures) === sweep.batch ? sweep.pause : sweep.every;
  });
  opened.defer(() => sweeping.stop());
  const server = await serve({
    config,
    identities,
    log,
    services: [service(AuthServiceService, handlers)],
    dependencies: { database: () => db.ping() },
  });
  opened.defer(() => server.stop());

  const everything = opened.move();
  return { port: server.port, retire: server.retire, stop: () => everything.disposeAsync() };
}

async function seed(store: Store, passwords: Passwords, count: number): Promise<void> {
  if (count === 0 || (await store.countMissingSeeds(count)) === 0) return;
  await store.seedUsers(count, await passwords.hash(seedPassword), new Date());
}

async function appoint(store: Store, usernames: readonly string[], log: Logger): Promise<void> {
  const missing = await store.appointAdmins(usernames);
  if (missing.length > 0) log.warn({ usernames: missing }, 'ADMIN_USERS names users that do not exist');
}
