import { z } from 'zod';
import { ConnectorsServiceService, SimulationServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { ConfigError, type Config } from '#lib/config.ts';
import { databaseSettings, openDatabase } from '#lib/database.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { authoritySettings, connectAuthority } from '#lib/rpc/authority.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { tellsLater, type Connector } from './connector.ts';
import { consumeDeliveries } from './events.ts';
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
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config, log);
  const installed = await installedConnectors();
  const mocks = installed.filter(isMock);
  const configured = config.PROVIDER_PROFILES ?? new Map();
  const unknown = [...configured.keys()].filter((channel) => !mocks.some(({ name }) => name === channel));
  if (unknown.length > 0) {
    throw new ConfigError([`PROVIDER_PROFILES names no simulated channel with ${unknown.join(', ')}`]);
  }
  const db = openDatabase(database, { url: config.DATABASE_URL, poolSize: config.DATABASE_POOL, name: 'connectors' });
  opened.defer(() => db.close());
  const bus = await openBus(config, { log, clientId: 'connectors' });
  opened.defer(() => bus.stop());
  const store = openStore(db);
  const records = openProviderRecords(db);
  const simulation = await openSimulation({ networks: mocks, configured, records, log });
  opened.defer(() => simulation.stop());
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
      service(ConnectorsServiceService, handlers({ connectors, store })),
      service(
        SimulationServiceService,
        simulationHandlers({ simulation, records, channels: mocks.map(({ name }) => name), log }),
      ),
    ],
    dependencies: { database: db.ping, bus: bus.probe },
  });
  opened.defer(() => server.stop());

  opened.defer(async () => void (await Promise.all(connectors.map((connector) => connector.stop()))));
  await Promise.all(connectors.map((connector) => connector.start()));
  const consumers = await Promise.all(connectors.map((connector) => consumeDeliveries({ bus, connector, store, log })));
  opened.defer(async () => void (await Promise.all(consumers.map((consumer) => consumer.stop()))));

  const everything = opened.move();
  return { port: server.port, retire: server.retire, stop: () => everything.disposeAsync() };
}

/** A mock delivers to what this process simulates; any other connector to its own network. */
function connected(connector: Connector, simulation: Simulation): Connector {
  return isMock(connector) ? connector.simulatedBy(simulation.provider(connector.name)) : connector;
}
