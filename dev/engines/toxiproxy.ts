import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from '../ports.ts';
import { engineHome, installWithGo, isOnPath, type InstallOptions } from './install.ts';
import { startServer, type Server } from './server-process.ts';

/** A Toxiproxy of our own: TCP proxies on loopback whose connections can be made to fail. */
export interface Toxiproxy extends Server {
  /** Lets connections to `port` go on to `upstream`, both on loopback. */
  open(name: string, ports: { port: number; upstream: number }): Promise<Link>;
}

/** The connection path to one server. Each change also affects existing connections, and lasts until `heal`. */
export interface Link {
  /** Closes all connections and refuses new ones. */
  cut(): Promise<void>;
  /** Everything takes this long, in milliseconds, give or take a fifth, and no more than `kilobytes` go through in a second. */
  slow(limits: { latency: number; kilobytes: number }): Promise<void>;
  /** Resets each connection as soon as something is sent on it. */
  reset(): Promise<void>;
  /** Connections stay, or are even made, and nothing comes through in either direction. They end with `heal`. */
  silence(): Promise<void>;
  /** Removes all faults. */
  heal(): Promise<void>;
}

export interface ToxiproxyOptions extends InstallOptions {
  /** Where the server's log is kept. Made if it is missing. */
  dataDir: string;
}

const version = 'v2.5.0';
const module = `github.com/Shopify/toxiproxy/v2/cmd/server@${version}`;
const home = engineHome('toxiproxy', version);
const program = path.join(home, 'server');
/** What the machine must have for it. */
export const toxiproxyNeeds = 'Go (go) on the PATH, to be built';
const startLimit = 20_000;
const buildLimit = 10 * 60_000;
/** To remove a slow link, Toxiproxy first forwards the data that it has delayed. */
const callLimit = 30_000;
/** A slow link first forwards the data that it has delayed. */
const healLimit = 120_000;
const healPause = 200;
const stopSignals = [
  ['SIGTERM', 3_000],
  ['SIGKILL', 3_000],
] as const;

/** Whether `startToxiproxy` can work on this machine: it is built already, or there is a Go that can build it. */
export function toxiproxyAvailable(): boolean {
  return existsSync(program) || isOnPath('go');
}

/** Builds Toxiproxy with Go, unless it is there: what the first `startToxiproxy` on a machine does. */
export async function installToxiproxy(options: InstallOptions = {}): Promise<void> {
  await installWithGo(home, { name: 'Toxiproxy', module, time: 'less than a minute', limit: buildLimit }, options);
}

/**
 * Starts a Toxiproxy on free ports. The first start on a machine builds it.
 *
 * @throws Error that says what is missing, or with the last lines of the server's log if it doesn't get ready in time
 */
export async function startToxiproxy(options: ToxiproxyOptions): Promise<Toxiproxy> {
  if (!toxiproxyAvailable()) throw new Error(`Toxiproxy needs ${toxiproxyNeeds}.`);
  await installToxiproxy(options);
  const dataDir = path.resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const [port] = (await freePorts(1)) as [number];
  const api = `http://127.0.0.1:${port}`;
  const { PATH, TMPDIR } = process.env;
  const server = await startServer({
    name: 'Toxiproxy',
    program,
    args: ['-host', '127.0.0.1', '-port', String(port)],
    env: { PATH, TMPDIR, LOG_LEVEL: 'warn' },
    dataDir,
    port,
    isReady: () => call(api, 'GET', '/version').then(Boolean, () => false),
    startLimit,
    stopSignals,
    signal: options.signal,
  });
  return {
    ...server,
    async open(name, { port, upstream }) {
      await call(api, 'POST', '/proxies', { name, listen: `127.0.0.1:${port}`, upstream: `127.0.0.1:${upstream}` });
      return linkOf(api, name);
    },
  };
}

type Toxic = [type: string, attributes: Record<string, number>];

function linkOf(api: string, name: string): Link {
  const proxy = `/proxies/${name}`;

  async function add(...toxics: Toxic[]): Promise<void> {
    for (const [type, attributes] of toxics) {
      for (const stream of ['upstream', 'downstream']) {
        await call(api, 'POST', `${proxy}/toxics`, { name: `${type}-${stream}`, type, stream, attributes });
      }
    }
  }

  return {
    cut: async () => void (await call(api, 'POST', proxy, { enabled: false })),
    slow: ({ latency, kilobytes }) =>
      add(['latency', { latency, jitter: Math.round(latency / 5) }], ['bandwidth', { rate: kilobytes }]),
    reset: () => add(['reset_peer', { timeout: 0 }]),
    silence: () => add(['timeout', { timeout: 0 }]),
    async heal() {
      const giveUp = Date.now() + healLimit;
      // While a removed link forwards its delayed data, the API answers 503.
      const patiently = async (method: string, at: string): Promise<unknown> => {
        for (;;) {
          try {
            return await call(api, method, at);
          } catch (error) {
            if (!(error instanceof Refused && error.status === 503) || Date.now() > giveUp) throw error;
            await sleep(healPause);
          }
        }
      };
      for (;;) {
        const [toxic] = (await patiently('GET', `${proxy}/toxics`)) as { name: string }[];
        if (toxic === undefined) break;
        await patiently('DELETE', `${proxy}/toxics/${toxic.name}`).catch((error: unknown) => {
          if (!(error instanceof Refused && error.status === 404)) throw error;
        });
      }
      await call(api, 'POST', proxy, { enabled: true });
    },
  };
}

/** Toxiproxy's API answers with an error. */
class Refused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Calls Toxiproxy's API. @returns the JSON of the answer, or its text @throws Refused */
async function call(api: string, method: string, at: string, body?: object): Promise<unknown> {
  const response = await fetch(`${api}${at}`, {
    method,
    ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    signal: AbortSignal.timeout(callLimit),
  });
  const text = await response.text();
  if (!response.ok) throw new Refused(response.status, `Toxiproxy: ${method} ${at}: ${response.status} ${text}`);
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
