import { spawn, type ChildProcess } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isFree } from '../ports.ts';

/** A server of our own, on loopback only. To restart it, start again on the same folder and port. */
export interface Server {
  port: number;
  pid: number;
  /** Fulfilled when the server has ended, for whatever reason. */
  exited: Promise<void>;
  /** Stops gracefully; after a while by force. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash does. Returns once it is gone. */
  kill(): Promise<void>;
}

export interface ServerOptions {
  /** As people call it. */
  name: string;
  program: string;
  args: readonly string[];
  /** In place of the environment of this process. */
  env?: NodeJS.ProcessEnv;
  /** A folder that is there. The server runs in it and writes into its `server.log`. */
  dataDir: string;
  /** Where it is going to listen. */
  port: number;
  /** Polled until it returns true. `written` returns the server's output since its start. */
  isReady: (written: () => Promise<string>) => Promise<boolean>;
  /** How long the start may take, in milliseconds. */
  startLimit: number;
  stopSignals: StopSignals;
  /** Gives up when it is aborted before the server is ready. */
  signal?: AbortSignal | undefined;
}

/** Signals to send one after the other, each with the milliseconds until the next. */
export type StopSignals = readonly (readonly [signal: NodeJS.Signals, limit: number])[];

/**
 * Starts a server that ends with this process, however that ends, and waits until it is ready.
 *
 * @throws Error if its port is taken, or with the last lines of its log if it doesn't get ready in time
 */
export async function startServer(options: ServerOptions): Promise<Server> {
  const { name, dataDir, port, signal, stopSignals } = options;
  if (!(await isFree(port, '127.0.0.1'))) {
    throw new Error(`${name} can't start on port ${port}: another program listens there.`);
  }
  const logFile = path.join(dataDir, 'server.log');
  const log = await open(logFile, 'a', 0o600);
  const logStart = (await log.stat()).size;
  // A process group of its own: Ctrl-C in the terminal must not stop it before those that use it.
  const server = spawn(options.program, options.args, {
    cwd: dataDir,
    env: options.env ?? process.env,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  let gone = false;
  let failure: Error | undefined;
  const exited = new Promise<void>((resolve) => {
    const end = (error?: unknown) => {
      if (error instanceof Error) failure = error;
      gone = true;
      resolve();
    };
    server.once('error', end);
    server.once('exit', end);
  });
  await log.close();
  watchServer(server, exited, 'kill "$1"');

  const written = async () => (await readFile(logFile)).subarray(logStart).toString();
  const giveUp = Date.now() + options.startLimit;
  while (!gone && !signal?.aborted && Date.now() < giveUp) {
    if ((await options.isReady(written)) && !gone) {
      return {
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
    await Promise.race([sleep(50), exited]);
  }
  if (!gone) await stopServer(server, exited, stopSignals);
  signal?.throwIfAborted();
  const end = lastLines((await written()) || String(failure ?? 'nothing was written'));
  throw new Error(`${name} doesn't start on port ${port} in ${dataDir}. The end of its log:\n${end}`);
}

/**
 * Runs a shell script when this process is gone, however it ended: the pipe that the script waits on then closes. `$1` is
 * the server's pid, what follows are `args`. The watcher ends with the server.
 */
export function watchServer(server: ChildProcess, exited: Promise<void>, script: string, args: string[] = []): void {
  if (process.platform === 'win32' || server.pid === undefined) return;
  const watcher = spawn('sh', ['-c', `read -r _; ${script}`, 'sh', String(server.pid), ...args], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watcher.on('error', () => {});
  watcher.unref();
  (watcher.stdin as unknown as { unref(): void }).unref();
  void exited.then(() => watcher.kill('SIGKILL'));
}

/** Sends one signal after the other, each when the server has not ended within the milliseconds of the one before. */
export async function stopServer(server: ChildProcess, exited: Promise<void>, signals: StopSignals): Promise<void> {
  for (const [signal, limit] of signals) {
    server.kill(signal);
    // A frozen process could not handle the signal.
    if (process.platform !== 'win32') server.kill('SIGCONT');
    const timer = new AbortController();
    const stopped = await Promise.race([
      exited.then(() => true),
      sleep(limit, false, { signal: timer.signal }).catch(() => false),
    ]);
    timer.abort();
    if (stopped) return;
  }
}

/** The end of a log. */
export function lastLines(text: string): string {
  return text.trim().split('\n').slice(-15).join('\n');
}
