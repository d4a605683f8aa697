import { z } from 'zod';
import { Answered, Breaker } from '#lib/breaker.ts';
import { ConfigError, flag, secret, text, type Config } from '#lib/config.ts';
import { engineSettings, type Engine } from '#lib/engines.ts';
import type { Logger } from '#lib/log.ts';
import type { Storage } from './storage.ts';

function endpoint() {
  return z
    .string()
    .regex(/^https?:\/\/[^/?#@\s]+\/?$/, 'must be http://host:port or https://host:port, without a path')
    .refine(URL.canParse, 'must be http://host:port or https://host:port, without a path');
}

/** Settings of the store of contents: a folder, or S3. */
export const storageSettings = {
  FILES_DIR: text()
    .optional()
    .describe('folder that contents of files are kept in, on a single machine; or set S3_ENDPOINT'),
  S3_ENDPOINT: endpoint().optional().describe('URL of the S3 (MinIO, …) that contents of files are kept in'),
  S3_REGION: text().default('us-east-1').describe('region of the S3'),
  S3_BUCKET: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/, 'must be 3 to 63 of the characters a-z 0-9 -')
    .default('chat4all')
    .describe('bucket that contents are kept in; made if it is missing. Nothing else may be in it'),
  S3_ACCESS_KEY: text().optional().describe('access key of an account that may do everything in the bucket'),
  S3_SECRET_KEY: secret().optional().describe('secret of S3_ACCESS_KEY'),
  S3_PUBLIC_ENDPOINT: endpoint()
    .optional()
    .describe('URL under which clients reach the S3, for upload URLs; if not set, it is S3_ENDPOINT'),
  S3_DIRECT_UPLOADS: flag()
    .default(true)
    .describe('whether upload URLs lead straight into the S3; false for one that clients do not reach or should not'),
  S3_UPLOAD_ACCESS_KEY: text()
    .optional()
    .describe(
      'access key that upload URLs are signed with; it should be allowed s3:PutObject in the bucket and nothing else. ' +
        'If not set, the service gets itself temporary ones by AssumeRole, as MinIO has it',
    ),
  S3_UPLOAD_SECRET_KEY: secret().optional().describe('secret of S3_UPLOAD_ACCESS_KEY'),
  ...engineSettings,
};

/**
 * Opens the store that the configuration names. It need not be there yet.
 *
 * @throws ConfigError unless exactly one is named, with all that it needs
 */
export async function openStorage(config: Config<typeof storageSettings>, { log }: { log: Logger }): Promise<Storage> {
  const { FILES_DIR: folder, S3_ENDPOINT: endpoint } = config;
  if ((folder === undefined) === (endpoint === undefined)) {
    throw new ConfigError([`set one of FILES_DIR and S3_ENDPOINT${folder === undefined ? '' : ', not both'}`]);
  }
  // Imported only now, so that a process loads the library of one store.
  if (folder !== undefined) {
    const { openDiskStorage } = await import('./disk.ts');
    return withBreakers(openDiskStorage({ folder }));
  }
  const { S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey } = config;
  const { S3_UPLOAD_ACCESS_KEY: uploadAccessKey, S3_UPLOAD_SECRET_KEY: uploadSecretKey } = config;
  const problems: string[] = [];
  if (accessKey === undefined) problems.push('S3_ACCESS_KEY is required with S3_ENDPOINT');
  if (secretKey === undefined) problems.push('S3_SECRET_KEY is required with S3_ENDPOINT');
  if ((uploadAccessKey === undefined) !== (uploadSecretKey === undefined)) {
    problems.push('set both of S3_UPLOAD_ACCESS_KEY and S3_UPLOAD_SECRET_KEY, or none');
  }
  if (problems.length > 0) throw new ConfigError(problems);
  const { openS3Storage } = await import('./s3.ts');
  const storage = openS3Storage({
    endpoint: new URL(endpoint!),
    publicEndpoint: new URL(config.S3_PUBLIC_ENDPOINT ?? endpoint!),
    region: config.S3_REGION,
    bucket: config.S3_BUCKET,
    credentials: { accessKey: accessKey!, secretKey: secretKey! },
    ...(uploadAccessKey !== undefined && {
      uploadCredentials: { accessKey: uploadAccessKey, secretKey: uploadSecretKey! },
    }),
    log,
  });
  if (config.S3_DIRECT_UPLOADS) return withBreakers(storage);
  const { partUrl: _direct, ...indirect } = storage;
  return withBreakers(indirect);
}

/** The store as something that a process waits for when it starts. */
export function storageEngine(config: Config<typeof storageSettings>, storage: Storage): Engine {
  const { FILES_DIR: folder, S3_ENDPOINT: endpoint } = config;
  if (endpoint === undefined) return { setting: 'FILES_DIR', what: `the folder ${folder}`, ask: storage.ping };
  const what = `the S3 at ${endpoint}`;
  return {
    setting: 'S3_ENDPOINT',
    what,
    async ask() {
      try {
        await storage.ping();
      } catch (error) {
        // The store has answered, but refuses us or is no S3.
        if (error instanceof Answered) throw refusalOf(what, error.cause);
        throw error;
      }
    },
  };
}

function refusalOf(what: string, cause: unknown): ConfigError {
  const text = cause instanceof Error ? cause.message : String(cause);
  const isOfKeys = /InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|Forbidden/.test(text);
  return new ConfigError([`${isOfKeys ? 'S3_ACCESS_KEY, S3_SECRET_KEY' : 'S3_ENDPOINT'}: ${what} refuses: ${text}`]);
}

/** The store behind circuit breakers. Writing has its own, since a full store can still read and remove. */
function withBreakers(storage: Storage): Storage {
  const breaker = (of: string) => new Breaker({ name: `file.store.${of}`, reason: 'STORE_UNAVAILABLE' });
  // Removing has its own as well: a key that can't be removed is retried for ever, and says nothing about the store.
  const [writing, other, removing] = [breaker('write'), breaker('read'), breaker('remove')];
  return {
    ...storage,
    open: (...given) => writing.run(() => storage.open(...given)),
    writePart: (...given) => writing.run(() => storage.writePart(...given)),
    assemble: (...given) => writing.run(() => storage.assemble(...given)),
    parts: (...given) => other.run(() => storage.parts(...given)),
    size: (...given) => other.run(() => storage.size(...given)),
    remove: (...given) => removing.run(() => storage.remove(...given)),
  };
}
