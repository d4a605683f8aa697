import { connect, type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from 'node:http2';
import { isIP } from 'node:net';
import { status } from '@grpc/grpc-js';
import type { TlsOptions } from '#lib/rpc/transport.ts';
import { Exchange, failure, prefixLength, type UnaryAnswer } from './unary-exchange.ts';

/** Metadata as it is sent: lower-case names, and what ends in `-bin` in base64. */
export type CallMetadata = Record<string, string | string[]>;

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

/** One server: its connection, and those that are still being used up. */
export class Peer {
  readonly #address: Address;
  readonly #options: PeerOptions;
  readonly #onChange: () => void;
  #session: ClientHttp2Session | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failures = 0;
  #isClosed = false;
  /** Calls that have no answer yet. */
  #open = 0;
  isReady = false;

  constructor(address: Address, options: PeerOptions, onChange: () => void) {
    this.#address = address;
    this.#options = options;
    this.#onChange = onChange;
    this.#connect();
  }

  get hasFailed(): boolean {
    return this.#failures > 0;
  }

  close(): void {
    this.#isClosed = true;
    this.isReady = false;
    clearTimeout(this.#retry);
    this.#session?.close();
    if (this.#session?.connecting === true) this.#session.destroy();
  }

  call(
    path: string,
    metadata: CallMetadata,
    message: Uint8Array,
    deadline: number,
    onCall: ((cancel: () => void) => void) | undefined,
  ): Promise<UnaryAnswer> {
    return new Promise((resolve, reject) => {
      let stream: ClientHttp2Stream;
      try {
        stream = (this.#session as ClientHttp2Session).request(headersOf(path, metadata, deadline));
      } catch (error) {
        reject(failure(status.UNAVAILABLE, `Failed to start HTTP/2 stream: ${(error as Error).message}`));
        return;
      }
      const exchange = new Exchange(stream, this.#options.maxAnswer, resolve, reject);
      this.#open += 1;
      stream.once('close', () => (this.#open -= 1));
      if (deadline !== Infinity) exchange.endBy(deadline);
      onCall?.(() => exchange.fail(status.CANCELLED, 'Cancelled on client'));
      stream.end(framed(message));
    });
  }

  #connect(): void {
    const { authority, connectTo } = this.#address;
    const { tls, keepalive } = this.#options;
    const name = authority.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
    const session = connect(`${tls === undefined ? 'http' : 'https'}://${authority}`, {
      ...connectTo,
      ...(tls === undefined ? {} : { ...tls, ...(isIP(name) === 0 ? { servername: name } : {}) }),
      settings: { enablePush: false, initialWindowSize: window.stream },
      // Calls are limited where they come in.
      maxSessionMemory: Number.MAX_SAFE_INTEGER,
    } as Parameters<typeof connect>[1]);
    this.#session = session;
    const limit = setTimeout(() => session.destroy(new Error('No answer to the connection')), connectLimit);
    let pings: NodeJS.Timeout | undefined;
    const lose = () => {
      clearTimeout(limit);
      clearInterval(pings);
      if (this.#session !== session) return;
      this.#session = undefined;
      const wasReady = this.isReady;
      this.isReady = false;
      if (!this.#isClosed) {
        if (!wasReady) this.#failures += 1;
        this.#connectLater(wasReady ? 0 : this.#failures);
      }
      this.#onChange();
    };
    session.once('remoteSettings', () => {
      clearTimeout(limit);
      if (this.#session !== session || session.closed || session.destroyed) return;
      session.setLocalWindowSize(window.connection);
      if (keepalive !== Infinity) pings = this.#keepAlive(session, keepalive);
      this.isReady = true;
      this.#failures = 0;
      this.#onChange();
    });
    // Node lets what the server still answers come to its end; new calls go to a new connection.
    session.once('goaway', lose);
    session.once('close', lose);
    session.once('error', lose);
    session.on('error', () => {});
    session.unref();
  }

  #connectLater(failures: number): void {
    const pause = failures === 0 ? 0 : Math.min(backoff.most, backoff.first * 1.6 ** (failures - 1));
    this.#retry = setTimeout(() => this.#connect(), pause * (0.8 + Math.random() * 0.4)).unref();
  }

  /** Ends the connection when the server owes answers and is silent. */
  #keepAlive(session: ClientHttp2Session, pause: number): NodeJS.Timeout {
    let asked: number | undefined;
    return setInterval(() => {
      if (asked !== undefined) {
        if (performance.now() - asked > pingLimit) session.destroy(new Error('No answer to a ping'));
        return;
      }
      if (this.#open === 0) return;
      asked = performance.now();
      session.ping(() => (asked = undefined));
    }, pause).unref();
  }
}

function headersOf(path: string, metadata: CallMetadata, deadline: number): OutgoingHttpHeaders {
  const headers: OutgoingHttpHeaders = {
    ':method': 'POST',
    ':path': path,
    te: 'trailers',
    'content-type': 'application/grpc',
    'user-agent': 'grpc-node-chat4all',
  };
  if (deadline !== Infinity) headers['grpc-timeout'] = timeoutText(deadline - Date.now());
  return Object.assign(headers, metadata);
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
