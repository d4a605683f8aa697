import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import type { Config } from '#lib/config.ts';
import { startDatabase } from '#lib/database-start.ts';
import { databaseSettings } from '#lib/database.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { authoritySettings, connectAuthority } from '#lib/rpc/authority.ts';
import { connect } from '#lib/rpc/client.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { followActivity } from './events.ts';
import { openChecks, openHandlers } from './handlers.ts';
import { database, openStore } from './store.ts';

export { database };

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...authoritySettings,
  ...databaseSettings,
  ...busSettings,
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config, { service: 'conversation', log });
  const db = await startDatabase(database, { config, name: 'conversation', log });
  opened.defer(() => db.close());
  const store = openStore(db);
  const auth = connect(AuthServiceService, { config, target: 'auth', address: config.AUTH_ADDRESS, identities });
  opened.defer(() => auth.close());

  const activity = await followActivity({
    openBus: () => openBus(config, { log, clientId: 'conversation', waits: false }),
    store,
    log,
  });
  opened.defer(() => activity.stop());
  const server = await serve({
    config,
    identities,
    authority: connectAuthority({ config, identities }),
    log,
    services: [service(ConversationServiceService, openHandlers({ store, auth }), openChecks({ auth }))],
    dependencies: { ...db.dependencies },
  });
  opened.defer(() => server.stop());

  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}
