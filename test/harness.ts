import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { loadConfig, type Config, type Settings } from '#lib/config.ts';
import type { DatabaseDefinition } from '#lib/database-definition.ts';
import { migrateDatabase, provisionDatabase } from '#lib/database-migrations.ts';
import { generateKeys, identitySettings, openIdentities, type Identities } from '#lib/identity.ts';
import type { Running } from '#lib/lifecycle.ts';
import { openLog, type Logger } from '#lib/log.ts';
import type { MethodDefinition, Methods, ServerStreamMethod } from '#lib/rpc/methods.ts';
import { settingNames } from '#lib/setting-names.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import { serviceNames } from '../services/names.ts';
import { spawnProcess } from './spawned.ts';

export { serviceNames };

interface ProcessModule {
  settings: Settings;
  start(config: Config<Settings>, log: Logger): Promise<Running>;
}

/** A service or gateway that runs in this process. */
export interface StartedProcess {
  port: number;
  /** host:port. */
  address: string;
  /** Its log, line by line, as JSON. */
  lines: string[];
  stop(): Promise<void>;
}

/** A user, for tokens. */
export interface TestUser {
  userId: string;
  /** The user's number; by default that of one of those that are there from the start, or some other. */
  numId?: bigint;
  username: string;
  admin?: boolean;
}

export interface ClientOptions {
  token?: string;
  /** Further metadata. */
  metadata?: Record<string, string>;
  /** Milliseconds; 30,000 by default. */
  timeout?: number;
}

/** The server-streaming RPCs of a service definition. To leave the loop over the messages, or to abort the signal, is to cancel. */
export type Streams<D> = {
  [K in keyof D]: D[K] extends ServerStreamMethod<infer Request, infer Response>
    ? (request: Request, signal?: AbortSignal) => AsyncGenerator<Response, void>
    : never;
};

function metadataOf(token: string | undefined, others: Record<string, string> = {}): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  for (const [key, value] of Object.entries(others)) metadata.set(key, value);
  return metadata;
}

/** The number of a user for whom none was said. */
function numberOf(userId: string): bigint {
  const [, known] = /^00000000-0000-4000-8000-0{4}(\d{8})$/.exec(userId) ?? [];
  return BigInt(known ?? `0x${userId.replace(/[^\da-f]/g, '').slice(0, 12) || '1'}`);
}

/** What a test file needs to run services: a database of its own, keys, and whatever is started with them. */
export interface Harness {
  /** By service; `gateway` as well. */
  identities: Record<string, Identities>;
  /** PostgreSQL URL of a service's own role (`auth`, …, or `bus`) in this file's database. */
  databaseUrl(role: string): string;
  /** PostgreSQL URL of the superuser in this file's database. */
  adminDatabaseUrl: string;
  /** The folder that mails are put into. */
  mailDir: string;
  /** What a service is told, as environment variables; over the defaults goes `env`. */
  environmentOf(name: string, env?: NodeJS.ProcessEnv): NodeJS.ProcessEnv;
  /** The same as `startService`, in a process of its own, in which the module `preload` is loaded before everything else. */
  spawnService(name: string, options?: { env?: NodeJS.ProcessEnv; preload?: string }): Promise<StartedProcess>;
  /** Starts a service on a free port; with the addresses of those started before. Over the defaults goes `env`. */
  startService(name: string, env?: NodeJS.ProcessEnv): Promise<StartedProcess>;
  /** Starts the gateway in front of the services started before. */
  startGateway(env?: NodeJS.ProcessEnv): Promise<StartedProcess>;
  /** A token as AuthService issues it, valid for an hour or until `expiresAt`. */
  userToken(user: TestUser, expiresAt?: Date): Promise<string>;
  /** A token of the service `name` for calls to `audience`. */
  serviceToken(name: string, audience: string): Promise<string>;
  /** The RPCs of a service as functions that throw HubError. */
  client<D extends Record<string, MethodDefinition<unknown, unknown>>>(
    definition: D,
    address: string,
    options?: ClientOptions,
  ): Methods<D, []>;
  /** The server-streaming RPCs of a service as functions that return the messages, and throw HubError. */
  streams<D extends Record<string, MethodDefinition<unknown, unknown>>>(
    definition: D,
    address: string,
    options?: ClientOptions,
  ): Streams<D>;
  /** Stops what was started, the last first, and drops the database and the files. */
  stop(): Promise<void>;
}

export interface HarnessOptions {
  /** On which engine the events go; `embedded` by default. */
  bus?: 'embedded' | 'kafka';
  /** Where files are kept; on `disk` by default. */
  files?: 'disk' | 's3';
}

export interface MeshOptions extends HarnessOptions {
  bus: 'embedded' | 'kafka';
  /** All services by default. */
  services?: readonly string[];
  /** For all processes, over the defaults. */
  env?: NodeJS.ProcessEnv;
}

/** Services and gateway, all in this process. */
export interface Mesh extends Harness {
  /** Of the gateway, without a slash at the end. */
  url: string;
  services: Record<string, StartedProcess>;
  gateway: StartedProcess;
}

/** Cheap logins, users to log in as, and engines that give way quickly at the end. */
const defaultEnv: NodeJS.ProcessEnv = {
  LAPTOP_MODE: 'true',
  BCRYPT_COST: '10',
  GRPC_HOST: '127.0.0.1',
  GRPC_DRAIN: '1s',
  DATABASE_POOL: '5',
  UPLOAD_URL_KEYS: 'Zk3-of-a-test-run-alone',
};

/** Whether there is a Kafka to test against. */
export const kafkaIsThere: boolean = (process.env.TEST_KAFKA_BROKERS ?? '') !== '';
/** Whether there is an S3 to test against. */
export const s3IsThere: boolean = (process.env.TEST_S3_ENDPOINT ?? '') !== '';

/** The packages that a service serves, by the name in the middle. */
export function packagesOf(name: string): string[] {
  return name === 'auth' ? ['auth', 'account'] : [name];
}

/** Opens a harness. For the tests of a file: `const hub = opened(openHarness, (hub) => hub.stop())` (`opened.ts`). */
export async function openHarness({ bus = 'embedded', files = 'disk' }: HarnessOptions = {}): Promise<Harness> {
  await using starting = new AsyncDisposableStack();
  const database = await createDatabase();
  starting.defer(() => database.drop());
  const store = files === 's3' ? nameBucket(database.name) : await createFolder();
  starting.defer(() => store.drop());
  const mailDir = await mkdtemp(path.join(tmpdir(), 'chat4all-mail-'));
  starting.defer(() => rm(mailDir, { recursive: true, force: true }));
  const keyNames = [...serviceNames, 'gateway'];
  const { privateKeys, trusted } = await generateKeys(keyNames);
  const configOf = (name: string) =>
    loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted });
  const identities = Object.fromEntries(keyNames.map((name) => [name, openIdentities(configOf(name))]));

  const started = starting.move();
  const addresses = new Map<string, string>();
  const busEnv =
    bus === 'kafka'
      ? { KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS, BUS_PREFIX: `${database.name}.` }
      : { BUS_DATABASE_URL: database.url('bus') };

  function environmentOf(name: string, env: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    return {
      ...Object.fromEntries(
        serviceNames
          .filter((other) => settingNames.includes(addressVariable(other)))
          .map((other) => [addressVariable(other), addresses.get(other) ?? nowhere]),
      ),
      ...defaultEnv,
      ...busEnv,
      ...store.env,
      MAIL_DIR: mailDir,
      DATABASE_URL: database.url(name),
      IDENTITY_KEY: privateKeys[name],
      TRUSTED_KEYS: trusted,
      ...env,
    };
  }

  async function start(name: string, module: ProcessModule, env: NodeJS.ProcessEnv): Promise<StartedProcess> {
    const config = loadConfig(module.settings, environmentOf(name, env));
    const lines: string[] = [];
    const log = openLog({
      name,
      format: 'json',
      level: env.LOG_LEVEL ?? 'info',
      destination: { write: (line) => void lines.push(line.trimEnd()) },
    });
    const running = await module.start(config, log);
    let stopping: Promise<void> | undefined;
    const stop = () => (stopping ??= running.stop());
    started.defer(stop);
    return { port: running.port, address: `127.0.0.1:${running.port}`, lines, stop };
  }

  function open(address: string): Client {
    const client = new Client(address, credentials.createInsecure());
    started.defer(() => client.close());
    return client;
  }

  return {
    identities,
    databaseUrl: database.url,
    adminDatabaseUrl: database.adminUrl,
    mailDir,
    environmentOf: (name, env) => environmentOf(name, { GRPC_PORT: '0', ...env }),

    async spawnService(name, { env, preload } = {}) {
      const service = spawnProcess([...(preload ? ['--import', preload] : []), 'services/main.ts', name], {
        ...environmentOf(name, { GRPC_PORT: '0', SHUTDOWN_NOTICE: '0s', ...env }),
      });
      started.defer(() => service.stop());
      const port = await service.ready;
      addresses.set(name, `127.0.0.1:${port}`);
      return { port, address: `127.0.0.1:${port}`, lines: service.lines, stop: service.stop };
    },

    async startService(name, env = {}) {
      const process = await start(name, await loadService(name), { GRPC_PORT: '0', ...env });
      addresses.set(name, process.address);
      return process;
    },

    async startGateway(env = {}) {
      const module = (await import('../gateway/index.ts' as string)) as ProcessModule;
      const backends = [...addresses]
        .flatMap(([name, address]) => packagesOf(name).map((each) => `chat4all.${each}.v1=${address}`))
        .join(',');
      return start('gateway', module, { HOST: '127.0.0.1', PORT: '0', BACKENDS: backends, ...env });
    },

    async userToken(
      { userId, numId = numberOf(userId), username, admin = false },
      expiresAt = new Date(Date.now() + 3_600_000),
    ) {
      return identities.auth!.userToken({ userId, numId, username, admin, sessionId: uuid(), expiresAt });
    },

    async serviceToken(name, audience) {
      return identities[name]!.serviceToken(audience);
    },

    streams(definition, address, { token, metadata, timeout = 30_000 } = {}) {
      const client = open(address);
      const sent = metadataOf(token, metadata);
      async function* read(rpc: MethodDefinition<unknown, unknown>, request: unknown, signal?: AbortSignal) {
        const call = client.makeServerStreamRequest(
          rpc.path,
          rpc.requestSerialize,
          rpc.responseDeserialize,
          request,
          sent,
          { deadline: Date.now() + timeout },
        );
        const cancel = () => call.cancel();
        signal?.addEventListener('abort', cancel);
        try {
          for await (const message of call) yield message as unknown;
        } catch (error) {
          throw fromServiceError(error as ServiceError);
        } finally {
          signal?.removeEventListener('abort', cancel);
          cancel();
        }
      }
      const entries = Object.entries(definition).map(([key, rpc]) => [
        key,
        (request: unknown, signal?: AbortSignal) => read(rpc, request, signal),
      ]);
      return Object.fromEntries(entries) as Streams<typeof definition>;
    },

    client(definition, address, { token, metadata, timeout = 30_000 } = {}) {
      const client = open(address);
      const sent = metadataOf(token, metadata);
      const call = (rpc: MethodDefinition<unknown, unknown>) => (request: unknown) =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(
            rpc.path,
            rpc.requestSerialize,
            rpc.responseDeserialize,
            request,
            sent,
            { deadline: Date.now() + timeout },
            (error: ServiceError | null, response: unknown) => {
              if (error === null) resolve(response);
              else reject(fromServiceError(error));
            },
          );
        });
      return Object.fromEntries(Object.entries(definition).map(([key, rpc]) => [key, call(rpc)])) as Methods<
        typeof definition,
        []
      >;
    },

    stop: () => started.disposeAsync(),
  };
}

/** Starts services with the gateway in front of them, each after those that it calls. Users user1 to user5 are there. */
export async function startMesh({ services: names = serviceNames, env = {}, ...options }: MeshOptions): Promise<Mesh> {
  const harness = await openHarness(options);
  try {
    return await fillMesh(harness, names, env);
  } catch (error) {
    await harness.stop();
    throw error;
  }
}

async function fillMesh(harness: Harness, names: readonly string[], env: NodeJS.ProcessEnv): Promise<Mesh> {
  const modules = new Map(await Promise.all(names.map(async (name) => [name, await loadService(name)] as const)));
  const starting = new Map<string, Promise<StartedProcess>>();
  const start = (name: string, callers: readonly string[]): Promise<StartedProcess> => {
    if (callers.includes(name))
      throw new Error(`Services call each other in a circle: ${[...callers, name].join(' → ')}`);
    let process = starting.get(name);
    if (process === undefined) {
      const called = names.filter((other) => addressVariable(other) in modules.get(name)!.settings);
      const before = called.map((other) => start(other, [...callers, name]));
      process = Promise.all(before).then(() => harness.startService(name, { SEED_USERS: '5', ...env }));
      starting.set(name, process);
    }
    return process;
  };
  const outcomes = await Promise.allSettled(names.map(async (name) => [name, await start(name, [])] as const));
  // Only once all have ended one way or the other, so that what did start can be stopped.
  const services = Object.fromEntries(
    outcomes.map((outcome) => {
      if (outcome.status === 'rejected') throw outcome.reason;
      return outcome.value;
    }),
  );
  const gateway = await harness.startGateway(env);
  return { ...harness, url: `http://${gateway.address}`, services, gateway };
}

/** Nothing listens there: a service that wasn't started. */
const nowhere = '127.0.0.1:1';

function addressVariable(name: string): string {
  return `${name.toUpperCase()}_ADDRESS`;
}

async function loadService(name: string): Promise<ProcessModule> {
  return (await import(`../services/${name}/index.ts`)) as ProcessModule;
}

const template = 'chat4all_template';
/** Of all roles: they exist as long as the run's own PostgreSQL does. */
const rolePassword = 'Zk3-of-a-test-run-alone';

/** A database of this file's own, a copy of one in which everything is migrated. */
async function createDatabase() {
  const adminUrl = process.env.TEST_DATABASE_ADMIN_URL;
  if (!adminUrl) throw new Error('There is no database to test with: run `npm test`, or `node test/run.ts <file>`');
  const name = `test_${uuid().replaceAll('-', '').slice(0, 12)}`;
  await withAdmin(adminUrl, async (client) => {
    // One of the test files makes the template while the others wait; copies of one template can't be made at once either.
    await client.query('select pg_advisory_lock(4)');
    const { rows } = await client.query('select datistemplate from pg_database where datname = $1', [template]);
    if (rows[0]?.datistemplate !== true) {
      await client.query(`drop database if exists ${template}`);
      await client.query(`create database ${template}`);
      await prepare(withDatabase(adminUrl, template));
      await client.query(`alter database ${template} is_template true allow_connections false`);
    }
    await client.query(`create database ${name} template ${template} strategy file_copy`);
  });
  const url = withDatabase(adminUrl, name);
  return {
    name,
    adminUrl: url,
    url: (role: string) => withRole(url, role),
    drop: () => withAdmin(adminUrl, async (client) => void (await client.query(`drop database ${name} with (force)`))),
  };
}

/** What a file service keeps its files in: how it is told, and how to get rid of it. */
interface FileStore {
  env: NodeJS.ProcessEnv;
  drop(): Promise<void>;
}

async function createFolder(): Promise<FileStore> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-files-'));
  return { env: { FILES_DIR: folder }, drop: () => rm(folder, { recursive: true, force: true }) };
}

/** A bucket of this harness's own, which the file service makes. */
function nameBucket(databaseName: string): FileStore {
  if (!s3IsThere) throw new Error('There is no S3 to test with: run `npm test`, or `node test/run.ts <file>`');
  const endpoint = process.env.TEST_S3_ENDPOINT!;
  const accessKey = process.env.TEST_S3_ACCESS_KEY!;
  const secretKey = process.env.TEST_S3_SECRET_KEY!;
  // A name with an underscore is none for a bucket.
  const bucket = databaseName.replaceAll('_', '-');
  return {
    env: { S3_ENDPOINT: endpoint, S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey, S3_BUCKET: bucket },
    async drop() {
      const { Client: S3 } = await import('minio');
      const { hostname: endPoint, port, protocol } = new URL(endpoint);
      const s3 = new S3({ endPoint, port: Number(port), useSSL: protocol === 'https:', accessKey, secretKey });
      if (!(await s3.bucketExists(bucket))) return;
      // They would outlive their bucket.
      for await (const upload of s3.listIncompleteUploads(bucket, '', true)) {
        const { key, uploadId } = upload as { key: string; uploadId: string };
        await s3.abortMultipartUpload(bucket, key, uploadId);
      }
      const names: string[] = [];
      for await (const { name } of s3.listObjectsV2(bucket, '', true)) names.push(name as string);
      if (names.length > 0) await s3.removeObjects(bucket, names);
      await s3.removeBucket(bucket);
    },
  };
}

/** Makes all roles, schemas and tables, those of the bus included. */
async function prepare(url: string): Promise<void> {
  await provisionDatabase(url, { schema: 'bus', role: 'chat4all_bus', password: rolePassword });
  for (const name of serviceNames) {
    const { database } = (await import(`../services/${name}/database.ts`)) as { database: DatabaseDefinition };
    await provisionDatabase(url, { schema: database.schema, role: `chat4all_${name}`, password: rolePassword });
    await migrateDatabase(database, { url: withRole(url, name) });
  }
  const log = openLog({ name: 'bus', format: 'json', level: 'silent' });
  const config = loadConfig(busSettings, { BUS_DATABASE_URL: withRole(url, 'bus') });
  await (await openBus(config, { log, clientId: 'template' })).stop();
}

async function withAdmin(url: string, work: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

function withRole(url: string, name: string): string {
  const changed = new URL(url);
  changed.username = `chat4all_${name}`;
  changed.password = rolePassword;
  return changed.href;
}
