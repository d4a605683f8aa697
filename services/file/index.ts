import { z } from 'zod';
import { ConversationServiceService } from '#gen/chat4all/conversation/v1/conversation.ts';
import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { topics } from '#gen/events.ts';
import { busSettings, openPublisher } from '#lib/bus/open.ts';
import { ConfigError, duration, integer, secrets, type Config } from '#lib/config.ts';
import { startOutboxRelay } from '#lib/database-outbox.ts';
import { awaitEngine } from '#lib/engines.ts';
import { messageSettings } from '#lib/forgetting.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { serviceAddress } from '#lib/rpc/client.ts';
import { service } from '#lib/rpc/server.ts';
import { serviceSettings, startService } from '#lib/start.ts';
import { openChunkUrls, urlKeyOf } from './chunk-urls.ts';
import { startLapsing, startRemoving, startSweep } from './cleaning.ts';
import type { Limits } from './file.ts';
import { openHandlers } from './handlers.ts';
import { openStorage, storageEngine, storageSettings } from './storage/open.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';
import { openUploads } from './uploads.ts';

const mebibyte = 1024 ** 2;
const hour = 3_600_000;
/** The maximum number of parts of an S3 object. */
const maxChunks = 10_000;

export const settings = {
  ...serviceSettings,
  ...busSettings,
  ...storageSettings,
  ...messageSettings,
  CONVERSATION_ADDRESS: serviceAddress().describe('host:port of the conversation service'),
  PUBLIC_URL: z
    .url({ protocol: /^https?$/ })
    .transform((url) => url.replace(/\/+$/, ''))
    .optional()
    .describe(
      'URL of the gateway, for the URLs that clients are given; by default the one that the client used itself',
    ),
  MAX_FILE_SIZE: integer({ min: 1, max: 1024 ** 4 })
    .default(2 * 1024 ** 3)
    .describe('bytes that a file may have'),
  CHUNK_SIZE: integer({ min: 1, max: 1024 * mebibyte })
    .default(16 * mebibyte)
    .describe('bytes of a chunk where the client does not choose'),
  MIN_CHUNK_SIZE: integer({ min: 1, max: 1024 * mebibyte })
    .default(5 * mebibyte)
    .describe('the fewest bytes that a client may choose for a chunk; S3 takes no less than 5 MiB'),
  MAX_CHUNK_SIZE: integer({ min: 1, max: 1024 * mebibyte })
    .default(64 * mebibyte)
    .describe('the most bytes that a client may choose for a chunk'),
  MAX_OPEN_UPLOADS: integer({ min: 1, max: 10_000 }).default(10).describe('how many open uploads one user may have'),
  UPLOAD_TTL: duration({ min: 1_000, max: 30 * 24 * hour })
    .default(24 * hour)
    .describe('how long an upload stays open without activity before it is aborted and its chunks are removed'),
  UPLOAD_URL_KEYS: secrets().describe(
    'secrets that URLs to put a chunk to are signed with, with commas between them: the first one signs, all are believed',
  ),
  UPLOAD_URL_TTL: duration({ min: 1_000, max: 24 * hour })
    .default(hour)
    .describe('how long a URL to put a chunk to is valid'),
};

export async function start(config: Config<typeof settings>, log: Logger): Promise<Running> {
  return startService({ name: 'file', config, log, database }, async ({ db, own, connect, serve }) => {
    const storage = own(await openStorage(config, { log }));
    await awaitEngine(storageEngine(config, storage), { log, patienceMs: config.START_PATIENCE });
    const limits = limitsOf(config, storage.minPartBytes);
    const conversations = connect(ConversationServiceService, 'conversation', config.CONVERSATION_ADDRESS);

    const bus = own(await openPublisher(config, { log, clientId: 'file', publishes: [topics.fileChanges] }));
    const relay = own(startOutboxRelay({ database: db, bus, log }));
    const store = openStore(db);
    const lifetime = config.UPLOAD_TTL;
    const removing = own(startRemoving({ store, storage, log, lifetimeMs: lifetime }));
    const onRemoval = () => removing.wake();
    const uploads = own(openUploads({ store, storage, limits, log, onRemoval, onCompletion: relay.wake }));
    own(startSweep({ store, uploads, log, lifetimeMs: lifetime }));

    if (config.MESSAGE_RETENTION !== undefined) {
      own(startLapsing({ store, log, retentionMs: config.MESSAGE_RETENTION, onRemoval }));
    }

    const urlKeys = config.UPLOAD_URL_KEYS.map(urlKeyOf);
    const urls = openChunkUrls({ storage, key: urlKeys[0]!, lifetime: config.UPLOAD_URL_TTL });
    const handlers = openHandlers({
      store,
      storage,
      uploads,
      urls,
      conversations,
      limits,
      urlKeys,
      lifetime,
      publicUrl: config.PUBLIC_URL,
      onRemoval,
    });
    return serve([service(FileServiceService, handlers)], {
      dependencies: { store: () => storage.ping() },
    });
  });
}

/** @throws ConfigError naming sizes that contradict each other */
function limitsOf(config: Config<typeof settings>, minPartBytes: number): Limits {
  const { MAX_FILE_SIZE, CHUNK_SIZE, MIN_CHUNK_SIZE, MAX_CHUNK_SIZE, MAX_OPEN_UPLOADS } = config;
  const problems = [];
  if (MIN_CHUNK_SIZE < minPartBytes)
    problems.push(`MIN_CHUNK_SIZE must be at least ${minPartBytes}: the store takes no less`);
  if (CHUNK_SIZE < MIN_CHUNK_SIZE) problems.push('CHUNK_SIZE must be at least MIN_CHUNK_SIZE');
  if (CHUNK_SIZE > MAX_CHUNK_SIZE) problems.push('CHUNK_SIZE must be at most MAX_CHUNK_SIZE');
  if (MAX_FILE_SIZE > MIN_CHUNK_SIZE * maxChunks) {
    problems.push(`MAX_FILE_SIZE must be at most ${maxChunks} times MIN_CHUNK_SIZE`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    maxFileBytes: MAX_FILE_SIZE,
    minChunkBytes: MIN_CHUNK_SIZE,
    maxChunkBytes: MAX_CHUNK_SIZE,
    defaultChunkBytes: CHUNK_SIZE,
    openUploads: MAX_OPEN_UPLOADS,
  };
}
