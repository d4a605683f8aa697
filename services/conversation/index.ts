import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { topics } from '#gen/events.ts';
import type { Bus } from '#lib/bus/bus.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import type { Config } from '#lib/config.ts';
import { startOutboxRelay } from '#lib/database-outbox.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { followActivity } from './events.ts';
import { openChecks, openHandlers } from './handlers.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';

export const settings = {
  ...serviceSettings,
  ...busSettings,
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'conversation', config, log, database }, async ({ db, own, connect, serve }) => {
    const store = openStore(db);
    const auth = connect(AuthServiceService, 'auth', config.AUTH_ADDRESS);

    const publishes = [topics.conversationChanges];
    const following = own(
      await followActivity({
        openBus: () => openBus(config, { log, clientId: 'conversation', publishes, waits: false }),
        store,
        log,
      }),
    );
    const bus: Pick<Bus, 'publish'> = { publish: async (topic, events) => following.bus().publish(topic, events) };
    const relay = own(startOutboxRelay({ database: db, bus, log }));
    const handlers = openHandlers({ store, auth, changed: () => relay.wake() });
    return serve([service(ConversationServiceService, handlers, openChecks({ auth }))]);
  });
}
