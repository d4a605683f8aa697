import { chmod, copyFile, mkdir, open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { startKafka } from '../../dev/engines/kafka.ts';
import { startMinio } from '../../dev/engines/minio.ts';
import { startPostgres } from '../../dev/engines/postgres.ts';
import { startToxiproxy, toxiproxyAvailable, toxiproxyNeeds, type Link } from '../../dev/engines/toxiproxy.ts';
import { freePorts } from '../../dev/ports.ts';
import type { commands } from '../bench/hub.ts';
import { openRemote } from '../bench/remote.ts';
import { mountDisk, type Disk } from './disk.ts';
import { keepEngine, type Engine, type KeptServer } from './engine.ts';
import type { Targets } from './plan.ts';

/** `real`: Kafka, PostgreSQL and MinIO. `embedded`: PostgreSQL, which is the bus as well, and a folder. */
export type EngineKind = 'real' | 'embedded';

export interface SystemOptions {
  engines: EngineKind;
  /** Where everything is kept; a folder that others may enter. */
  folder: string;
  /** How many of each service run. */
  replicas: number;
  /** Whether each engine's data is on a disk of its own that can be filled. */
  disks: boolean;
  /** MiB of such a disk. */
  diskSize: number;
  /** For all processes of the hub. */
  env: Record<string, string>;
  /** Where webhooks are received, in this process. */
  receiverPort: number;
  signal: AbortSignal;
  tell: (line: string) => void;
}

/** A whole hub on engines of its own, all of which can be broken. */
export interface System {
  /** Of the gateway. */
  url: string;
  /** Of the gateway, over connections that can be broken, where any can. */
  breakableUrl: string;
  /** Where the hub finds the receiver of webhooks. */
  receiverPort: number;
  /** Of an administrator of the database, past the proxy. */
  databaseUrl: string;
  kafkaBrokers?: string;
  minio?: { endpoint: string; accessKey: string; secretKey: string; folder: string };
  /** Where the embedded hub keeps files. */
  filesDir?: string;
  /** What the processes of the hub have written. */
  logFile: string;
  targets: Targets;
  /** What can't be broken here, and why, for people. */
  leftOut: string[];
  pids(): Promise<Record<string, number>>;
  /** Lets a process stop in order, and starts it again. */
  restart(name: string): Promise<void>;
  engines: Record<string, Engine>;
  links: Record<string, Link>;
  disks: Record<string, Disk>;
  /** Copies the engines' logs into a folder. */
  keepLogs(folder: string): Promise<void>;
  stop(): Promise<void>;
}

const startLimit = 120_000;
const pidsLimit = 5_000;
const restartLimit = 90_000;

/**
 * Starts everything and waits until it is ready.
 *
 * @throws Error naming what doesn't start
 */
export async function startSystem(options: SystemOptions): Promise<System> {
  const { folder, signal, tell } = options;
  await using started = new AsyncDisposableStack();
  const disks: Record<string, Disk> = {};
  const leftOut: string[] = [];

  async function disk(name: string, at: string): Promise<void> {
    if (!options.disks) return;
    const mounted = await mountDisk(at, options.diskSize);
    started.defer(() => mounted.unmount().catch(() => {}));
    disks[name] = mounted;
  }
  if (!options.disks) leftOut.push('full disks: only root may mount small ones, on Linux');

  const proxy = toxiproxyAvailable()
    ? await startToxiproxy({ dataDir: path.join(folder, 'toxiproxy'), log: tell, signal })
    : undefined;
  if (proxy === undefined) leftOut.push(`connections: Toxiproxy needs ${toxiproxyNeeds}`);
  else started.defer(() => proxy.stop());
  const links: Record<string, Link> = {};
  const engines: Record<string, Engine> = {};
  const logs: Record<string, string> = {};

  /** @returns where a port is found over connections that can be broken */
  async function breakable(name: string, upstream: number): Promise<number> {
    if (proxy === undefined) return upstream;
    const [port] = (await freePorts(1)) as [number];
    links[name] = await proxy.open(name, { port, upstream });
    return port;
  }

  /** Two ports: where an engine listens, and where the services find it. */
  async function wayTo(name: string): Promise<{ own: number; public: number }> {
    const [own] = (await freePorts(1)) as [number];
    return { own, public: await breakable(name, own) };
  }

  async function keep(name: string, start: () => Promise<KeptServer>): Promise<void> {
    const engine = await keepEngine(name, start, tell);
    started.defer(() => engine.stop());
    engines[name] = engine;
  }

  const env: Record<string, string | undefined> = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    BUS_PREFIX: undefined,
    S3_ENDPOINT: undefined,
    FILES_DIR: undefined,
    LOG_FORMAT: 'json',
    LOG_LEVEL: 'info',
    ...options.env,
  };
  const system: Partial<System> = {};

  const postgresDir = path.join(folder, 'postgres');
  await disk('postgres', postgresDir);
  const postgresWay = await wayTo('postgres');
  await keep('postgres', async () => {
    const server = await startPostgres({ dataDir: postgresDir, port: postgresWay.own });
    system.databaseUrl = server.adminUrl;
    return server;
  });
  const throughProxy = new URL(system.databaseUrl!);
  throughProxy.port = String(postgresWay.public);
  env.DATABASE_URL = throughProxy.href;
  logs.postgres = path.join(postgresDir, 'server.log');

  if (options.engines === 'real') {
    const kafkaDir = path.join(folder, 'kafka');
    await disk('kafka', path.join(kafkaDir, 'topics'));
    const kafkaWay = await wayTo('kafka');
    const minioDir = path.join(folder, 'minio');
    await disk('minio', path.join(minioDir, 'objects'));
    const minioWay = await wayTo('minio');
    await Promise.all([
      keep('kafka', () =>
        startKafka({ dataDir: kafkaDir, port: kafkaWay.own, advertisedPort: kafkaWay.public, log: tell }),
      ),
      keep('minio', async () => {
        const server = await startMinio({ dataDir: minioDir, port: minioWay.own, log: tell });
        const { endpoint, accessKey, secretKey } = server;
        system.minio = { endpoint, accessKey, secretKey, folder: path.join(minioDir, 'objects') };
        return server;
      }),
    ]);
    env.KAFKA_BROKERS = system.kafkaBrokers = `127.0.0.1:${kafkaWay.public}`;
    env.S3_ENDPOINT = `http://127.0.0.1:${minioWay.public}`;
    env.S3_ACCESS_KEY = system.minio!.accessKey;
    env.S3_SECRET_KEY = system.minio!.secretKey;
    logs.kafka = path.join(kafkaDir, 'server.log');
    logs.minio = path.join(minioDir, 'server.log');
  } else {
    const filesDir = path.join(folder, 'files');
    await disk('files', filesDir);
    env.FILES_DIR = system.filesDir = filesDir;
  }

  const receiverPort = await breakable('webhooks', options.receiverPort);

  signal.throwIfAborted();
  const logFile = path.join(folder, 'hub.log');
  const log = await open(logFile, 'a');
  const hub = openRemote<typeof commands>(path.resolve(import.meta.dirname, '../bench/hub.ts'), log.fd, signal);
  await log.close();
  started.defer(() => hub.stop());
  const { url } = await hub
    .ask('start', { dataDir: path.join(folder, 'data'), env, replicas: options.replicas }, startLimit)
    .catch(async (error: unknown) => {
      signal.throwIfAborted();
      const written = (await readFile(logFile, 'utf8')).slice(-3_000);
      throw new Error(`The hub doesn't start. The end of its output:\n${written}`, { cause: error });
    });
  const pids = async () => {
    const { supervisor: _, ...processes } = await hub.ask('pids', undefined as never, pidsLimit);
    return processes;
  };
  const processes = Object.keys(await pids()).toSorted();
  const breakableUrl = `http://127.0.0.1:${await breakable('streams', Number(new URL(url).port))}`;

  const everything = started.move();
  return {
    url,
    breakableUrl,
    receiverPort,
    databaseUrl: system.databaseUrl!,
    ...(system.kafkaBrokers === undefined ? {} : { kafkaBrokers: system.kafkaBrokers }),
    ...(system.minio === undefined ? {} : { minio: system.minio }),
    ...(system.filesDir === undefined ? {} : { filesDir: system.filesDir }),
    logFile,
    targets: {
      processes,
      engines: Object.keys(engines).toSorted(),
      links: Object.keys(links).toSorted(),
      disks: Object.keys(disks).toSorted(),
    },
    leftOut,
    pids,
    restart: (name) => hub.ask('restart', name, restartLimit),
    engines,
    links,
    disks,
    async keepLogs(to) {
      await mkdir(to, { recursive: true });
      for (const [name, file] of Object.entries({ ...logs, hub: logFile })) {
        await copyFile(file, path.join(to, `${name}.log`)).catch((error: Error) =>
          tell(`${name}'s log: ${error.message}`),
        );
      }
      await chmod(to, 0o755);
    },
    stop: () => everything.disposeAsync(),
  };
}
