import { z } from 'zod';
import { ConnectorsServiceService, SimulationServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { ConfigError, duration, integer, type Config } from '#lib/config.ts';
import { startDatabase } from '#lib/database-start.ts';
import { databaseSettings } from '#lib/database.ts';
import { effectSettings } from '#lib/forgetting.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { authoritySettings, connectAuthority } from '#lib/rpc/authority.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { tellsLater, type Connector } from './connector.ts';
import { consumeDeliveries } from './events.ts';
import { forgetDeliveries } from './forgetting.ts';
import { watchParked } from './lanes.ts';
import { watchLoads } from './load.ts';
import { handlers, simulationHandlers } from './handlers.ts';
import { installedConnectors } from './installed.ts';
import { isMock } from './mock.ts';
import { openSimulation, type Simulation } from './provider.ts';
import { openProviderRecords } from './provider-records.ts';
import { receiving } from './receipts.ts';
import { database, openStore } from './store.ts';
import { readProfiles } from './wire.ts';

export { database };

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...authoritySettings,
  ...databaseSettings,
  ...busSettings,
  ...effectSettings,
  PROVIDER_PROFILES: z
    .string()
    .transform((text, context) => {
      try {
        return readProfiles(text);
      } catch (error) {
        context.addIssue((error as Error).message);
        return z.NEVER;
      }
    })
    .optional()
    .describe('how simulated networks behave, as JSON: {"<channel>": {"rate_limit": 80, …}, …}'),
  DELIVERY_ATTEMPT_TIMEOUT: duration({ min: 100, max: 60_000 })
    .default(10_000)
    .describe('how long a network may take to answer; then the delivery waits, and is tried again'),
  DELIVERIES_AT_ONCE: integer({ min: 1, max: 10_000 })
    .default(128)
    .describe(
      'the most calls of one process to one network at once, of what comes over the bus; half as many of what waits',
    ),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config, { service: 'connectors', log });
  const installed = await installedConnectors();
  const mocks = installed.filter(isMock);
  const configured = config.PROVIDER_PROFILES ?? new Map();
  const unknown = [...configured.keys()].filter((channel) => !mocks.some(({ name }) => name === channel));
  if (unknown.length > 0) {
    throw new ConfigError([`PROVIDER_PROFILES names no simulated channel with ${unknown.join(', ')}`]);
  }
  const db = await startDatabase(database, { config, name: 'connectors', log });
  opened.defer(() => db.close());
  const bus = await openBus(config, { log, clientId: 'connectors', publishes: ['message_status'] });
  opened.defer(() => bus.stop());
  const store = openStore(db);
  const records = openProviderRecords(db);
  const forgetting = forgetDeliveries({ database: db, retention: config.EFFECT_RETENTION, log });
  opened.defer(() => forgetting.stop());
  const simulation = await openSimulation({ networks: mocks, configured, records, log });
  opened.defer(() => simulation.stop());
  const loads = watchLoads({ channels: installed.map(({ name }) => name), store, lag: bus.lag, log });
  opened.defer(() => loads.stop());
  const connectors = installed.map((connector) => connected(connector, simulation));
  for (const connector of connectors.filter(tellsLater)) {
    connector.onReceipts(receiving({ connector, store, publish: bus.publish, log }));
  }

  const server = await serve({
    config,
    identities,
    authority: connectAuthority({ config, identities }),
    log,
    services: [
      service(ConnectorsServiceService, handlers({ connectors, store, loads })),
      service(
        SimulationServiceService,
        simulationHandlers({ simulation, records, channels: mocks.map(({ name }) => name), log }),
      ),
    ],
    dependencies: { ...db.dependencies, bus: bus.probe },
  });
  opened.defer(() => server.stop());

  opened.defer(async () => void (await Promise.all(connectors.map((connector) => connector.stop()))));
  await Promise.all(connectors.map((connector) => connector.start()));
  const { DELIVERY_ATTEMPT_TIMEOUT: timeout, DELIVERIES_AT_ONCE: atOnce } = config;
  const consumers = await Promise.all(
    connectors.map((connector) => consumeDeliveries({ bus, connector, store, log, timeout, atOnce, loads })),
  );
  opened.defer(watchParked(store));
  opened.defer(async () => void (await Promise.all(consumers.map((consumer) => consumer.stop()))));

  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}

/** A mock delivers to what this process simulates; any other connector to its own network. */
function connected(connector: Connector, simulation: Simulation): Connector {
  return isMock(connector) ? connector.simulatedBy(simulation.provider(connector.name)) : connector;
}
