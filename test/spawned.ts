import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

/** A process of the hub, as `npm start` or an orchestrator runs one. */
export interface SpawnedProcess {
  child: ChildProcess;
  /** The port that it says it takes calls on; rejected if it ends without. */
  ready: Promise<number>;
  /** Its exit code, or the signal that ended it, once it has written everything. */
  ended: Promise<number | NodeJS.Signals>;
  /** Its log so far, line by line, as JSON. */
  lines: string[];
  /** What it has written to the standard error so far. */
  errors(): string;
  /** Lets it stop in order, if it still runs. */
  stop(): Promise<void>;
}

/** Runs Node in the project's folder with these arguments, and nothing but this environment. */
export function spawnProcess(args: readonly string[], env: NodeJS.ProcessEnv): SpawnedProcess {
  const child = spawn(process.execPath, args, {
    cwd: path.resolve(import.meta.dirname, '..'),
    env: { LOG_FORMAT: 'json', ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const lines: string[] = [];
  let rest = '';
  let errors = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    const parts = `${rest}${text}`.split('\n');
    rest = parts.pop()!;
    lines.push(...parts);
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const ended = Promise.all([once(child, 'exit'), once(child.stdout!, 'end'), once(child.stderr!, 'end')]).then(
    ([[code, signal]]) => (code ?? signal) as number | NodeJS.Signals,
  );
  const ready = Promise.race([
    once(child, 'message').then(([message]) => (message as { port: number }).port),
    ended.then((code) => Promise.reject<number>(new Error(`It ended with ${code}:\n${errors}${lines.join('\n')}`))),
  ]);
  // Not everybody waits for it.
  ready.catch(() => {});
  return {
    child,
    ready,
    ended,
    lines,
    errors: () => errors,
    async stop() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}
