import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { EventsServiceService } from '#gen/chat4all/events/v1/events.ts';
import { WebhooksServiceService } from '#gen/chat4all/events/v1/webhooks.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { duration, integer, laptopSettings, maxRetentionMs, type Config } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import type { Logger } from '#lib/log.ts';
import type { Running } from '#lib/lifecycle.ts';
import { listen } from '#lib/notifications.ts';
import { allowedHosts, laptopHosts, openEndpoints } from '#lib/public-endpoint.ts';
import { serviceAddress } from '#lib/rpc/client.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { openPresence } from './ephemeral/presence.ts';
import { openTyping } from './ephemeral/typing.ts';
import { openHandlers } from './handlers.ts';
import { openLogStore, type Appended } from './log/log-store.ts';
import { keepPartitions } from './log/retention.ts';
import { startSequencing } from './log/sequencing.ts';
import { eventsNotification, hear, openProcesses } from './processes.ts';
import { database } from './database.ts';
import { openStreams } from './streams/stream.ts';
import { startTail } from './streams/tail.ts';
import { openTickets } from './streams/tickets-store.ts';
import { openWebhooks } from './webhooks/webhooks.ts';

const day = 86_400_000;

export const settings = {
  ...serviceSettings,
  ...laptopSettings,
  ...busSettings,
  CONVERSATION_ADDRESS: serviceAddress().describe('host:port of the conversation service'),
  EVENT_RETENTION: duration({ min: day, max: maxRetentionMs })
    .default(7 * day)
    .describe('how long events are kept for clients that come back, at least a day'),
  EVENT_STREAMS: integer({ min: 1, max: 1_000_000 })
    .default(10_000)
    .describe('how many streams of events one process serves'),
  EVENT_HEARTBEAT: duration({ min: 100, max: 300_000 })
    .default(15_000)
    .describe('how often a stream of events says that it is alive'),
  EVENT_STREAM_AGE: duration({ min: 1_000, max: 4_000_000 })
    .default(3_600_000)
    .describe('how long a stream of events lasts, about: then its client opens another one, perhaps at a new replica'),
  WEBHOOK_ALLOWED_HOSTS: allowedHosts()
    .optional()
    .describe(
      'hosts, IP addresses and networks where webhooks may be though they are not public, with commas between them; with LAPTOP_MODE=true 127.0.0.0/8,::1 if it is not set',
    ),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'events', config, log, database }, async ({ db, own, onStop, connect, serve }) => {
    const bus = own(await openBus(config, { log, clientId: 'events' }));
    const conversations = connect(ConversationServiceService, 'conversation', config.CONVERSATION_ADDRESS);
    // Connections of their own: what is appended must not queue behind what is read, nor streams behind webhooks.
    const appending = own(openDatabase(database, { url: config.DATABASE_URL, poolSize: 3, name: 'events appends' }));
    const delivering = own(openDatabase(database, { url: config.DATABASE_URL, poolSize: 4, name: 'events webhooks' }));
    const store = openLogStore(db);
    const writing = openLogStore(appending);

    await writing.makePartitions();
    own(keepPartitions({ store: writing, log, retention: config.EVENT_RETENTION }));
    const processes = own(openProcesses(appending));
    const presence = own(openPresence({ processes, store }));
    const tail = own(await startTail({ store, log, membersChanged: presence.membersChanged }));
    const typing = openTyping({ processes, tail });
    const heardGrown = (head?: number) => {
      tail.grown(head);
      webhooks.grown();
    };
    const grown = (appended: Appended) => {
      tail.appended(appended);
      webhooks.grown();
      processes.grown(appended.head);
    };
    const webhooks = own(
      openWebhooks({
        database: delivering,
        log: openLogStore(delivering),
        writing,
        grown,
        processes,
        endpoints: openEndpoints(config.WEBHOOK_ALLOWED_HOSTS ?? (config.LAPTOP_MODE ? laptopHosts : [])),
        retention: config.EVENT_RETENTION,
        logger: log,
      }),
    );
    const listening = {
      connectionString: config.DATABASE_URL,
      application_name: 'events listens',
      connectionTimeoutMillis: 3_000,
      keepAlive: true,
    };
    const onNotification = (payload?: string) => {
      if (payload === undefined) {
        heardGrown();
        presence.missed();
      } else {
        const { heard } = presence;
        hear(payload, { grown: heardGrown, typing: typing.heard, presence: heard, webhook: webhooks.heard });
      }
    };
    own(await listen(listening, eventsNotification, onNotification, log));
    await startSequencing({ bus, store: writing, conversations, grown });
    const streams = openStreams({
      store,
      tail,
      presence,
      maxStreams: config.EVENT_STREAMS,
      heartbeatMs: config.EVENT_HEARTBEAT,
      ageMs: config.EVENT_STREAM_AGE,
    });
    const handlers = openHandlers({ streams, tickets: openTickets(db), typing, store, conversations });
    const server = await serve(
      [service(EventsServiceService, handlers), service(WebhooksServiceService, webhooks.handlers, webhooks.checks)],
      { onDisabled: webhooks.disabled },
    );
    // Before the server stops, so that streams can say that they end.
    onStop(() => streams.stop());
    return server;
  });
}
