import { connectivityState, Metadata, status, type Channel, type ChannelOptions } from '@grpc/grpc-js';
import { within } from '../deadline.ts';
import { backoffMs } from '../backoff.ts';
import { pauseFor } from '../retry.ts';
import { isLost, type CallError, type Delivery } from './delivery.ts';

/**
 * Options of every connection: calls are balanced over all servers of a service, a restarted server is found again soon, and a frozen one
 * is given up after 4 s, with the calls that wait for it.
 */
export const connectionOptions: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.keepalive_time_ms': 1_000,
  'grpc.keepalive_timeout_ms': 3_000,
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
};

/** IP addresses with ports, all IPv4 or all IPv6. */
const severalServers = /^(\d+(\.\d+){3}:\d+(,\d+(\.\d+){3}:\d+)*|\[[\da-f:.]+\]:\d+(,\[[\da-f:.]+\]:\d+)*)$/i;
/** One server: host:port, a gRPC target or a socket (https://grpc.github.io/grpc/core/md_doc_naming.html). */
const oneServer = /^(dns:(\/\/[^/,\s]*\/)?)?([\w.-]+|\[[\da-f:.]+\]):\d+$|^unix:[^,\s]+$/i;

/**
 * Whether a text is the address of one server (`host:port`, `dns:///host:port`, `unix:path`), or of several servers: IP addresses separated
 * by commas. A port is required.
 */
export function isAddress(text: string): boolean {
  const servers = text.replace(/^ipv[46]:/i, '');
  if (!severalServers.test(servers) && !oneServer.test(text)) return false;
  const ports = /^unix:/i.test(text) ? [] : servers.split(',').map((each) => Number(/\d+$/.exec(each)![0]));
  return ports.every((port) => port > 0 && port < 65_536);
}

/** The gRPC target of these servers. */
export function targetOf(address: string): string {
  if (!address.includes(',') || /^ipv[46]:/i.test(address)) return address;
  return `${address.startsWith('[') ? 'ipv6' : 'ipv4'}:${address}`;
}

/** A client of grpc-js, or one that reports its connectivity in the same way. */
export interface Connected {
  getChannel(): Pick<Channel, 'getConnectivityState' | 'watchConnectivityState'>;
  /** Why no server is connected, if that is known. */
  whyAway?(): string | undefined;
}

/** What decides whether a call may be retried. */
export interface Attempts {
  /** Whether the RPC is idempotent by its proto (`idempotency_level`). */
  isRepeatable: boolean;
  /** Milliseconds since the epoch. */
  deadline: number;
  /** Whether the caller has gone. */
  isGone?: () => boolean;
}

/** How long calls wait while no server is connected, less than calls may take. After that they fail at once until a server is back. */
const defaultMaxAwayMs = 4_500;
const maxAttempts = 5;
const backoff = { firstMs: 100, maxMs: 1_000, jitter: 1 };
/** The retry budget: each call adds a tenth of a retry, up to a hundred. */
const budget = { perCall: 0.1, max: 100 };

/**
 * Makes the calls of a client: they wait while all servers are unavailable for a moment, as in a restart, and are retried where that is
 * safe. Retries are limited to a tenth of all calls, plus a hundred.
 */
export class Reach {
  readonly #client: Connected;
  readonly #maxAwayMs: number;
  #tokens = budget.max;
  /** Set while no server is connected: since when, and a promise that is fulfilled once one is. */
  #away: { since: number; back: Promise<unknown> } | undefined;

  constructor(client: Connected, { maxAwayMs = defaultMaxAwayMs } = {}) {
    this.#client = client;
    this.#maxAwayMs = maxAwayMs;
  }

  /**
   * Waits until a server is connected.
   *
   * @throws ServiceError UNAVAILABLE if none is for longer than 4.5 s, DEADLINE_EXCEEDED if the deadline comes first
   */
  async reached(deadline: number): Promise<void> {
    const channel = this.#client.getChannel();
    if (this.#away === undefined) {
      if (channel.getConnectivityState(false) === connectivityState.READY) return;
      const back = this.#connected().then(() => (this.#away = undefined));
      this.#away = { since: Date.now(), back };
    }
    const { since, back } = this.#away;
    const late = () =>
      deadline < since + this.#maxAwayMs
        ? failure('DEADLINE_EXCEEDED', 'No server was connected before the deadline', 'given up')
        : failure('UNAVAILABLE', `No server is connected${this.#why()}`, 'never sent');
    const left = Math.min(deadline, since + this.#maxAwayMs) - Date.now();
    if (left <= 0) throw late();
    await within(left, back, late);
  }

  #why(): string {
    const why = this.#client.whyAway?.();
    return why === undefined ? '' : `: ${why}`;
  }

  /** Tries until the connection is there, or closed. */
  async #connected(): Promise<void> {
    const channel = this.#client.getChannel();
    for (;;) {
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY || state === connectivityState.SHUTDOWN) return;
      await new Promise<void>((resolve) => channel.watchConnectivityState(state, Infinity, () => resolve()));
    }
  }

  /**
   * Waits for a server, makes a call, and retries it if it was lost and is idempotent, or was not processed. Only the transport decides how
   * far it came (`delivery` of the error).
   *
   * @throws ServiceError as gRPC or the server has it; UNAVAILABLE without details if the call was lost
   */
  async call<T>(attempt: () => Promise<T>, { isRepeatable, deadline, isGone = () => false }: Attempts): Promise<T> {
    this.#tokens = Math.min(budget.max, this.#tokens + budget.perCall);
    for (let attempts = 1; ; attempts += 1) {
      await this.reached(deadline);
      if (isGone()) throw failure('CANCELLED', 'Nobody waits for the answer', 'given up');
      try {
        return await attempt();
      } catch (given) {
        const error = given as CallError;
        if (!isLost(error)) throw error;
        const pause = backoffMs(backoff, attempts);
        const isSafe = isRepeatable || error.delivery !== 'maybe processed';
        if (!isSafe || isGone() || attempts >= maxAttempts || Date.now() + pause >= deadline || !this.#spend()) {
          throw asLost(error);
        }
        await pauseFor(pause);
      }
    }
  }

  #spend(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}

/** The same error, with UNAVAILABLE in place of the transport's own code if the call was lost. */
export function asLost(error: CallError): CallError {
  if (!isLost(error) || error.code === status.UNAVAILABLE) return error;
  return failure('UNAVAILABLE', error.details, error.delivery as Delivery, error);
}

function failure(
  kind: 'UNAVAILABLE' | 'DEADLINE_EXCEEDED' | 'CANCELLED',
  details: string,
  delivery: Delivery,
  cause?: unknown,
): CallError {
  const code = status[kind];
  return Object.assign(new Error(`${code} ${kind}: ${details}`, { cause }), {
    code,
    details,
    metadata: new Metadata(),
    delivery,
  });
}
