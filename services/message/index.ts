import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { OperationsServiceService } from '#gen/chat4all/message/v1/operations.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { duration, longestRetention, type Config } from '#lib/config.ts';
import { startDatabase } from '#lib/database-start.ts';
import { databaseSettings, openDatabase } from '#lib/database.ts';
import { messageSettings } from '#lib/forgetting.ts';
import { identitySettings, openIdentities } from '#lib/identity.ts';
import type { Logger } from '#lib/log.ts';
import type { Running } from '#lib/lifecycle.ts';
import { listen } from '#lib/notifications.ts';
import { authoritySettings, connectAuthority } from '#lib/rpc/authority.ts';
import { connect, serviceAddress } from '#lib/rpc/client.ts';
import { serve, serverSettings, service } from '#lib/rpc/server.ts';
import { watchChannels } from './messages/channels.ts';
import { consumeReports, startRemoval, startSweep } from './messages/events.ts';
import { checks, handlers } from './messages/handlers.ts';
import { openMemberships } from './messages/memberships.ts';
import { openStore } from './messages/store.ts';
import { openAudit } from './operations/audit.ts';
import { consumerLag } from './operations/consumer-lag.ts';
import { openDeadLetters } from './operations/dead-letters-store.ts';
import { publishAgain, startDeadLetters, startForgetting, watchDeadLetters } from './operations/dead-letters.ts';
import { operationChecks, operationHandlers } from './operations/handlers.ts';
import { startRelay } from './outbox/relay.ts';
import { openOutbox, outboxChannel } from './outbox/store.ts';
import { database } from './store.ts';

export { database };

export const settings = {
  ...serverSettings,
  ...identitySettings,
  ...authoritySettings,
  ...databaseSettings,
  ...busSettings,
  ...messageSettings,
  CONVERSATION_ADDRESS: serviceAddress().describe('host:port of the conversation service'),
  FILE_ADDRESS: serviceAddress().describe('host:port of the file service'),
  CONNECTORS_ADDRESS: serviceAddress().describe('host:port of the connectors service'),
  DELIVERY_DEADLINE: duration({ min: 1_000, max: 7 * 86_400_000 })
    .default(30_000)
    .describe('how long after its acceptance a message is delivered or failed at the latest'),
  DEAD_LETTER_RETENTION: duration({ min: 1_000, max: longestRetention })
    .default(30 * 86_400_000)
    .describe('how long an event that was given up is kept, from then or from its last replay on'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  await using opened = new AsyncDisposableStack();
  const identities = openIdentities(config, { service: 'message', log });
  const db = await startDatabase(database, { config, name: 'message', log });
  opened.defer(() => db.close());
  const bus = await openBus(config, { log, clientId: 'message', publishes: ['message_processing'] });
  opened.defer(() => bus.stop());
  const conversations = connect(ConversationServiceService, {
    config,
    target: 'conversation',
    address: config.CONVERSATION_ADDRESS,
    identities,
  });
  opened.defer(() => conversations.close());
  const connectors = connect(ConnectorsServiceService, {
    config,
    target: 'connectors',
    address: config.CONNECTORS_ADDRESS,
    identities,
  });
  opened.defer(() => connectors.close());

  const files = connect(FileServiceService, { config, target: 'file', address: config.FILE_ADDRESS, identities });
  opened.defer(() => files.close());

  const store = openStore(db);
  // Connections of their own: under load, what empties the outbox must not queue behind what fills it.
  const background = openDatabase(database, {
    url: config.DATABASE_URL,
    poolSize: 3,
    name: 'message events',
  });
  opened.defer(() => background.close());
  const backgroundStore = openStore(background);
  const deadline = config.DELIVERY_DEADLINE;
  const channels = watchChannels({ connectors, log });
  opened.defer(() => channels.stop());
  const sweep = startSweep({ store: backgroundStore, log, deadline });
  opened.defer(() => sweep.stop());
  const relay = startRelay({ outbox: openOutbox(background), bus, log });
  opened.defer(() => relay.stop());
  const listening = {
    connectionString: config.DATABASE_URL,
    application_name: 'message listens',
    connectionTimeoutMillis: 3_000,
    keepAlive: true,
  };
  const notifications = await listen(listening, outboxChannel, relay.told, log);
  opened.defer(() => notifications.close());
  const keptLetters = openDeadLetters(background);
  opened.defer(watchDeadLetters(keptLetters));
  const forgetting = startForgetting({ letters: keptLetters, log, retention: config.DEAD_LETTER_RETENTION });
  opened.defer(() => forgetting.stop());
  if (config.MESSAGE_RETENTION !== undefined) {
    const removal = startRemoval({ store: backgroundStore, log, retention: config.MESSAGE_RETENTION });
    opened.defer(() => removal.stop());
  }
  const consumer = await consumeReports({ bus, store: backgroundStore, log });
  opened.defer(() => consumer.stop());
  const server = await serve({
    config,
    identities,
    authority: connectAuthority({ config, identities }),
    log,
    services: [
      service(
        MessageServiceService,
        handlers({ store, relay, channels, memberships: openMemberships(conversations), files, deadline }),
        checks(channels, files),
      ),
      service(
        OperationsServiceService,
        operationHandlers({
          letters: openDeadLetters(db),
          audit: openAudit(db),
          lag: consumerLag({ bus, channels }),
          publish: (letters) => publishAgain(bus, letters),
          relay,
          deadline,
        }),
        operationChecks,
      ),
    ],
    dependencies: { ...db.dependencies, bus: async () => relay.requireBus() },
  });
  opened.defer(() => server.stop());

  const letters = startDeadLetters({ bus, letters: keptLetters, channels, log });
  opened.defer(() => letters.stop());

  const everything = opened.move();
  return { ...server, stop: () => everything.disposeAsync() };
}
