import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { backoffMs } from '#lib/backoff.ts';
import { duration } from '#lib/config.ts';
import type { Logger } from '#lib/log.ts';
import { pauseFor } from '#lib/retry.ts';
import { StartError } from '#lib/starting.ts';
import { serviceNames } from '../services/names.ts';
import { claimFolder, openSecrets, type Secrets } from './data-folder.ts';
import { startPostgres, type Postgres } from './engines/postgres.ts';
import { startDemoTools } from './demo-tools.ts';
import { choosePorts, type Ports, type Replica } from './hub-ports.ts';
import { childDefinitions, type Spread } from './hub-processes.ts';
import { supervise, type Supervisor } from './supervisor.ts';

export interface HubOptions {
  /** Where the data and the secrets are kept; made if it is missing. One hub at a time. */
  dataDir: string;
  /** The gateway's port; 0 takes a free one. */
  port: number;
  /** The first of the gRPC ports; 0 takes free ones. */
  grpcPortBase: number;
  /** Whether the services may have later ports where one of theirs is taken; by default the hub doesn't start then. */
  grpcPortsMayMove?: boolean;
  /** How many processes each service has; one by default. */
  replicas?: number | undefined;
  /** Whether all of it runs in `one` process beside the engines, or `each` part in its own, as it has to with replicas. */
  processes: Spread;
  /**
   * Handed to every process. DATABASE_URL (of a role that may create roles and schemas), KAFKA_BROKERS and S3_ENDPOINT replace the
   * embedded engines.
   */
  env: NodeJS.ProcessEnv;
  log: Logger;
  /** Cancels the start: what has been started is stopped again. */
  signal?: AbortSignal;
}

/** A whole hub: engines, services and gateway. */
export interface Hub {
  /** The gateway's base URL, without a slash at the end. */
  url: string;
  /** By service; of further processes of one by `message-2`, `message-3`, … */
  grpcPorts: Record<string, number>;
  /** The default gRPC port that another program has, if the hub has later ones because of it. */
  takenPort: number | undefined;
  /** The connection URL of the database's administrator, with the password. */
  databaseUrl: string;
  /**
   * The processes that run now, by name: those of the services and `gateway`, or `hub` if they are one, and, where it is embedded,
   * `postgres`.
   */
  pids(): Record<string, number>;
  /** Sends a signal to one process. One that ends is started again. */
  kill(name: string, signal: NodeJS.Signals): void;
  /** Lets one process stop gracefully, starts it again and waits until it is ready. */
  restart(name: string): Promise<void>;
  /** Stops the gateway, then the services, then the engines. */
  stop(): Promise<void>;
}

const root = path.resolve(import.meta.dirname, '..');
const startTimeoutMs = 60_000;
/** How soon PostgreSQL starts again after it has ended. */
const restartBackoff = { firstMs: 200, maxMs: 5_000, jitter: 0 };
/** How often all services are started again on other ports because another program took one of theirs meanwhile. */
const maxMoves = 2;
/** How long the processes of a hub that was killed may take to end. */
const abandonedTimeoutMs = 12_000;

/**
 * Starts a hub and waits until it is ready.
 *
 * @throws StartError if a port or the folder is taken, a process can't start, or it isn't ready within a minute
 */
export async function startHub(options: HubOptions): Promise<Hub> {
  const { env, log, signal } = options;
  const dataDir = path.resolve(options.dataDir);
  await using started = new AsyncDisposableStack();

  const folder = await claimFolder(dataDir).catch((error: Error) => {
    throw new StartError(error.message, { cause: error });
  });
  started.defer(() => folder.release());
  const replicas = serviceNames.flatMap((service) => replicasOf(service, options.replicas ?? 1));
  const findPorts = async (port: number, patienceMs: number): Promise<Ports> => {
    const { grpcPortBase, grpcPortsMayMove: mayMove = false } = options;
    const asked = { port, grpcPortBase, mayMove, host: env.HOST, grpcHost: env.GRPC_HOST, patienceMs };
    const found = await choosePorts(replicas, asked).catch((error: Error) => {
      throw new StartError(error.message, { cause: error });
    });
    const numbers = Object.values(found.services);
    const [first, last] = [Math.min(...numbers), Math.max(...numbers)];
    if (found.taken !== undefined) {
      log.warn(`Port ${found.taken} is taken by another program: the services have ports ${first} to ${last}`);
    }
    return found;
  };
  let ports = await findPorts(options.port, folder.abandoned ? abandonedTimeoutMs : 0);

  const secrets = await openSecrets(dataDir, [...serviceNames, 'bus', 'gateway']);
  const cache = env.NODE_COMPILE_CACHE || path.join(dataDir, 'compile-cache');
  await mkdir(cache, { recursive: true });
  // No load balancer has to notice that a process stops: its callers are told over the connection.
  const common: NodeJS.ProcessEnv = {
    SHUTDOWN_TIMEOUT: '5s',
    SHUTDOWN_NOTICE: '0s',
    DATABASE_POOL: poolSize(options.replicas ?? 1),
    ...env,
    LAPTOP_MODE: 'true',
    NODE_COMPILE_CACHE: cache,
  };

  const postgresDir = path.join(dataDir, 'postgres');
  const migrated = path.join(postgresDir, 'migrated');
  const version = await migrationsVersion(env.KAFKA_BROKERS ? 'Kafka' : 'PostgreSQL', secrets);
  const isMigrated = !env.DATABASE_URL && (await readFile(migrated, 'utf8').catch(() => '')) === version;
  // Loading the migrations' code takes as long as creating a database: both at once.
  const migration = isMigrated ? undefined : startMigration(common, secrets, started);
  const database = env.DATABASE_URL ? { url: env.DATABASE_URL } : await embeddedDatabase(postgresDir, started, log);
  signal?.throwIfAborted();
  await migration?.run(database.url, signal);
  if (migration !== undefined && !env.DATABASE_URL) await writeFile(migrated, version);

  const demoTools = await startDemoTools();
  started.defer(() => demoTools.stop());
  const filesDir = path.join(dataDir, 'files');
  const [notice = 0, timeout = 5_000] = [common.SHUTDOWN_NOTICE, common.SHUTDOWN_TIMEOUT].map(
    (text) => duration({ min: 0, max: 300_000 }).safeParse(text).data,
  );
  const host = ['', '0.0.0.0', '::'].includes(env.HOST ?? '') ? '127.0.0.1' : env.HOST!;
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${ports.gateway}`;
  const startProcesses = async (): Promise<Supervisor> => {
    for (let movesLeft = maxMoves; ; movesLeft -= 1) {
      const children = childDefinitions({
        env: common,
        spread: options.processes,
        replicas,
        ports,
        secrets,
        databaseUrl: database.url,
        filesDir,
        mailDir: path.join(dataDir, 'mail'),
        demoToolsUrl: demoTools.url,
      });
      const supervisor = supervise({ ...children, log, stopLimit: notice + timeout + 1_000 });
      started.defer(() => supervisor.stop());
      try {
        await ready(supervisor.ready, url, signal);
        return supervisor;
      } catch (error) {
        if (!options.grpcPortsMayMove || movesLeft === 0 || signal?.aborted) throw error;
        await supervisor.stop();
        // One may have been taken between the look at it and the service that was to have it.
        const others = await findPorts(ports.gateway, 0);
        if (isDeepStrictEqual(others.services, ports.services)) throw error;
        ports = others;
      }
    }
  };
  const supervisor = await startProcesses();

  const everything = started.move();
  let stopping: Promise<void> | undefined;
  return {
    url,
    grpcPorts: ports.services,
    takenPort: ports.taken,
    databaseUrl: database.url,
    pids: () => ({ ...supervisor.pids(), ...('pids' in database ? database.pids() : {}) }),
    kill(name, sent) {
      if (name === 'postgres' && 'kill' in database) database.kill(sent);
      else supervisor.kill(name, sent);
    },
    restart: (name) => supervisor.restart(name),
    stop: () => (stopping ??= everything.disposeAsync()),
  };
}

function replicasOf(service: string, count: number): Replica[] {
  return Array.from({ length: count }, (_, number) => ({
    name: number === 0 ? service : `${service}-${number + 1}`,
    service,
    number,
  }));
}

/** As many connections for all processes of a service as one has, so that the embedded PostgreSQL has enough. */
function poolSize(replicas: number): string {
  return String(Math.max(3, Math.floor(10 / replicas)));
}

/** Keeps a PostgreSQL running: started again on the same port if it ends by itself. */
async function embeddedDatabase(
  dataDir: string,
  started: AsyncDisposableStack,
  log: Logger,
): Promise<{ url: string; pids(): Record<string, number>; kill(signal: NodeJS.Signals): void }> {
  const stopped = new AbortController();
  let current: Postgres = await startPostgres({ dataDir }).catch((error: Error) => {
    throw new StartError(error.message, { cause: error });
  });
  let alive = true;

  const ended = (async () => {
    for (;;) {
      await current.exited;
      alive = false;
      for (let failures = 1; !alive; failures += 1) {
        if (stopped.signal.aborted) return;
        const pause = backoffMs(restartBackoff, failures);
        log.warn(`postgres ended; it starts again in ${pause / 1000} s`);
        if (!(await pauseFor(pause, stopped.signal))) return;
        try {
          current = await startPostgres({ dataDir, port: current.port });
          alive = true;
          if (stopped.signal.aborted) await current.stop();
        } catch (error) {
          log.error({ err: error }, "postgres doesn't start");
        }
      }
    }
  })();
  started.defer(async () => {
    stopped.abort();
    if (alive) await current.stop();
    await ended;
    // Of one that was killed something may be left.
    await current.stop();
  });

  return {
    url: current.adminUrl,
    pids: (): Record<string, number> => (alive ? { postgres: current.pid } : {}),
    kill(signal: NodeJS.Signals) {
      if (alive) process.kill(current.pid, signal);
    },
  };
}

/** Changes with any migration, with any service that comes or goes, with the passwords of the roles, and with where the bus is. */
async function migrationsVersion(bus: string, secrets: Secrets): Promise<string> {
  const hash = createHash('sha256').update(`${bus}\n${JSON.stringify(secrets.databasePasswords)}\n`);
  for (const service of serviceNames) {
    const folder = path.join(root, 'services', service);
    const files = globSync('{.,*}/migrations/*.ts', { cwd: folder }).toSorted();
    hash.update(`${service}\n`);
    for (const file of files) hash.update(`${file}\n`).update(await readFile(path.join(folder, file)));
  }
  return hash.digest('hex');
}

/** Runs bin/migrate.ts, in a process of its own: it loads the code of all services. */
function startMigration(env: NodeJS.ProcessEnv, secrets: Secrets, started: AsyncDisposableStack) {
  const passwords = Object.entries(secrets.databasePasswords).map(([name, password]) => [
    `${name.toUpperCase()}_DATABASE_PASSWORD`,
    password,
  ]);
  const child = spawn(process.execPath, [path.join(root, 'bin/migrate.ts')], {
    env: { ...env, ...Object.fromEntries(passwords) },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    timeout: 2 * startTimeoutMs,
    detached: true,
  });
  let errors = '';
  child.stderr!.on('data', (data) => (errors += String(data)));
  const ended = Promise.all([once(child, 'exit'), once(child.stderr!, 'end')]).then(
    ([[code]]) => code as number | null,
  );
  // Whoever gives up before it has run doesn't hear of it.
  ended.catch(() => {});
  started.defer(async () => {
    child.kill('SIGKILL');
    await ended.catch(() => {});
  });
  return {
    async run(databaseUrl: string, signal?: AbortSignal): Promise<void> {
      // It may have failed already: then the exit code tells.
      child.send({ DATABASE_URL: databaseUrl }, () => {});
      const code = await (signal === undefined ? ended : Promise.race([ended, rejectOn(signal)]));
      if (code !== 0) throw new StartError(`The database can't be prepared:\n${errors.trim() || `exit code ${code}`}`);
    },
  };
}

/** Waits until all processes are up and the gateway says that everything that it needs is, too. */
async function ready(allUp: Promise<void>, url: string, signal?: AbortSignal): Promise<void> {
  const limit = AbortSignal.timeout(startTimeoutMs);
  const over = signal === undefined ? limit : AbortSignal.any([signal, limit]);
  let last = 'not all processes have started';
  try {
    await Promise.race([allUp, rejectOn(over)]);
    for (;;) {
      over.throwIfAborted();
      try {
        const answer = await fetch(`${url}/ready`, { signal: AbortSignal.any([over, AbortSignal.timeout(2_000)]) });
        last = await answer.text();
        if (answer.ok) return;
      } catch (error) {
        last = String(error);
      }
      await sleep(20, undefined, { signal: over });
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!limit.aborted) throw new StartError((error as Error).message, { cause: error });
    throw new StartError(`The hub isn't ready after ${startTimeoutMs / 1000} s: ${last}`, { cause: error });
  }
}

function rejectOn(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });
}
