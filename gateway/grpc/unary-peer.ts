import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { maxResets } from '#lib/rpc/http2-connect.ts';
import type { TlsOptions } from '#lib/rpc/transport.ts';
import { ClientConnection } from './http2/connection.ts';
import { RequestHead, type Fields, type LastingRequest } from './http2/request.ts';
import type { CallMetadata } from './metadata.ts';
import { failure, prefixLength, type Exchange } from './exchange.ts';
import { StreamExchange, type StreamListener } from './stream-exchange.ts';
import { UnaryExchange, type UnaryAnswer } from './unary-exchange.ts';

export interface PeerOptions {
  tls: TlsOptions | undefined;
  /** Bytes that an answer may have. */
  maxAnswer: number;
  keepalive: Keepalive;
  /** Bytes that the server may send on a stream before more is asked for; 1 MiB by default. */
  window?: number;
}

/** When a server with calls in flight is sent a PING, in milliseconds. */
export interface Keepalive {
  /** How long it must have been silent before. */
  silence: number;
  /** How long the acknowledgement may take; then the connection is closed, with all calls on it. */
  limit: number;
  /** How long no PING follows an acknowledged one, unless the server has sent something else meanwhile. */
  rest: number;
}

export const keepalives = {
  /** Finds a frozen server within 5 s. */
  ours: { silence: 1_000, limit: 3_000, rest: 0 },
  /**
   * gRPC servers close connections with too many PINGs (GOAWAY, too_many_pings): by default those in Go, Java and C++ do after more than
   * two within 5 minutes between which they sent nothing else.
   */
  foreign: { silence: 10_000, limit: 10_000, rest: 310_000 },
} as const satisfies Record<string, Keepalive>;

/** Where to connect to, and the `:authority` of requests. */
export interface Address {
  key: string;
  authority: string;
  connectTo: { host: string; port: number } | { path: string };
}

/** How long a server may take to accept a connection and to send its SETTINGS. */
const connectTimeoutMs = 5_000;
/**
 * Milliseconds between attempts to connect. An address that was never connected while others of the same name are is tried less often:
 * of a name with an IPv6 and an IPv4 address often only one is served.
 */
const backoffMs = { first: 100, max: 1_000, maxIfNeverConnected: 30_000 };
/** Milliseconds after which a connection counts as working even if no call was answered on it. */
const trial = 5_000;
const window = { stream: 1024 * 1024, connection: 8 * 1024 * 1024 };

/** One server: its connection. */
export class Peer {
  readonly #address: Address;
  readonly #options: PeerOptions;
  readonly #onChange: () => void;
  readonly #isAlone: () => boolean;
  /** By the path of the RPC. */
  readonly #heads = new Map<string, RequestHead>();
  #connection: ClientConnection | undefined;
  /** Whether a replacement of the current connection is being made. */
  #isReplacing = false;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #wasReady = false;
  /** When a connection may be replaced again. */
  #replaceAfter = 0;
  #isClosed = false;
  isReady = false;
  /** Why the last attempt to connect failed. */
  whyAway: string | undefined;

  /** @param isAlone whether no other server of the same target is connected */
  constructor(address: Address, options: PeerOptions, onChange: () => void, isAlone: () => boolean = () => true) {
    this.#isAlone = isAlone;
    this.#address = address;
    this.#options = options;
    this.#onChange = onChange;
    this.#connect();
  }

  /** Bytes that the fields of a request may have, as far as the server says so. */
  get maxHeaderListSize(): number {
    return this.#connection?.maxHeaderListSize ?? Infinity;
  }

  get hasFailed(): boolean {
    return this.#failures > 0;
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#retry);
    if (this.isReady) this.#connection?.close();
    else this.#connection?.destroy();
    this.isReady = false;
  }

  call(
    path: string,
    metadata: CallMetadata,
    message: Uint8Array,
    deadline: number,
    onCall: ((cancel: () => void) => void) | undefined,
  ): Promise<UnaryAnswer> {
    const connection = this.#connection;
    if (connection?.isOpen !== true) {
      return Promise.reject(failure(status.UNAVAILABLE, 'The connection is closing', 'never sent'));
    }
    return new Promise((resolve, reject) => {
      const exchange = new UnaryExchange(this.#options.maxAnswer, resolve, reject);
      const fields = fieldsOf(metadata, deadline);
      exchange.cancel = connection.request(this.#headOf(path), fields, framed(message), exchange);
      if (deadline !== Infinity) exchange.endBy(deadline);
      onCall?.(() => cancel(exchange));
    });
  }

  /** Makes a call that is answered with a stream. @throws CallError if it can't be sent */
  stream(
    path: string,
    metadata: CallMetadata,
    message: Uint8Array,
    deadline: number,
    listener: StreamListener,
  ): LastingRequest {
    const connection = this.#connection;
    if (connection?.isOpen !== true) throw failure(status.UNAVAILABLE, 'The connection is closing', 'never sent');
    const exchange = new StreamExchange(this.#options.maxAnswer, listener);
    const request = connection.stream(this.#headOf(path), fieldsOf(metadata, deadline), framed(message), exchange);
    exchange.cancel = request.cancel;
    if (deadline !== Infinity) exchange.endBy(deadline);
    return { ...request, cancel: () => cancel(exchange) };
  }

  #headOf(path: string): RequestHead {
    let head = this.#heads.get(path);
    if (head === undefined) {
      head = new RequestHead({
        ':method': 'POST',
        ':scheme': this.#options.tls === undefined ? 'http' : 'https',
        ':path': path,
        ':authority': this.#address.authority,
        te: 'trailers',
        'content-type': 'application/grpc',
        'user-agent': 'grpc-node-chat4all',
      });
      this.#heads.set(path, head);
    }
    return head;
  }

  /** @param worn the connection that the new one replaces once it is ready */
  #connect(worn?: ClientConnection): void {
    const socket = this.#openSocket();
    let pings: NodeJS.Timeout | undefined;
    let readyAt = Infinity;
    let isReplacement = worn !== undefined;
    const replaced = () => {
      if (isReplacement) this.#isReplacing = false;
      isReplacement = false;
    };
    const limit = setTimeout(() => socket.destroy(), connectTimeoutMs);
    const connection = new ClientConnection(socket, {
      window: { ...window, stream: this.#options.window ?? window.stream },
      onReady: () => {
        clearTimeout(limit);
        if (worn !== undefined) {
          replaced();
          if (this.#connection === worn) {
            this.#connection = connection;
            worn.leave();
          } else {
            connection.destroy();
            return;
          }
        }
        if (this.#isClosed) return;
        pings = this.#keepAlive(connection);
        readyAt = performance.now();
        this.isReady = true;
        this.#wasReady = true;
        this.#onChange();
      },
      // Calls in flight are still answered; new calls go to a new connection.
      onRetired: () => {
        clearTimeout(limit);
        replaced();
        if (this.#connection !== connection) return;
        this.#connection = undefined;
        this.isReady = false;
        if (!this.#isClosed) {
          // A server that closes each connection at its first call counts as one that can't be reached.
          const isProven = connection.heard > 0 || performance.now() - readyAt > trial;
          this.#failures = isProven ? 0 : this.#failures + 1;
          this.#connectLater();
        }
        this.#onChange();
      },
      onTooManyResets: () => {
        if (this.#connection !== connection || this.#isReplacing || this.#isClosed) return;
        if (performance.now() < this.#replaceAfter) return;
        this.#replaceAfter = performance.now() + backoffMs.first;
        this.#isReplacing = true;
        this.#connect(connection);
      },
      maxResets,
    });
    socket.once('close', () => clearInterval(pings));
    if (worn === undefined) this.#connection = connection;
  }

  #openSocket(): Socket {
    const { authority, connectTo } = this.#address;
    const { tls } = this.#options;
    const name = authority.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    const servername = isIP(name) === 0 ? { servername: name } : {};
    const socket =
      tls === undefined
        ? connect(connectTo)
        : connectTls({ ...connectTo, ...tls, ...servername, ALPNProtocols: ['h2'] }, function (this: TLSSocket) {
            if (this.alpnProtocol !== 'h2') this.destroy();
          });
    socket.once('error', (error) => (this.whyAway = error.message));
    // TCP keepalive: without calls in flight there are no PINGs that would notice a lost server.
    return socket.setNoDelay().setKeepAlive(true, 10_000).unref();
  }

  #connectLater(): void {
    const maxMs = this.#wasReady || this.#isAlone() ? backoffMs.max : backoffMs.maxIfNeverConnected;
    const pause = this.#failures === 0 ? 0 : Math.min(maxMs, backoffMs.first * 1.6 ** (this.#failures - 1));
    this.#retry = setTimeout(() => this.#connect(), pause * (0.8 + Math.random() * 0.4)).unref();
  }

  /** Closes the connection when calls are in flight and the server is silent. */
  #keepAlive(connection: ClientConnection): NodeJS.Timeout {
    const { silence, limit, rest } = this.#options.keepalive;
    let isAsked = false;
    let lastAsked = Number.NEGATIVE_INFINITY;
    let quietSince = performance.now();
    let heard = 0;
    return setInterval(() => {
      const now = performance.now();
      if (isAsked) {
        if (now - lastAsked > limit) connection.destroy();
        return;
      }
      if (connection.heard !== heard || connection.open === 0) {
        if (connection.heard !== heard) lastAsked = Number.NEGATIVE_INFINITY;
        heard = connection.heard;
        quietSince = now;
        return;
      }
      if (now - quietSince < silence || now - lastAsked < rest) return;
      isAsked = true;
      lastAsked = now;
      connection.ping(() => (isAsked = false));
    }, silence / 2).unref();
  }
}

function cancel(exchange: Exchange): void {
  exchange.fail(status.CANCELLED, 'Cancelled on client', 'given up');
}

function fieldsOf(metadata: CallMetadata, deadline: number): Fields {
  return deadline === Infinity ? metadata : { 'grpc-timeout': timeoutText(deadline - Date.now()), ...metadata };
}

function timeoutText(left: number): string {
  const ms = Math.max(1, Math.ceil(left));
  return ms < 1e8 ? `${ms}m` : `${Math.min(99_999_999, Math.ceil(ms / 1_000))}S`;
}

function framed(message: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(prefixLength + message.length);
  frame[0] = 0;
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, prefixLength);
  return frame;
}
