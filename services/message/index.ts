import { ConnectorsServiceService } from '#gen/chat4all/connectors/v1/connectors.ts';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { MessageServiceService } from '#gen/chat4all/message/v1/message.ts';
import { OperationsServiceService } from '#gen/chat4all/message/v1/operations.ts';
import { topics } from '#gen/events.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { duration, maxRetentionMs, type Config } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { messageSettings } from '#lib/forgetting.ts';
import type { Logger } from '#lib/log.ts';
import type { Running } from '#lib/lifecycle.ts';
import { listen } from '#lib/notifications.ts';
import { serviceAddress } from '#lib/rpc/client.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { watchChannels } from './messages/channels.ts';
import { consumeReports, startRemoval, startSweep } from './messages/events.ts';
import { checks, handlers } from './messages/handlers.ts';
import { openMemberships } from './messages/memberships.ts';
import { openReads } from './messages/reads-store.ts';
import { openStore } from './messages/store.ts';
import { openAudit } from './operations/audit.ts';
import { consumerLag } from './operations/consumer-lag.ts';
import { openDeadLetters } from './operations/dead-letters-store.ts';
import { publishAgain, startDeadLetters, startForgetting, watchDeadLetters } from './operations/dead-letters.ts';
import { operationChecks, operationHandlers } from './operations/handlers.ts';
import { startRelay } from './outbox/relay.ts';
import { openOutbox, outboxNotification } from './outbox/store.ts';
import { database } from './database.ts';

export const settings = {
  ...serviceSettings,
  ...busSettings,
  ...messageSettings,
  CONVERSATION_ADDRESS: serviceAddress().describe('host:port of the conversation service'),
  FILE_ADDRESS: serviceAddress().describe('host:port of the file service'),
  CONNECTORS_ADDRESS: serviceAddress().describe('host:port of the connectors service'),
  DELIVERY_DEADLINE: duration({ min: 1_000, max: 7 * 86_400_000 })
    .default(30_000)
    .describe('how long after its acceptance a message is delivered or failed at the latest'),
  DEAD_LETTER_RETENTION: duration({ min: 1_000, max: maxRetentionMs })
    .default(30 * 86_400_000)
    .describe('how long an event that was given up is kept, from then or from its last replay on'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'message', config, log, database }, async ({ db, own, onStop, connect, serve }) => {
    const bus = own(
      await openBus(config, { log, clientId: 'message', publishes: [topics.messageProcessing, topics.messageChanges] }),
    );
    const conversations = connect(ConversationServiceService, 'conversation', config.CONVERSATION_ADDRESS);
    const connectors = connect(ConnectorsServiceService, 'connectors', config.CONNECTORS_ADDRESS);
    const files = connect(FileServiceService, 'file', config.FILE_ADDRESS);
    const store = openStore(db);
    // A pool of its own: under load the relay, which empties the outbox, must not queue behind the calls that fill it.
    const background = own(
      openDatabase(database, {
        url: config.DATABASE_URL,
        poolSize: 3,
        name: 'message events',
      }),
    );
    const backgroundStore = openStore(background);
    const deadline = config.DELIVERY_DEADLINE;
    const channels = own(watchChannels({ connectors, log }));
    const relay = own(startRelay({ outbox: openOutbox(background), bus, log }));
    own(startSweep({ bus, store: backgroundStore, relay, log, deadline }));
    const listening = {
      connectionString: config.DATABASE_URL,
      application_name: 'message listens',
      connectionTimeoutMillis: 3_000,
      keepAlive: true,
    };
    own(await listen(listening, outboxNotification, relay.notified, log));
    const keptLetters = openDeadLetters(background);
    onStop(watchDeadLetters(keptLetters));
    own(startForgetting({ letters: keptLetters, log, retention: config.DEAD_LETTER_RETENTION }));
    if (config.MESSAGE_RETENTION !== undefined) {
      own(startRemoval({ store: backgroundStore, log, retention: config.MESSAGE_RETENTION }));
    }
    own(await consumeReports({ bus, store: backgroundStore, relay, log }));
    const server = await serve(
      [
        service(
          MessageServiceService,
          handlers({
            store,
            reads: openReads(db),
            relay,
            channels,
            memberships: openMemberships(conversations),
            files,
            deadline,
          }),
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
      { dependencies: { bus: async () => relay.requireBus() } },
    );

    own(startDeadLetters({ bus, letters: keptLetters, channels, log }));

    return server;
  });
}
