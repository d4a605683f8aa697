import type { Dispatcher, Pool } from 'undici';
import type { Destination } from './public-endpoint.ts';

export type PinnedAnswer = Dispatcher.ResponseData;

export interface PinnedConnectionsOptions {
  /** Milliseconds until the headers of an answer, and between two pieces of its body. */
  timeout: number;
  /** Connections to so many hosts are kept, and to each so many at once: other requests wait for one. */
  maxHosts: number;
  connectionsPerHost: number;
}

/** HTTP/1.1 connections to endpoints of others, each only to addresses that were checked. */
export interface PinnedConnections {
  /**
   * POSTs to a destination. Redirects are not followed. The answer's body has to be read, dumped or destroyed.
   *
   * @throws what undici throws
   */
  post(
    destination: Destination,
    request: { headers: Record<string, string>; body: string; signal: AbortSignal },
  ): Promise<PinnedAnswer>;
  close(): Promise<void>;
}

const longestConnect = 5_000;

/** Loaded for the first request: it takes 30 MB, more than all that a service has of its own. */
const load = () => import('undici');

export function openPinnedConnections(options: PinnedConnectionsOptions): PinnedConnections {
  const pools = new Map<string, Pool>();

  /** Connections are shared by requests to the same host that was found at the same addresses. */
  async function poolFor({ url, addresses }: Destination): Promise<Pool> {
    const { Pool: PoolOfUndici } = await load();
    const key = [url.origin, ...addresses.toSorted()].join(' ');
    const pool = pools.get(key) ?? openPool(PoolOfUndici, url.origin, addresses, options);
    pools.delete(key);
    pools.set(key, pool);
    if (pools.size > options.maxHosts) {
      const [oldest, unused] = pools.entries().next().value as [string, Pool];
      pools.delete(oldest);
      void unused.close().catch(() => {});
    }
    return pool;
  }

  return {
    async post(destination, { headers, body, signal }) {
      const { url } = destination;
      const pool = await poolFor(destination);
      return pool.request({ method: 'POST', path: `${url.pathname}${url.search}`, headers, body, signal });
    },

    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.destroy().catch(() => {})));
    },
  };
}

function openPool(
  PoolOfUndici: typeof Pool,
  origin: string,
  addresses: readonly string[],
  { timeout, connectionsPerHost }: PinnedConnectionsOptions,
): Pool {
  const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
  return new PoolOfUndici(origin, {
    connect: {
      timeout: Math.min(longestConnect, timeout),
      autoSelectFamily: true,
      lookup(_host, { all }, callback) {
        if (all) callback(null, found);
        else callback(null, found[0]!.address, found[0]!.family);
      },
    },
    connections: connectionsPerHost,
    pipelining: 1,
    allowH2: false,
    headersTimeout: timeout,
    bodyTimeout: timeout,
    keepAliveTimeout: 10_000,
    keepAliveMaxTimeout: 60_000,
  });
}

/** Milliseconds that a Retry-After header asks for, in seconds or as a date (RFC 9110, 10.2.3); undefined without one. */
export function retryAfterOf(headers: PinnedAnswer['headers']): number | undefined {
  const header = headers['retry-after'];
  const text = Array.isArray(header) ? header[0] : header;
  if (text === undefined) return undefined;
  if (/^\d+$/.test(text.trim())) return Number(text) * 1_000;
  const date = Date.parse(text);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/** Whether a request has failed since the answer, or a part of it, took too long. */
export function isLate(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT';
}
