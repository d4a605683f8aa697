import { startHub, type Hub } from '../../dev/hub.ts';
import { openLog } from '#lib/log.ts';
import { answer } from './remote.ts';

/** The hub of the benchmark: what `npm start` does, in a process of its own, so that its output can go to a file. */

export interface StartArgument {
  dataDir: string;
  /** Over the environment of this process; undefined takes a variable away. */
  env: Record<string, string | undefined>;
  /** How often each service runs; once by default. */
  replicas?: number;
  /** By default each part has a process of its own, so that it can be measured and killed. */
  processes?: 'one' | 'each';
}

export interface StartedHub {
  url: string;
  grpcPorts: Record<string, number>;
  /** Of an administrator of the database; contains the password. */
  databaseUrl: string;
}

const stopped = new AbortController();
let hub: Promise<Hub> | undefined;

async function start({ dataDir, env, replicas, processes = 'each' }: StartArgument): Promise<StartedHub> {
  hub = startHub({
    dataDir,
    port: 0,
    grpcPortBase: 0,
    replicas,
    processes,
    env: { ...process.env, ...env },
    log: openLog({ name: 'hub', format: 'text', level: 'info' }),
    signal: stopped.signal,
  });
  const { url, grpcPorts, databaseUrl } = await hub;
  return { url, grpcPorts, databaseUrl };
}

/** The processes that run now, by name: also `supervisor`, this one. */
async function pids(): Promise<Record<string, number>> {
  return { ...(await hub)?.pids(), supervisor: process.pid };
}

/** Lets one process stop in order and starts it again. */
async function restart(name: string): Promise<void> {
  await (await hub)?.restart(name);
}

export const commands = { start, pids, restart };

answer(commands, async () => {
  stopped.abort();
  // One that didn't start has stopped what it had begun.
  const started = await hub?.catch(() => undefined);
  await started?.stop();
});
