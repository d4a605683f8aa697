import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { duration, text, type Config } from '#lib/config.ts';
import { databaseSettings, openDatabase } from '#lib/database.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Logger } from '#lib/log.ts';
import type { Running } from '#lib/lifecycle.ts';
import { connect } from '#lib/rpc/client.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { watchChannels } from './channels.ts';
import { consumeReports, startSweep } from './events.ts';
import { checks, handlers } from './handlers.ts';
import { startRelay } from './relay.ts';
import { database as definition, openStore } from './store.ts';

export { database } from './store.ts';

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...databaseSettings,
  ...busSettings,
  CONVERSATION_ADDRESS: text().describe('host:port of the conversation service'),
  CONNECTORS_ADDRESS: text().describe('host:port of the connectors service'),
  DELIVERY_DEADLINE: duration({ min: 1_000, max: 7 * 86_400_000 })
    .default(30_000)
    .describe('how long after its acceptance a message is delivered or failed at the latest'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  const identities = openIdentities(config);
  const database = openDatabase(definition, {
    url: config.DATABASE_URL,
    poolSize: config.DATABASE_POOL,
    name: identities.name,
  });
  const bus = await openBus(config, { log, clientId: identities.name });
  const conversations = connect(ConversationServiceService, {
    target: 'conversation',
    address: config.CONVERSATION_ADDRESS,
    identities,
  });
  const connectors = connect(ConnectorsServiceService, {
    target: 'connectors',
    address: config.CONNECTORS_ADDRESS,
    identities,
  });

  const store = openStore(database);
  const deadline = config.DELIVERY_DEADLINE;
  const channels = watchChannels({ connectors, log });
  const relay = startRelay({ store, bus, log });
  const sweep = startSweep({ store, log, deadline });
  const consumer = await consumeReports({ bus, store, log });
  const server = await serve({
    config,
    identities,
    log,
    services: [
      service(MessageServiceService, handlers({ store, relay, channels, conversations, deadline }), checks(channels)),
    ],
    dependencies: { database: database.ping, bus: async () => relay.requireBus() },
  });

  return {
    port: server.port,
    async stop() {
      await server.stop();
      await Promise.all([consumer.stop(), relay.stop(), sweep.stop(), channels.stop()]);
      conversations.close();
      connectors.close();
      await bus.stop();
      await database.close();
    },
  };
}
