import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { RouterServiceService } from '#gen/chat4all/router/v1/router.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import type { Config } from '#lib/config.ts';
import { startDatabase } from '#lib/database-start.ts';
import { databaseSettings } from '#lib/database.ts';
import { effectSettings, startForgetting } from '#lib/forgetting.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { authoritySettings, connectAuthority } from '#lib/rpc/authority.ts';
import { connect, serviceAddress } from '#lib/rpc/client.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { consumeMessages } from './events.ts';
import { handlers } from './handlers.ts';
import { database, openStore } from './store.ts';

export { database };

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...authoritySettings,
  ...databaseSettings,
  ...busSettings,
  ...effectSettings,
  FILE_ADDRESS: serviceAddress().describe('host:port of the file service'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config, { service: 'router', log });
  const db = await startDatabase(database, { config, name: 'router', log });
  opened.defer(() => db.close());
  const bus = await openBus(config, { log, clientId: 'router', publishes: ['message_status'] });
  opened.defer(() => bus.stop());
  const files = connect(FileServiceService, { config, target: 'file', address: config.FILE_ADDRESS, identities });
  opened.defer(() => files.close());
  const store = openStore(db);

  const server = await serve({
    config,
    identities,
    authority: connectAuthority({ config, identities }),
    log,
    services: [service(RouterServiceService, handlers(store))],
    dependencies: { ...db.dependencies, bus: bus.probe },
  });
  opened.defer(() => server.stop());
  const forgetting = startForgetting({
    database: db,
    table: 'routes',
    isOld: 'routed_at < $3',
    retention: config.EFFECT_RETENTION,
    log,
  });
  opened.defer(() => forgetting.stop());
  const consumer = await consumeMessages({ bus, store, files, log });
  opened.defer(() => consumer.stop());

  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}
