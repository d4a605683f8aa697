import { availableParallelism } from 'node:os';
import {
  AccountRecordServiceService,
  AccountServiceService,
  UserAdminServiceService,
} from '#gen/chat4all/account/v1/account.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { IdentityServiceService } from '#gen/chat4all/identity/v1/identity.ts';
import { ConfigError, duration, integer, type Config } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { service } from '#lib/rpc/server.ts';
import { ownServiceSettings, startService } from '#lib/start.ts';
import { accountChecks, openAccountHandlers } from './accounts/account-handlers.ts';
import { openAccountRecordHandlers } from './accounts/account-record-handlers.ts';
import { accountSettings, checkAccountSettings, postOf } from './accounts/account-settings.ts';
import { foldCase } from './accounts/accounts.ts';
import { openHandlers } from './handlers.ts';
import { openHashing } from './logins/hashing.ts';
import { openIdentityHandlers } from './standings/identity-handlers.ts';
import { openKeyExchange } from './api-keys/key-exchange.ts';
import { openLogins } from './logins/logins.ts';
import { openMails } from './mails/mails.ts';
import { openPasswords } from './logins/passwords.ts';
import { openResets } from './mails/resets.ts';
import { appoint, seedAdmin, seedKnownUsers } from './accounts/seeds.ts';
import { openStandingFeed } from './standings/standing-feed.ts';
import { openStandings } from './standings/standings.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';
import { startSweeping } from './sweeping.ts';
import { openTokens } from './sessions/tokens.ts';
import { openTurns } from './logins/turns.ts';
import { openUserAdminHandlers, userAdminChecks } from './accounts/user-admin-handlers.ts';

const hour = 3_600_000;

export const settings = {
  ...ownServiceSettings,
  ...accountSettings,
  TOKEN_TTL: duration({ min: hour, max: 365 * 24 * hour })
    .default(hour)
    .describe('how long a token is valid; at least an hour'),
  BCRYPT_COST: integer({ min: 10, max: 15 })
    .default(12)
    .describe('log2 of the rounds that a password is hashed with; one more doubles the time of a login'),
  LOGIN_FAILURES: integer({ min: 1, max: 10_000 })
    .default(20)
    .describe('how often a login may fail for one user from one address before it is refused for a while'),
  LOGIN_FAILURES_PER_ADDRESS: integer({ min: 0, max: 1_000_000 })
    .default(500)
    .describe('how often logins may fail from one address, for all users together; 0 is no limit'),
  LOGIN_FAILURE_WINDOW: duration({ min: 1_000, max: 24 * hour })
    .default(hour / 4)
    .describe('how long a failed login counts'),
  REGISTRATIONS_PER_ADDRESS: integer({ min: 0, max: 1_000_000 })
    .default(100)
    .describe('how often accounts may be registered from one address within an hour; 0 is no limit'),
  SEED_USERS: integer({ min: 0, max: 100_000 })
    .default(0)
    .describe(
      'makes the users user1 to user<n> (user<n>@example.com) at the start, with the password password123, and the administrator admin@example.com: with LAPTOP_MODE=true only',
    ),
};

/** As many as there are processors: one more only makes each of them slower. Each has a thread of some 10 MiB. */
const hashesAtOnce = Math.min(availableParallelism(), 16);
/** Two more than there are threads: while a login reads or writes the database, another one keeps its thread busy. */
const loginsAtOnce = hashesAtOnce + 2;
/** At a quarter of a second for each, the last one waits as long as its caller does. Of one address about half may wait. */
const hashesWaiting = 64;
/** Milliseconds that a registration counts. */
const registrationWindow = hour;
/** Mails to choose a new password, for one email and for one address, within an hour. */
const resetLimits = { perEmail: 3, perAddress: 30, window: hour };

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  if (config.SEED_USERS > 0 && !config.LAPTOP_MODE) {
    throw new ConfigError(['SEED_USERS makes users whose password everybody knows: it needs LAPTOP_MODE=true']);
  }
  checkAccountSettings(config);
  return startService({ name: 'auth', config, log, database }, async ({ db, identities, own, onStop, serve }) => {
    const store = openStore(db);
    const hashing = own(openHashing({ threads: hashesAtOnce }));
    const passwords = openPasswords({ cost: config.BCRYPT_COST, highest: await store.highestCost(), hashing });
    const failureLimit = {
      failures: config.LOGIN_FAILURES,
      perAddress: config.LOGIN_FAILURES_PER_ADDRESS === 0 ? undefined : config.LOGIN_FAILURES_PER_ADDRESS,
      window: config.LOGIN_FAILURE_WINDOW,
    };

    const registrationLimit =
      config.REGISTRATIONS_PER_ADDRESS === 0
        ? undefined
        : { perAddress: config.REGISTRATIONS_PER_ADDRESS, window: registrationWindow };

    const seeding = { store, passwords, log };
    await seedKnownUsers(seeding, config.SEED_USERS);
    if (config.ADMIN_EMAIL !== undefined && config.ADMIN_PASSWORD !== undefined) {
      await seedAdmin(seeding, { email: config.ADMIN_EMAIL, password: config.ADMIN_PASSWORD });
    }
    const appointed = config.ADMIN_USERS ?? [];
    await appoint(seeding, appointed);

    const turns = openTurns({ atOnce: loginsAtOnce, waiting: hashesWaiting });
    const logins = openLogins({ store, passwords, turns, failureLimit });
    const lifetimes = { access: config.ACCESS_TOKEN_TTL, refresh: config.REFRESH_TOKEN_TTL };
    const tokens = openTokens({ store, identities, lifetimes });
    const mails = own(openMails({ store, log, post: postOf(config) }));
    const resets = own(
      openResets({
        store,
        log,
        url: config.RESET_URL,
        lifetime: config.RESET_TOKEN_TTL,
        limits: resetLimits,
        written: () => mails.wake(),
      }),
    );
    const standings = openStandings(db);
    own(
      startSweeping({
        store,
        standings,
        log,
        failureLimit,
        tokenLifetimes: [config.TOKEN_TTL, config.ACCESS_TOKEN_TTL],
        kept: {
          refreshTokens: config.REFRESH_TOKEN_TTL,
          registrations: registrationWindow,
          resetRequests: resetLimits.window,
          auditEvents: config.AUDIT_RETENTION,
        },
      }),
    );
    const reserved = new Set(appointed.map(foldCase));
    const exchange = openKeyExchange(store);
    const feed = own(openStandingFeed({ standings, log }));
    const server = await serve(
      [
        service(AuthServiceService, openHandlers({ store, logins, tokens, tokenLifetime: config.TOKEN_TTL })),
        service(
          AccountServiceService,
          openAccountHandlers({ store, logins, tokens, passwords, turns, resets, reserved, registrationLimit }),
          accountChecks,
        ),
        service(UserAdminServiceService, openUserAdminHandlers({ store }), userAdminChecks),
        service(AccountRecordServiceService, openAccountRecordHandlers({ store })),
        service(IdentityServiceService, openIdentityHandlers({ exchange, feed })),
      ],
      { authority: { exchange, changesAfter: feed.after, close: () => {} } },
    );
    // Before the server: whoever waits there would keep it from stopping.
    onStop(() => feed.stop());
    // Not waited for here: a mail that goes slowly takes none of the time that calls have to end.
    onStop(() => void mails.stop());

    return server;
  });
}
