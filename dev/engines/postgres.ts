import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { chmod, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePorts } from '../ports.ts';
import { openPrograms, type Programs } from './postgres-programs.ts';
import { lastLines, stopServer, watchServer } from './server-process.ts';

const run = promisify(execFile);

export interface PostgresOptions {
  /** Where everything is kept: the cluster, the password of its superuser and the server's log. Made if it is missing. */
  dataDir: string;
  /** A free one by default. */
  port?: number;
}

/** A PostgreSQL server of our own, on loopback only. */
export interface Postgres {
  /** Of the superuser; contains the password. */
  adminUrl: string;
  port: number;
  /** Of the postmaster. */
  pid: number;
  /** Fulfilled when the server has ended, for whatever reason. */
  exited: Promise<void>;
  /** Ends all sessions and stops gracefully; after 10 s by force. */
  stop(): Promise<void>;
  /** SIGKILL to the postmaster: what a crash does. Returns once it is gone. */
  kill(): Promise<void>;
}

/**
 * Durability is PostgreSQL's default (fsync and synchronous_commit on). Statements stay out of the log: they may show secrets. A
 * laptop's disk reads at random as fast as in sequence. Tables are new there, and plans that were made while they were empty scan
 * the whole of them: so statistics are gathered, and those plans made again, within seconds in place of a minute. Connections are enough
 * for three processes of each service with PostgreSQL as their bus, as in docker-compose.yml; tests of two files at once have more than 200.
 */
const serverSettings: Record<string, string> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '600',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
  log_min_error_statement: 'panic',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_wal_size: '512MB',
  io_method: 'sync',
  jit: 'off',
  random_page_cost: '1.1',
  autovacuum_naptime: '5s',
};

/** Means nothing to PostgreSQL. On the server's command line it says what `-D` may not: the path of the server's data. */
const clusterSetting = 'chat4all.cluster';

const startLimit = 60_000;
const stopLimit = 10_000;
/** Fast shutdown, then immediate shutdown. */
const stopSignals = [
  ['SIGINT', stopLimit],
  ['SIGQUIT', 3_000],
  ['SIGKILL', 3_000],
] as const;
/** A little later than at once, so that the processes that use the database can finish first. */
const stopLater = 'sleep 3; if [ "$(head -n 1 "$2")" = "$1" ]; then kill -INT "$1"; fi';
const largestLog = 1024 * 1024;

/**
 * Starts the embedded PostgreSQL on `dataDir`, making the cluster the first time. A server that an earlier process left
 * behind on the same folder is stopped first: whoever shares a folder must see to it that only one starts it.
 *
 * @throws Error with the last lines of the server's log if it doesn't get ready within a minute
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  const dataDir = path.resolve(options.dataDir);
  const cluster = path.join(dataDir, 'cluster');
  await stopLeftover(cluster);
  const programs = await openPrograms(dataDir);
  try {
    return await startCluster({ dataDir, cluster, programs, wantedPort: options.port });
  } catch (error) {
    await programs.remove();
    throw error;
  }
}

async function startCluster(options: {
  dataDir: string;
  cluster: string;
  programs: Programs;
  wantedPort: number | undefined;
}): Promise<Postgres> {
  const { dataDir, cluster, programs, wantedPort } = options;
  await programs.own(dataDir);
  const password = await initialise({ dataDir, cluster, programs });

  const giveUp = Date.now() + startLimit;
  for (;;) {
    const port = wantedPort ?? (await freePorts(1))[0]!;
    const outcome = await startServer({ cluster, port, programs, giveUp });
    if ('server' in outcome) {
      const { server, exited } = outcome;
      return {
        adminUrl: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
        port,
        pid: server.pid!,
        exited,
        async stop() {
          await stopServer(server, exited, stopSignals);
          await programs.remove();
        },
        async kill() {
          server.kill('SIGKILL');
          await exited;
        },
      };
    }
    // Backends outlive a killed postmaster for a moment, and a free port may be taken by another in between.
    const passing =
      /pre-existing shared memory block|is still in use/.test(outcome.log) ||
      (wantedPort === undefined && /could not bind|could not create any TCP/.test(outcome.log));
    if (!passing || Date.now() > giveUp) {
      throw new Error(`PostgreSQL doesn't start in ${dataDir}. The end of its log:\n${outcome.log}`);
    }
    await sleep(100);
  }
}

/** Makes the cluster if there is none, in a folder beside it first: one that was interrupted is never taken for a whole one. */
async function initialise(options: { dataDir: string; cluster: string; programs: Programs }): Promise<string> {
  const { dataDir, cluster, programs } = options;
  const passwordFile = path.join(dataDir, 'password');
  const exists = await stat(path.join(cluster, 'PG_VERSION')).then(Boolean, () => false);
  if (exists) {
    const { user } = programs;
    if (user !== undefined && (await stat(cluster)).uid === 0) {
      await run('chown', ['-R', `${user.uid}:${user.gid}`, cluster]);
    }
    await chmod(cluster, 0o700);
    return (await readFile(passwordFile, 'utf8')).trim();
  }

  const password = randomBytes(24).toString('base64url');
  await rm(passwordFile, { force: true });
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await programs.own(passwordFile);
  const unfinished = `${cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { mode: 0o700 });
  await programs.own(unfinished);

  const args = [
    `--pgdata=${programs.reach(unfinished)}`,
    // From the folder that it runs in.
    `--pwfile=../${path.basename(passwordFile)}`,
    '--username=postgres',
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--no-instructions',
  ];
  try {
    const env = serverEnvironment();
    await run(programs.initdb, args, { ...programs.user, cwd: unfinished, env, timeout: startLimit });
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    throw new Error(`PostgreSQL's initdb failed in ${dataDir}:\n${lastLines(stderr || String(error))}`, {
      cause: error,
    });
  }
  await rename(unfinished, cluster);
  return password;
}

function serverEnvironment(): NodeJS.ProcessEnv {
  // Nothing that a user has set for other servers (PGDATA, PGPORT, PGOPTIONS) or for Node may reach this one.
  const { PATH, HOME, TMPDIR, SystemRoot } = process.env;
  return { PATH, HOME, TMPDIR, SystemRoot, LC_ALL: 'C' };
}

/** What postmaster.pid says: line 1 the process, line 8 its state (PostgreSQL's utils/pidfile.h). */
async function readPidFile(cluster: string): Promise<{ pid: number; ready: boolean } | undefined> {
  const text = await readFile(path.join(cluster, 'postmaster.pid'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  return { pid: Number(lines[0]), ready: lines[7]?.trim() === 'ready' };
}

/** Whether this process is a server on this cluster, and not a later one that was given the same number. */
async function isServerOn(cluster: string, pid: number): Promise<boolean> {
  if (!Number.isInteger(pid) || pid <= 1) return false;
  let args: string;
  try {
    args =
      process.platform === 'linux'
        ? (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ')
        : `${(await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)])).stdout.trimEnd()} `;
  } catch {
    return false;
  }
  return args.includes('postgres') && ['-D ', `${clusterSetting}=`].some((by) => args.includes(` ${by}${cluster} `));
}

async function stopLeftover(cluster: string): Promise<void> {
  const found = await readPidFile(cluster);
  if (found === undefined) return;
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    if (!(await isServerOn(cluster, found.pid))) break;
    send(found.pid, signal);
    for (const limit = Date.now() + stopLimit; Date.now() < limit && (await isServerOn(cluster, found.pid));) {
      await sleep(20);
    }
  }
  // PostgreSQL would take any living process of that number for its owner.
  await rm(path.join(cluster, 'postmaster.pid'), { force: true });
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

async function startServer(options: {
  cluster: string;
  port: number;
  programs: Programs;
  giveUp: number;
}): Promise<{ server: ChildProcess; exited: Promise<void> } | { log: string }> {
  const { cluster, port, programs } = options;
  const logFile = path.join(path.dirname(cluster), 'server.log');
  const grown = await stat(logFile).then(
    (found) => found.size > largestLog,
    () => false,
  );
  const log = await open(logFile, grown ? 'w' : 'a', 0o600);
  const logStart = (await log.stat()).size;

  const settings = Object.entries({ ...serverSettings, port: String(port), [clusterSetting]: cluster });
  const args = ['-D', programs.reach(cluster), ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`])];
  // A process group of its own: Ctrl-C in the terminal must not stop it before those that use it.
  const server = spawn(programs.postgres, args, {
    ...programs.user,
    cwd: cluster,
    env: serverEnvironment(),
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  let failure: Error | undefined;
  let gone = false;
  const exited = new Promise<void>((resolve) => {
    server.once('error', (error) => {
      failure = error;
      gone = true;
      resolve();
    });
    server.once('exit', () => {
      gone = true;
      resolve();
    });
  });
  await log.close();

  while (!gone && Date.now() < options.giveUp) {
    const found = await readPidFile(cluster);
    if (found?.pid === server.pid && found?.ready) {
      watchServer(server, exited, stopLater, [path.join(cluster, 'postmaster.pid')]);
      return { server, exited };
    }
    await Promise.race([sleep(10), exited]);
  }
  if (!gone) await stopServer(server, exited, stopSignals);
  const written = (await readFile(logFile)).subarray(logStart).toString();
  return { log: lastLines(written.trim() || String(failure ?? 'nothing was written')) };
}
