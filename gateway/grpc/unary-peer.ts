import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { maxResets } from '#lib/rpc/http2-connect.ts';
import type { TlsOptions } from '#lib/rpc/transport.ts';
import { ClientConnection } from './http2/connection.ts';
import { RequestHead, type Fields } from './http2/request.ts';
import type { CallMetadata } from './metadata.ts';
import { Exchange, failure, prefixLength, type UnaryAnswer } from './unary-exchange.ts';

export interface PeerOptions {
  tls: TlsOptions | undefined;
  /** Bytes that an answer may have. */
  maxAnswer: number;
  keepalive: Keepalive;
}

/** When a server that owes an answer is asked whether it is there (PING), in milliseconds. */
export interface Keepalive {
  /** For so long it has to be silent before. */
  silence: number;
  /** How long it may take to answer; then the connection is given up, with all calls on it. */
  limit: number;
  /** After an answer it isn't asked again for so long, unless it has said something else meanwhile. */
  rest: number;
}

export const keepalives = {
  /** One that is frozen is found out within 5 s. */
  ours: { silence: 1_000, limit: 3_000, rest: 0 },
  /**
   * Servers of gRPC hang up on whom they allow no PINGs (GOAWAY, too_many_pings): by default those in Go, Java and C++ do after more
   * than two within 5 minutes between which they sent nothing else.
   */
  foreign: { silence: 10_000, limit: 10_000, rest: 310_000 },
} as const satisfies Record<string, Keepalive>;

/** Where to connect to, and as whom the server is addressed. */
export interface Address {
  key: string;
  authority: string;
  connectTo: { host: string; port: number } | { path: string };
}

/** Milliseconds that a server may take to accept a connection, and to say what it takes. */
const connectLimit = 5_000;
/**
 * Milliseconds between attempts to connect. An address that never was there while others are isn't one that a service is about to
 * come back at: of a name that has an IPv6 and an IPv4 address often only one is served.
 */
const backoff = { first: 100, most: 1_000, mostOfOther: 30_000 };
/** Milliseconds after which a connection has proved itself that nobody has answered on. */
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
  /** Whether a connection is made that is to take the place of the one that there is. */
  #isReplacing = false;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #wasReady = false;
  /** When a connection may be replaced again. */
  #replaceAfter = 0;
  #isClosed = false;
  isReady = false;
  /** What the last try to connect came to, if it failed. */
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
  get largestHead(): number {
    return this.#connection?.largestHead ?? Infinity;
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
      const exchange = new Exchange(this.#options.maxAnswer, resolve, reject);
      const fields: Fields =
        deadline === Infinity ? metadata : { 'grpc-timeout': timeoutText(deadline - Date.now()), ...metadata };
      exchange.cancel = connection.request(this.#headOf(path), fields, framed(message), exchange);
      if (deadline !== Infinity) exchange.endBy(deadline);
      onCall?.(() => exchange.fail(status.CANCELLED, 'Cancelled on client', 'given up'));
    });
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

  /** @param worn the connection that the new one takes the place of, once it is ready */
  #connect(worn?: ClientConnection): void {
    const socket = this.#openSocket();
    let pings: NodeJS.Timeout | undefined;
    let readyAt = Infinity;
    let isReplacement = worn !== undefined;
    const replaced = () => {
      if (isReplacement) this.#isReplacing = false;
      isReplacement = false;
    };
    const limit = setTimeout(() => socket.destroy(), connectLimit);
    const connection = new ClientConnection(socket, {
      window,
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
      // What the server still answers comes to its end; new calls go to a new connection.
      onRetired: () => {
        clearTimeout(limit);
        replaced();
        if (this.#connection !== connection) return;
        this.#connection = undefined;
        this.isReady = false;
        if (!this.#isClosed) {
          // A server that hangs up as soon as it is called is there no more than one that can't be reached.
          const isProven = connection.heard > 0 || performance.now() - readyAt > trial;
          this.#failures = isProven ? 0 : this.#failures + 1;
          this.#connectLater();
        }
        this.#onChange();
      },
      onWorn: () => {
        if (this.#connection !== connection || this.#isReplacing || this.#isClosed) return;
        if (performance.now() < this.#replaceAfter) return;
        this.#replaceAfter = performance.now() + backoff.first;
        this.#isReplacing = true;
        this.#connect(connection);
      },
      mostResets: maxResets,
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
    // Of servers that owe nothing it is noticed so, in the end, that they are gone.
    return socket.setNoDelay().setKeepAlive(true, 10_000).unref();
  }

  #connectLater(): void {
    const most = this.#wasReady || this.#isAlone() ? backoff.most : backoff.mostOfOther;
    const pause = this.#failures === 0 ? 0 : Math.min(most, backoff.first * 1.6 ** (this.#failures - 1));
    this.#retry = setTimeout(() => this.#connect(), pause * (0.8 + Math.random() * 0.4)).unref();
  }

  /** Ends the connection when the server owes answers and is silent. */
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
