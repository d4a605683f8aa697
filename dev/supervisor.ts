import { spawn, type ChildProcess } from 'node:child_process';
import { within } from '#lib/deadline.ts';
import { configurationExitCode, type ReadyMessage } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { backoffMs } from '#lib/backoff.ts';
import { pauseFor } from '#lib/retry.ts';

export interface ChildDefinition {
  name: string;
  /** The program, run by this Node, and its arguments. It takes part in the protocol of lib/lifecycle.ts. */
  command: readonly string[];
  env: NodeJS.ProcessEnv;
}

export interface SupervisorOptions {
  /** All start at once. They stop group by group, in this order. */
  groups: readonly (readonly ChildDefinition[])[];
  log: Logger;
  /** Milliseconds that a child may take to stop before it is killed. */
  stopLimit: number;
}

export interface Supervisor {
  /**
   * Settles once every child has been ready.
   *
   * @throws Error naming the child that can't start: its configuration is not usable, or it failed three times
   */
  ready: Promise<void>;
  /** The processes that run now, by name. */
  pids(): Record<string, number>;
  /** Sends a signal to one child. What ends by it is started again. */
  kill(name: string, signal: NodeJS.Signals): void;
  /**
   * Lets one child stop in order, starts it again at once and waits until it is ready.
   *
   * @throws Error if it isn't ready within a minute
   */
  restart(name: string): Promise<void>;
  /** Stops all children and starts none again. */
  stop(): Promise<void>;
}

const backoff = { firstMs: 200, maxMs: 5_000, jitter: 0 };
/** A child that was up this long is healthy: if it crashes, it starts again without a long wait. */
const healthyAfter = 10_000;
const startAttempts = 3;
const restartLimit = 60_000;

/**
 * Keeps processes running: one that ends is started again, after a wait that doubles from 0.2 s up to 5 s.
 *
 * Each has a process group of its own, so that the terminal's Ctrl-C reaches only the supervisor, and an IPC channel by
 * which it notices when the supervisor is gone, however that ended, and stops itself.
 */
export function supervise({ groups, log, stopLimit }: SupervisorOptions): Supervisor {
  const stopped = new AbortController();
  const children = groups.map((group) => group.map((definition) => keepRunning(definition, log, stopped.signal)));
  const all = children.flat();
  const ready = Promise.all(all.map((child) => child.ready)).then(() => {});
  // Whoever stops before it settles isn't waiting for it any more.
  ready.catch(() => {});

  const named = (name: string) => {
    const found = all.find((child) => child.name === name);
    if (found === undefined) throw new Error(`no child is called ${name}`);
    return found;
  };
  let stopping: Promise<void> | undefined;
  return {
    ready,
    pids: () =>
      Object.fromEntries(
        all.flatMap(({ name, process }) => (process()?.pid === undefined ? [] : [[name, process()!.pid!]])),
      ),
    kill: (name, signal) => void named(name).process()?.kill(signal),
    restart: (name) => named(name).restart(stopLimit),
    stop() {
      stopping ??= (async () => {
        stopped.abort();
        for (const group of children) await Promise.all(group.map((child) => child.stop(stopLimit)));
      })();
      return stopping;
    },
  };
}

function keepRunning(definition: ChildDefinition, log: Logger, stopped: AbortSignal) {
  const { name } = definition;
  let current: ChildProcess | undefined;
  let everReady = false;
  /** While it is being restarted: settles once the next one is ready. */
  let next: PromiseWithResolvers<void> | undefined;
  let replaced: ChildProcess | undefined;
  const ready = Promise.withResolvers<void>();
  ready.promise.catch(() => {});

  const ended = (async () => {
    let failures = 0;
    for (let attempt = 1; !stopped.aborted; attempt += 1) {
      const started = Date.now();
      const child = start(definition);
      current = child;
      child.on('message', (message) => {
        if ((message as Partial<ReadyMessage> | null)?.ready !== true) return;
        everReady = true;
        ready.resolve();
        if (child !== replaced) next?.resolve();
      });
      const how = await exit(child);
      current = undefined;
      if (stopped.aborted) return;
      if (child === replaced) {
        log.info(`${name} ended (${how.text}); it starts again`);
        continue;
      }

      if (!everReady && (how.code === configurationExitCode || attempt >= startAttempts)) {
        ready.reject(new Error(`${name} doesn't start: ${how.text}. What it wrote above says why.`));
      }
      failures = Date.now() - started >= healthyAfter ? 1 : failures + 1;
      const wait = backoffMs(backoff, failures);
      log.warn(`${name} ended (${how.text}); it starts again in ${wait / 1000} s`);
      await pauseFor(wait, stopped);
    }
  })();

  return {
    name,
    ready: ready.promise,
    process: () => current,
    async restart(limit: number) {
      if (next !== undefined) return next.promise;
      const restarted = Promise.withResolvers<void>();
      next = restarted;
      try {
        replaced = current;
        if (replaced !== undefined) await end(replaced, limit);
        const late = () => new Error(`${name} isn't ready ${restartLimit / 1000} s after its restart`);
        await within(restartLimit, Promise.race([restarted.promise, ended]), late);
      } finally {
        next = undefined;
      }
    },
    async stop(limit: number) {
      if (current !== undefined) await end(current, limit);
      await ended;
    },
  };

  /** Lets a child stop in order, and kills it if that takes too long. */
  async function end(child: ChildProcess, limit: number): Promise<void> {
    const gone = exit(child);
    child.kill('SIGTERM');
    // A frozen process could not handle the signal.
    if (process.platform !== 'win32') child.kill('SIGCONT');
    const timer = setTimeout(() => {
      log.error(`${name} didn't stop within ${limit / 1000} s: killed`);
      child.kill('SIGKILL');
    }, limit);
    await gone;
    clearTimeout(timer);
  }
}

function start({ command, env }: ChildDefinition): ChildProcess {
  return spawn(process.execPath, [...command], {
    env,
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
}

function exit(child: ChildProcess): Promise<{ code: number | null; text: string }> {
  return new Promise((resolve) => {
    const { exitCode, signalCode } = child;
    if (exitCode !== null || signalCode !== null)
      resolve({ code: exitCode, text: signalCode ?? `exit code ${exitCode}` });
    child.once('error', (error) => resolve({ code: null, text: error.message }));
    child.once('exit', (code, signal) => resolve({ code, text: signal ?? `exit code ${code}` }));
  });
}
