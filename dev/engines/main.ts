import path from 'node:path';
import { usualPort } from '../ports.ts';
import { kafka, minio, type NativeEngine } from './native.ts';

/**
 * `npm run engines`: the real engines, natively, until Ctrl-C. Prints the environment that makes the services use them. An
 * engine that this machine can't run is left out. One whose usual port is taken by another program takes a free one, and says so.
 */
const engines = [
  { engine: kafka, port: 9092, folder: 'kafka-data' },
  { engine: minio, port: 9000, folder: 'minio-data' },
];
const data = path.resolve(import.meta.dirname, '../../.chat4all/engines');

// Under npm a Ctrl-C comes twice, from the terminal and from npm: the second one must not end this before the engines.
const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop.abort());

try {
  await run();
} catch (error) {
  if (!stop.signal.aborted) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

async function run(): Promise<void> {
  const there: typeof engines = [];
  for (const each of engines) if (await isInstalled(each.engine)) there.push(each);
  if (there.length === 0) throw new Error('None of the engines can run here.');

  await using started = new AsyncDisposableStack();
  const outcomes = await Promise.allSettled(
    there.map(async ({ engine, port, folder }) => {
      const dataDir = path.join(data, folder);
      const free = await usualPort(port);
      if (free !== port) console.log(`${engine.name} takes port ${free}: another program has ${port}.`);
      const { server, env } = await engine.start({ dataDir, port: free, signal: stop.signal });
      started.defer(() => server.stop());
      const died = server.exited.then(() => {
        throw new Error(`${engine.name} ended by itself. Its log: ${path.join(dataDir, 'server.log')}`);
      });
      // Handled here, since it may happen while the other engine starts; the wait below reports it.
      died.catch(() => {});
      return { env, died };
    }),
  );
  // Waits for all, so that the engines that did start are stopped if another fails.
  const running = outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });

  const names = there.map(({ engine }) => engine.name).join(' and ');
  const lines = running.flatMap(({ env }) => Object.entries(env)).map(([name, value]) => `export ${name}=${value}`);
  console.log(`${names} ${there.length === 1 ? 'is' : 'are'} ready. To use ${there.length === 1 ? 'it' : 'them'}:\n`);
  console.log(`${lines.join('\n')}\n`);
  console.log('Ctrl-C stops everything; what is in it stays.');
  const stopped = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
  if (!stop.signal.aborted) await Promise.race([stopped, ...running.map(({ died }) => died)]);
}

/** Installs an engine, or says why it is left out. */
async function isInstalled(engine: NativeEngine): Promise<boolean> {
  if (!engine.isAvailable()) {
    console.log(`${engine.name} is left out: it needs ${engine.needs}.`);
    return false;
  }
  try {
    await engine.install({ log: console.log, signal: stop.signal });
    return true;
  } catch (error) {
    stop.signal.throwIfAborted();
    console.error(`${engine.name} is left out. ${(error as Error).message}`);
    return false;
  }
}
