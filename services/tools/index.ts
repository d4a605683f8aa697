import { AccountRecordServiceService } from '#gen/chat4all/account/v1/account.ts';
import {
  MeteringServiceService,
  SubscriptionServiceService,
  ToolAdminServiceService,
  ToolServiceService,
  UsageServiceService,
} from '#gen/chat4all/tools/v1/tools.ts';
import { hubTime } from '#lib/clock.ts';
import { ConfigError, duration, integer, laptopSettings, text, type Config } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { repeat } from '#lib/loop.ts';
import { allowedHosts, laptopHosts, openEndpoints } from '#lib/public-endpoint.ts';
import { Places } from '#lib/rpc/places.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { openCatalog } from './catalog/catalog.ts';
import { openCircuits } from './invocations/circuits.ts';
import { openExpectations } from './usage/expectations.ts';
import {
  adminChecks,
  adminHandlers,
  meteringHandlers,
  subscriptionHandlers,
  toolHandlers,
  usageChecks,
  usageHandlers,
} from './handlers.ts';
import { openInvocations } from './invocations/invocation.ts';
import { openLedger } from './usage/ledger.ts';
import { openMetering } from './usage/metering.ts';
import { openOutbox } from './outbox.ts';
import { readPlans } from './subscriptions/plans.ts';
import { seed } from './catalog/seeds.ts';
import { database } from './database.ts';
import { openSubscriptions } from './subscriptions/subscriptions.ts';
import { openUpstream, ToolFailure } from './invocations/upstream.ts';
import { openUsage } from './usage/usage.ts';

const second = 1_000;
const day = 86_400_000;

export const settings = {
  ...serviceSettings,
  ...laptopSettings,
  PLANS_FILE: text()
    .optional()
    .describe('JSON file with the plans free, pro and enterprise; not set, they are the built-in ones'),
  PLAN_PERIOD: duration({ min: second, max: 3_660 * day })
    .default(30 * day)
    .describe('how long a period of a subscription is, after which the counter of its tokens starts again'),
  TOOL_TIMEOUT: duration({ min: 100, max: 300 * second })
    .default(30 * second)
    .describe('how long a tool may take to answer, all tries together'),
  TOOL_RESPONSE_LIMIT: integer({ min: 1, max: 4 * 1024 * 1024 - 65_536 })
    .default(1024 * 1024)
    .describe('bytes that the answer of a tool may have'),
  TOOL_CIRCUIT_RESET: duration({ min: 100, max: day })
    .default(60 * second)
    .describe('how long a tool is left alone that has failed five times in a row'),
  TOOL_ALLOWED_HOSTS: allowedHosts()
    .optional()
    .describe(
      'hosts, IP addresses and networks where tools may be though they are not public, with commas between them; with LAPTOP_MODE=true 127.0.0.0/8,::1 if it is not set',
    ),
  DEMO_TOOLS_URL: text()
    .refine((url) => /^https?:$/.test(URL.parse(url)?.protocol ?? ''), 'must be an http or https URL')
    .optional()
    .describe('where tools to try answer, which the service then has: with LAPTOP_MODE=true only'),
};

/** How much longer a call may take than its tool, for everything around it. */
const settlingTimeMs = 10 * second;
const expiredPause = 2 * second;
/** How far back the usage of a tool's calls is used to estimate that of the next one. */
const memory = 30 * day;

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  if (config.DEMO_TOOLS_URL !== undefined && !config.LAPTOP_MODE) {
    throw new ConfigError(['DEMO_TOOLS_URL makes tools that nobody asked for: it needs LAPTOP_MODE=true']);
  }
  const plans = readPlans(config.PLANS_FILE);
  return startService({ name: 'tools', config, log, database }, async ({ db, own, onStop, connect, serve }) => {
    const accounts = connect(AccountRecordServiceService, 'auth', config.AUTH_ADDRESS);

    const catalog = openCatalog(db);
    const subscriptions = openSubscriptions(db, config.PLAN_PERIOD);
    const usage = openUsage(db);
    const ledger = openLedger(db, {
      plans,
      period: config.PLAN_PERIOD,
      lifetime: config.TOOL_TIMEOUT + settlingTimeMs,
    });
    if (config.DEMO_TOOLS_URL !== undefined) await seed({ catalog, subscriptions, url: config.DEMO_TOOLS_URL });

    const outbox = own(openOutbox(db, { accounts, log }));
    const expiry = repeat('ending calls that nobody ended', log, async () => {
      return (await ledger.expire()) > 0 ? 0 : expiredPause;
    });
    onStop(() => expiry.stop());
    const endpoints = openEndpoints(config.TOOL_ALLOWED_HOSTS ?? (config.LAPTOP_MODE ? laptopHosts : []));
    const upstream = own(openUpstream({ timeout: config.TOOL_TIMEOUT, responseLimit: config.TOOL_RESPONSE_LIMIT }));
    const expectations = openExpectations((toolId) => ledger.maxTokens(toolId, new Date(hubTime() - memory)));
    const metering = openMetering({ ledger, catalog, expectations, maxWaitMs: config.TOOL_TIMEOUT });
    const invocations = own(
      openInvocations({
        ledger,
        catalog,
        expectations,
        circuits: openCircuits(config.TOOL_CIRCUIT_RESET, (error) => error instanceof ToolFailure),
        endpoints,
        upstream,
        places: new Places(config.GRPC_CONCURRENCY, log),
        maxWaitMs: config.TOOL_TIMEOUT,
      }),
    );

    return serve([
      service(ToolServiceService, toolHandlers({ catalog, invocations })),
      service(MeteringServiceService, meteringHandlers(metering)),
      service(UsageServiceService, usageHandlers(usage), usageChecks),
      service(SubscriptionServiceService, subscriptionHandlers({ subscriptions, plans, outbox })),
      service(
        ToolAdminServiceService,
        adminHandlers({ catalog, usage, subscriptions, outbox, accounts }),
        adminChecks(endpoints),
      ),
    ]);
  });
}
