import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { RouterServiceService } from '#gen/chat4all/router/v1/router.ts';
import { topics } from '#gen/events.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import type { Config } from '#lib/config.ts';
import { effectSettings, startForgetting } from '#lib/forgetting.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { serviceAddress } from '#lib/rpc/client.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { consumeMessages } from './events.ts';
import { handlers } from './handlers.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';

export const settings = {
  ...serviceSettings,
  ...busSettings,
  ...effectSettings,
  FILE_ADDRESS: serviceAddress().describe('host:port of the file service'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'router', config, log, database }, async ({ db, own, connect, serve }) => {
    const bus = own(await openBus(config, { log, clientId: 'router', publishes: [topics.messageStatus] }));
    const files = connect(FileServiceService, 'file', config.FILE_ADDRESS);
    const store = openStore(db);

    const server = await serve([service(RouterServiceService, handlers(store))], { dependencies: { bus: bus.probe } });
    own(
      startForgetting({
        database: db,
        table: 'routes',
        isOld: 'routed_at < $3',
        retention: config.EFFECT_RETENTION,
        log,
      }),
    );
    own(await consumeMessages({ bus, store, files, log }));

    return server;
  });
}
