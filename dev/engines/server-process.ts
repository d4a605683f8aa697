import { spawn, type ChildProcess } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

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
export async function stopServer(
  server: ChildProcess,
  exited: Promise<void>,
  signals: readonly (readonly [signal: NodeJS.Signals, limit: number])[],
): Promise<void> {
  for (const [signal, limit] of signals) {
    server.kill(signal);
    // A frozen one couldn't take the signal.
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
