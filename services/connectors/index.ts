import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { topics } from '#gen/events.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { duration, integer, type Config } from '#lib/config.ts';
import { effectSettings } from '#lib/forgetting.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { tellsLater } from './connector.ts';
import { database } from './database.ts';
import { consumeDeliveries } from './events.ts';
import { forgetDeliveries } from './forgetting.ts';
import { watchParked } from './lanes.ts';
import { watchLoads } from './load.ts';
import { handlers } from './handlers.ts';
import { installedConnectors } from './installed.ts';
import { receiving } from './receipts.ts';
import { findSimulated, simulationSettings, startSimulation } from './simulation/registration.ts';
import { openStore } from './store.ts';

export const settings = {
  ...serviceSettings,
  ...busSettings,
  ...effectSettings,
  ...simulationSettings,
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
  const installed = await installedConnectors();
  const networks = findSimulated(installed, config);
  return startService({ name: 'connectors', config, log, database }, async ({ db, own, onStop, serve }) => {
    const bus = own(await openBus(config, { log, clientId: 'connectors', publishes: [topics.messageStatus] }));
    const store = openStore(db);
    own(forgetDeliveries({ database: db, retention: config.EFFECT_RETENTION, log }));
    const simulation = own(await startSimulation({ networks, config, database: db, log }));
    const loads = own(watchLoads({ channels: installed.map(({ name }) => name), store, lag: bus.lag, log }));
    const connectors = installed.map((connector) => simulation.connect(connector));
    for (const connector of connectors.filter(tellsLater)) {
      connector.onReceipts(receiving({ connector, store, publish: bus.publish, log }));
    }

    const server = await serve(
      [service(ConnectorsServiceService, handlers({ connectors, store, loads })), simulation.service],
      { dependencies: { bus: bus.probe } },
    );

    onStop(async () => void (await Promise.all(connectors.map((connector) => connector.stop()))));
    await Promise.all(connectors.map((connector) => connector.start()));
    const { DELIVERY_ATTEMPT_TIMEOUT: timeout, DELIVERIES_AT_ONCE: atOnce } = config;
    const consumers = await Promise.all(
      connectors.map((connector) => consumeDeliveries({ bus, connector, store, log, timeout, atOnce, loads })),
    );
    onStop(
      watchParked(
        store,
        connectors.map(({ name }) => name),
      ),
    );
    onStop(async () => void (await Promise.all(consumers.map((consumer) => consumer.stop()))));

    return server;
  });
}
