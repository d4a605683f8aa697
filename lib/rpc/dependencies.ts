import type { HealthImplementation } from 'grpc-health-check';
import type { Logger } from '../log.ts';
import { repeat } from '../loop.ts';

const askEveryMs = 1_000;

/** Asks every second whether what the process depends on is there, tells the health service, and logs each change. */
export function watchDependencies(
  dependencies: Readonly<Record<string, () => Promise<void>>>,
  optional: readonly (readonly [name: string, isThere: () => boolean])[],
  health: HealthImplementation,
  log: Logger,
) {
  const up = new Map<string, boolean>();
  async function ask() {
    for (const [name, isThere] of optional) health.setStatus(name, isThere() ? 'SERVING' : 'NOT_SERVING');
    await Promise.all(
      Object.entries(dependencies).map(async ([name, probe]) => {
        const failure = await probe().then(
          () => undefined,
          (error: unknown) => error,
        );
        const isUp = failure === undefined;
        if (up.get(name) === isUp) return;
        if (!isUp) log.warn({ err: failure }, `${name} is down`);
        else if (up.has(name)) log.info(`${name} is up again`);
        up.set(name, isUp);
        health.setStatus(name, isUp ? 'SERVING' : 'NOT_SERVING');
      }),
    );
  }
  const asking = repeat('The watch over what is needed', log, async () => {
    await ask();
    return askEveryMs;
  });
  return { isUp: (name: string) => up.get(name) === true, stop: () => asking.stop() };
}
