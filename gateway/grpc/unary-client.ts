import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { connectivityState, status } from '@grpc/grpc-js';
import type { CallMetadata } from './metadata.ts';
import type { CallError } from '#lib/rpc/delivery.ts';
import { failure } from './exchange.ts';
import type { LastingRequest } from './http2/request.ts';
import type { StreamListener } from './stream-exchange.ts';
import type { UnaryAnswer } from './unary-exchange.ts';
import type { UnaryCaller } from './unary-grpc-js.ts';
import { Peer, type Address, type PeerOptions } from './unary-peer.ts';

/** While not all addresses of a name are connected, the name is looked up again: with a longer interval each time nothing has changed. */
const lookupIntervalMs = { first: 1_000, max: 30_000 };

/**
 * Makes calls with one request over HTTP/2, to all servers of a target in turn (round robin), for a third of the CPU time of grpc-js's
 * client. Those with a stream of requests go through grpc-js.
 *
 * It keeps a connection to each address, reconnects when one is lost, and then looks the name up again. It has no queue: a call while
 * no server is connected fails at once (`lib/rpc/reach.ts` waits before a call, and retries it).
 */
export class UnaryClient implements UnaryCaller {
  readonly #options: PeerOptions;
  readonly #hosts: readonly Host[];
  readonly #peers = new Map<string, Peer>();
  readonly #watchers = new Set<() => void>();
  #ready: Peer[] = [];
  #next = 0;
  #state: connectivityState = connectivityState.IDLE;
  #lookedUp = Number.NEGATIVE_INFINITY;
  #lookup: NodeJS.Timeout | undefined;
  #pause = lookupIntervalMs.first;

  /** @param target host:port, `dns:///host:port`, `ipv4:` or `ipv6:` with several addresses, or `unix:` and a path */
  constructor(target: string, options: PeerOptions) {
    this.#options = options;
    this.#hosts = hostsOf(target);
  }

  /** For `Reach`: as a channel of grpc-js has it. */
  getChannel(): this {
    return this;
  }

  getConnectivityState(tryToConnect: boolean): connectivityState {
    if (tryToConnect && this.#state === connectivityState.IDLE) {
      this.#become(connectivityState.CONNECTING);
      void this.#resolve();
    }
    return this.#state;
  }

  /** For `Reach`: why no server is connected. */
  whyAway(): string | undefined {
    for (const { whyAway } of this.#peers.values()) if (whyAway !== undefined) return whyAway;
    return undefined;
  }

  /** Calls back once the state has changed. The deadline is ignored: each call has its own. */
  watchConnectivityState(current: connectivityState, _deadline: unknown, callback: () => void): void {
    if (current === this.#state) this.#watchers.add(callback);
    else queueMicrotask(callback);
  }

  get maxHeaderListSize(): number {
    let least = Infinity;
    for (const { maxHeaderListSize } of this.#ready) if (maxHeaderListSize < least) least = maxHeaderListSize;
    return least;
  }

  close(): void {
    clearTimeout(this.#lookup);
    this.#become(connectivityState.SHUTDOWN);
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
    this.#ready = [];
  }

  call(
    path: string,
    metadata: CallMetadata,
    message: Uint8Array,
    deadline: number,
    onCall?: (cancel: () => void) => void,
  ): Promise<UnaryAnswer> {
    const peer = this.#ready[this.#next++ % this.#ready.length];
    if (peer === undefined) {
      return Promise.reject(failure(status.UNAVAILABLE, 'No connection established', 'never sent'));
    }
    return peer.call(path, metadata, message, deadline, onCall);
  }

  /**
   * Makes a call that is answered with a stream. It is sent once more if no server has processed it: nothing else retries streams.
   *
   * @param deadline milliseconds since the epoch, or Infinity
   * @returns what cancels it, after which the listener hears that it has failed
   */
  stream(
    path: string,
    metadata: CallMetadata,
    message: Uint8Array,
    deadline: number,
    listener: StreamListener,
  ): LastingRequest {
    let isCancelled = false;
    let isPaused = false;
    let current: LastingRequest | undefined;
    const begin = (mayRetry: boolean) => {
      const fail = (error: CallError) => {
        const isUnprocessed = error.delivery === 'refused unprocessed' || error.delivery === 'never sent';
        if (mayRetry && isUnprocessed && !isCancelled && this.#ready.length > 0) begin(false);
        else listener.fail(error);
      };
      const peer = this.#ready[this.#next++ % this.#ready.length];
      try {
        if (peer === undefined) throw failure(status.UNAVAILABLE, 'No connection established', 'never sent');
        current = peer.stream(path, metadata, message, deadline, {
          begin: (headers) => listener.begin(headers),
          messages: (messages) => listener.messages(messages),
          end: (trailers) => listener.end(trailers),
          fail,
        });
        if (isPaused) current.pause();
      } catch (error) {
        current = undefined;
        // The caller doesn't know the call yet.
        queueMicrotask(() => fail(error as CallError));
      }
    };
    begin(true);
    return {
      cancel() {
        isCancelled = true;
        current?.cancel();
      },
      pause() {
        isPaused = true;
        current?.pause();
      },
      resume() {
        isPaused = false;
        current?.resume();
      },
    };
  }

  async #resolve(): Promise<void> {
    this.#lookedUp = performance.now();
    const found = await Promise.all(this.#hosts.map(addressesOf)).catch(() => undefined);
    if (this.#state === connectivityState.SHUTDOWN) return;
    if (found === undefined) {
      this.#resolveLater();
      return;
    }
    const urls = new Map(found.flat().map((address) => [address.key, address]));
    const isChanged = urls.size !== this.#peers.size || [...urls.keys()].some((key) => !this.#peers.has(key));
    this.#pause = isChanged ? lookupIntervalMs.first : Math.min(lookupIntervalMs.max, this.#pause * 2);
    for (const [key, peer] of this.#peers) {
      if (urls.has(key)) continue;
      this.#peers.delete(key);
      peer.close();
    }
    for (const [key, address] of urls) {
      if (!this.#peers.has(key)) this.#peers.set(key, this.#peerAt(address));
    }
    this.#onPeer();
  }

  #peerAt(address: Address): Peer {
    let wasReady = false;
    const onChange = () => {
      // A server that was lost may soon be back at another address.
      if (wasReady && !peer.isReady) this.#pause = lookupIntervalMs.first;
      wasReady = peer.isReady;
      this.#onPeer();
    };
    const peer: Peer = new Peer(address, this.#options, onChange, () => this.#ready.length === 0);
    return peer;
  }

  /** Looks names up again: they may resolve to other addresses once a connection is lost. */
  #resolveLater(): void {
    if (this.#lookup !== undefined) return;
    const pause = Math.max(0, this.#lookedUp + this.#pause - performance.now());
    this.#lookup = setTimeout(() => {
      this.#lookup = undefined;
      void this.#resolve();
    }, pause).unref();
  }

  #onPeer(): void {
    if (this.#state === connectivityState.SHUTDOWN) return;
    const peers = [...this.#peers.values()];
    this.#ready = peers.filter(({ isReady }) => isReady);
    if (this.#ready.length < peers.length && this.#hosts.some(({ isName }) => isName)) this.#resolveLater();
    if (this.#ready.length > 0) this.#become(connectivityState.READY);
    else if (peers.some(({ hasFailed }) => !hasFailed)) this.#become(connectivityState.CONNECTING);
    else this.#become(connectivityState.TRANSIENT_FAILURE);
  }

  #become(state: connectivityState): void {
    if (this.#state === state || this.#state === connectivityState.SHUTDOWN) return;
    this.#state = state;
    const watchers = [...this.#watchers];
    this.#watchers.clear();
    for (const watcher of watchers) watcher();
  }
}

/** A part of a target: one host with a port, or a socket. */
interface Host {
  host: string;
  port: number;
  isName: boolean;
  path?: string;
}

function hostsOf(target: string): Host[] {
  const unix = /^unix:(?:\/\/)?(.+)$/.exec(target);
  if (unix !== null) return [{ host: 'localhost', port: 0, isName: false, path: unix[1] as string }];
  const list = target.replace(/^(dns:(\/\/[^/]*\/)?|ipv[46]:)/i, '');
  return list.split(',').map((entry) => {
    const [, bracketed, plain, port = '443'] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(entry) ?? [];
    const host = bracketed ?? plain;
    if (host === undefined || Number(port) > 65_535) throw new Error(`${target} is no address of a gRPC server`);
    return { host, port: Number(port), isName: isIP(host) === 0 };
  });
}

async function addressesOf({ host, port, isName, path }: Host): Promise<Address[]> {
  if (path !== undefined) return [{ key: path, authority: 'localhost', connectTo: { path } }];
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`;
  const found = isName ? await lookup(host, { all: true }) : [{ address: host }];
  return found.map(({ address }) => ({ key: `${address} ${port}`, authority, connectTo: { host: address, port } }));
}
