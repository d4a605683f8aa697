import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { homedir, setPriority, constants as system } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { lastLines } from './server-process.ts';

const execute = promisify(execFile);

export interface InstallOptions {
  /** Called with a line about each slow step. */
  log?: (line: string) => void;
  /** Cancels the work. */
  signal?: AbortSignal;
}

/**
 * The folder of an engine's version, shared by all checkouts of this user: below `chat4all/engines` in the cache folder (XDG Base Directory
 * Specification: XDG_CACHE_HOME, else `~/.cache`), or in this checkout if that isn't writable.
 */
export function engineHome(name: string, version: string, env: NodeJS.ProcessEnv = process.env): string {
  const given = env['XDG_CACHE_HOME'] ?? '';
  const home = env['HOME'] ?? homedir();
  // The specification ignores relative paths.
  const cache = path.isAbsolute(given) ? given : existsSync(home) ? path.join(home, '.cache') : undefined;
  const checkout = path.resolve(import.meta.dirname, '../../.chat4all');
  const parent = cache !== undefined && mayBeWritten(cache) ? path.join(cache, 'chat4all') : checkout;
  return path.join(parent, 'engines', `${name}-${version}-${process.platform}-${process.arch}`);
}

/** Whether a folder can be written, or made. */
function mayBeWritten(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch (error) {
    const parent = path.dirname(folder);
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && parent !== folder && mayBeWritten(parent);
  }
}

/** Whether there is such a program on the PATH. */
export function isOnPath(program: string): boolean {
  return placeOnPath(program) !== undefined;
}

/** Where a program is that is on the PATH. */
export function placeOnPath(program: string): string | undefined {
  const places = (process.env['PATH'] ?? '').split(path.delimiter).filter((folder) => folder !== '');
  return places
    .map((folder) => path.join(folder, program))
    .find((place) => {
      try {
        accessSync(place, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/**
 * Creates the folder `home`, unless it exists. `make` fills a temporary folder, which is then renamed: an interrupted installation is never
 * used, and of concurrent processes the first one wins.
 */
export async function installOnce(home: string, make: (unfinished: string) => Promise<void>): Promise<void> {
  if (existsSync(home)) return;
  const unfinished = `${home}.${process.pid}-${randomBytes(4).toString('hex')}`;
  await mkdir(unfinished, { recursive: true });
  try {
    await make(unfinished);
    await rename(unfinished, home).catch((error: NodeJS.ErrnoException) => {
      // Another process was faster.
      if (!existsSync(home)) throw error;
    });
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}

/** A program that is built with Go. */
export interface GoProgram {
  name: string;
  /** With its version: `example.org/program@v1.2.3`. */
  module: string;
  /** How long it takes, for people. */
  time: string;
  /** Milliseconds that it may take. */
  limit: number;
}

/** Builds a program with Go into `home`, unless it is there. */
export async function installWithGo(
  home: string,
  { name, module, time, limit }: GoProgram,
  { log, signal }: InstallOptions,
): Promise<void> {
  await installOnce(home, async (unfinished) => {
    log?.(`Building ${name} with Go: ${time}, only this once (${module}).`);
    await runTool('go', ['install', '-trimpath', '-ldflags', '-s -w', module], {
      limit,
      failure: `${name} could not be built with Go. Is there a network, and a GOPROXY if you need one?`,
      cwd: unfinished,
      env: { GOBIN: unfinished, CGO_ENABLED: '0' },
      signal,
    });
  });
}

export interface ToolOptions {
  /** Milliseconds that it may take. */
  limit: number;
  /** What to say if it fails; the end of its output follows. */
  failure: string;
  cwd?: string;
  /** Over the environment of this process. */
  env?: NodeJS.ProcessEnv;
  signal?: AbortSignal | undefined;
}

/**
 * Runs a program that ends by itself. Its output is for errors only.
 *
 * @throws Error with `failure` and the end of the output; or an AbortError
 */
export async function runTool(program: string, args: readonly string[], options: ToolOptions): Promise<void> {
  const { limit, failure, cwd, env, signal } = options;
  try {
    const running = execute(program, args, {
      cwd,
      env: { ...process.env, ...env },
      signal,
      timeout: limit,
      maxBuffer: 16 * 1024 * 1024,
    });
    letOthersFirst(running.child.pid);
    await running;
  } catch (error) {
    // The signal may have come to the program itself, too, by Ctrl-C in the terminal.
    signal?.throwIfAborted();
    const { stdout = '', stderr = '', killed } = error as { stdout?: string; stderr?: string; killed?: boolean };
    const late = killed ? `It was not done after ${limit / 1_000} s. ` : '';
    throw new Error(`${failure} ${late}The end of its output:\n${lastLines(stdout + stderr || String(error))}`, {
      cause: error,
    });
  }
}

/** Lowers the priority of builds that run beside other work. */
function letOthersFirst(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, system.priority.PRIORITY_LOW);
  } catch {
    // It has ended already.
  }
}
