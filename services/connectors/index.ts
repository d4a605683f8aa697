import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import type { Config } from '#lib/config.ts';
import { databaseSettings, openDatabase } from '#lib/database.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { consumeDeliveries } from './events.ts';
import { handlers } from './handlers.ts';
import { installedConnectors } from './installed.ts';
import { database, openStore } from './store.ts';

export { database };

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...databaseSettings,
  ...busSettings,
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config);
  const connectors = await installedConnectors();
  const db = openDatabase(database, { url: config.DATABASE_URL, poolSize: config.DATABASE_POOL, name: 'connectors' });
  opened.defer(() => db.close());
  const bus = await openBus(config, { log, clientId: 'connectors' });
  opened.defer(() => bus.stop());
  const store = openStore(db);

  const server = await serve({
    config,
    identities,
    log,
    services: [service(ConnectorsServiceService, handlers({ connectors, store }))],
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
