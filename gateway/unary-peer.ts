import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { mostResets } from '#lib/rpc/delivery.ts';
import type { TlsOptions } from '#lib/rpc/transport.ts';
import { ClientConnection } from './http2/connection.ts';
import { RequestHead, type Fields } from './http2/request.ts';
import type { CallMetadata } from './metadata.ts';
import { Exchange, failure, prefixLength, type UnaryAnswer } from './unary-exchange.ts';

export interface PeerOptions {
  tls: TlsOptions | undefined;
  /** Bytes that an answer may have. */
  maxAnswer: number;
  /**
   * Milliseconds after which a server that owes an answer is asked whether it is there; Infinity is never. Servers of gRPC in
   * Go hang up on whom they don't allow that.
   */
  keepalive: number;
}

/** Where to connect to, and as whom the server is addressed. */
export interface Address {
  key: string;
  authority: string;
  connectTo: { host: string; port: number } | { path: string };
}

/** Milliseconds that a server may take to accept a connection, and to answer a ping. */
const connectLimit = 5_000;
const pingLimit = 3_000;
const backoff = { first: 100, most: 1_000 };
const window = { stream: 1024 * 1024, connection: 8 * 1024 * 1024 };

/** One server: its connection. */
export class Peer {
  readonly #address: Address;
  readonly #options: PeerOptions;
  readonly #onChange: () => void;
  /** By the path of the RPC. */
  readonly #heads = new Map<string, RequestHead>();
  #connection: ClientConnection | undefined;
  /** Whether a connection is made that is to take the place of the one that there is. */
  #isReplacing = false;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #isClosed = false;
  isReady = false;

  constructor(address: Address, options: PeerOptions, onChange: () => void) {
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
        this.isReady = true;
        this.#failures = 0;
        this.#onChange();
      },
      // What the server still answers comes to its end; new calls go to a new connection.
      onRetired: () => {
        clearTimeout(limit);
        replaced();
        if (this.#connection !== connection) return;
        this.#connection = undefined;
        const wasReady = this.isReady;
        this.isReady = false;
        if (!this.#isClosed) {
          if (!wasReady) this.#failures += 1;
          this.#connectLater(wasReady ? 0 : this.#failures);
        }
        this.#onChange();
      },
      onWorn: () => {
        if (this.#connection !== connection || this.#isReplacing || this.#isClosed) return;
        this.#isReplacing = true;
        this.#connect(connection);
      },
      mostResets,
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
    // Of servers that are not pinged it is noticed so, in the end, that they are gone.
    return socket.setNoDelay().setKeepAlive(true, 10_000).unref();
  }

  #connectLater(failures: number): void {
    const pause = failures === 0 ? 0 : Math.min(backoff.most, backoff.first * 1.6 ** (failures - 1));
    this.#retry = setTimeout(() => this.#connect(), pause * (0.8 + Math.random() * 0.4)).unref();
  }

  /** Ends the connection when the server owes answers and is silent. */
  #keepAlive(connection: ClientConnection): NodeJS.Timeout | undefined {
    const { keepalive } = this.#options;
    if (keepalive === Infinity) return undefined;
    let asked: number | undefined;
    return setInterval(() => {
      if (asked !== undefined) {
        if (performance.now() - asked > pingLimit) connection.destroy();
        return;
      }
      if (connection.open === 0) return;
      asked = performance.now();
      connection.ping(() => (asked = undefined));
    }, keepalive).unref();
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
