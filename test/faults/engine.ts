import { setTimeout as sleep } from 'node:timers/promises';

/** What of a server is needed to keep it. */
export interface KeptServer {
  pid: number;
  exited: Promise<void>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

/** An engine that is started again whenever it ends, as whoever runs one does. */
export interface Engine {
  pid(): number;
  /** SIGKILL; it is not started again before `revive`. */
  crash(): Promise<void>;
  /** Lets it start again, and waits until it is up. */
  revive(): Promise<void>;
  stop(): Promise<void>;
}

/** Milliseconds. */
const restartPause = 500;
const reviveLimit = 90_000;

/**
 * Starts a server and keeps it running until `stop`.
 *
 * @param start starts it, on the same port and data each time
 * @param tell told when it ends or doesn't start
 */
export async function keepEngine(
  name: string,
  start: () => Promise<KeptServer>,
  tell: (line: string) => void,
): Promise<Engine> {
  let server = await start();
  let isUp = true;
  let held = Promise.withResolvers<void>();
  held.resolve();
  let up = Promise.withResolvers<void>();
  up.resolve();
  const stopping = new AbortController();

  const keeping = (async () => {
    for (;;) {
      await server.exited;
      isUp = false;
      if (stopping.signal.aborted) return;
      tell(`${name} ended`);
      for (let failures = 0; !isUp;) {
        await held.promise;
        await sleep(restartPause, undefined, { signal: stopping.signal }).catch(() => {});
        if (stopping.signal.aborted) return;
        try {
          server = await start();
          isUp = true;
          tell(`${name} is up again`);
          up.resolve();
        } catch (error) {
          failures += 1;
          if (failures === 1)
            tell(`${name} doesn't start yet: ${(error as Error).message.split('\n').slice(-3).join(' | ')}`);
        }
      }
    }
  })();

  return {
    pid: () => server.pid,
    async crash() {
      held = Promise.withResolvers();
      up = Promise.withResolvers();
      if (isUp) await server.kill();
    },
    async revive() {
      held.resolve();
      const timer = new AbortController();
      const late = sleep(reviveLimit, undefined, { signal: timer.signal }).then(
        () => {
          throw new Error(`${name} is not up again after ${reviveLimit / 1_000} s`);
        },
        () => {},
      );
      try {
        await Promise.race([up.promise, late]);
      } finally {
        timer.abort();
      }
    },
    async stop() {
      stopping.abort();
      held.resolve();
      if (isUp) await server.stop();
      await keeping;
    },
  };
}
