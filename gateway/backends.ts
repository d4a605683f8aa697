import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, status, type ChannelOptions, type Client, type ServiceError } from '@grpc/grpc-js';
import { openClient } from '#lib/rpc/delivery.ts';
import { connectionOptions, Reach, targetOf } from '#lib/rpc/reach.ts';
import type { Transport } from '#lib/rpc/transport.ts';
import { UnaryClient } from './unary-client.ts';

/** An entry of BACKENDS: a server of a package or service. The same one may be served by several. */
export interface BackendAddress {
  /** A package (`acme.shop.v1`) or a service (`acme.shop.v1.Orders`). */
  prefix: string;
  /** host:port, or a gRPC target such as dns:///orders:50051. */
  address: string;
}

/** A gRPC server behind the gateway, or several that do the same. */
export interface Backend extends Connections {
  /** Short name, for people: `shop` for `acme.shop.v1`. */
  name: string;
}

interface Connections {
  unary: UnaryClient;
  /** How calls get there. */
  calls: Reach;
  /** For calls that stream: they have a connection of their own, so that bulk doesn't hold up the others. */
  streams: Client;
  streamCalls: Reach;
  /** Each of the servers by itself, to be asked how it is. */
  servers: readonly Client[];
}

/** How a backend, or something that it depends on, is. */
export type Health = 'up' | 'down';

/** What a backend may say of itself beyond its own health, by the names under which its health service knows it. */
const innerDependencies = ['database', 'bus', 'store'];

const healthDeadline = 1_000;
/** A list of a hundred long texts is more than the 4 MiB that gRPC takes by default. */
const maxAnswer = 32 * 1024 * 1024;
/** Bytes that a backend may send ahead on one stream: at the 64 KiB of HTTP/2, each round trip would be waited for. */
const window = 256 * 1024;

const noPings: ChannelOptions = { 'grpc.keepalive_time_ms': 2 ** 31 - 1 };
/** As in `connectionOptions`. */
const keepalive = 1_000;

const forStreams: ChannelOptions = {
  ...connectionOptions,
  'grpc-node.flow_control_window': window,
};

/** The gRPC servers behind the gateway, with the same connections for the same address. */
export class Backends {
  readonly #byPrefix: ReadonlyMap<string, Backend>;
  readonly #transport: Transport;
  /** Whether servers are asked often whether they are there: those of others may hang up on that. */
  readonly #pings: boolean;
  readonly #connections = new Map<string, Connections>();

  constructor(entries: readonly BackendAddress[], transport: Transport, whose: 'ours' | 'foreign' = 'ours') {
    this.#transport = transport;
    this.#pings = whose === 'ours';
    const byPrefix = Map.groupBy(entries, ({ prefix }) => prefix);
    const names = [...byPrefix.keys()].map(shortName);
    this.#byPrefix = new Map(
      [...byPrefix].map(([prefix, some], index) => {
        const short = names[index] as string;
        const name = names.indexOf(short) === names.lastIndexOf(short) ? short : prefix;
        return [prefix, { name, ...this.#connect(some.map(({ address }) => address)) }];
      }),
    );
  }

  #connect(addresses: readonly string[]): Connections {
    const all = addresses.join(',');
    let connections = this.#connections.get(all);
    if (connections === undefined) {
      const open = (address: string, options: ChannelOptions) =>
        openClient(targetOf(address), this.#transport.client, this.#pings ? options : { ...options, ...noPings });
      const { tls } = this.#transport;
      const unary = new UnaryClient(targetOf(all), { tls, maxAnswer, keepalive: this.#pings ? keepalive : Infinity });
      const streams = open(all, forStreams);
      const servers = addresses.map((address) => open(address, connectionOptions));
      connections = { unary, calls: new Reach(unary), streams, streamCalls: new Reach(streams), servers };
      this.#connections.set(all, connections);
    }
    return connections;
  }

  /** The server of a service: that with the longest prefix of its full name, or of the empty one. */
  of(service: string): Backend | undefined {
    for (let end = service.length; end > 0; end = service.lastIndexOf('.', end - 1)) {
      const backend = this.#byPrefix.get(service.slice(0, end));
      if (backend !== undefined) return backend;
    }
    return this.#byPrefix.get('');
  }

  /**
   * How every backend is, and what each depends on, by names such as `shop` and `shop.database`. One with several servers is
   * up as long as one of them is. Takes at most 1 s.
   */
  async health(): Promise<Record<string, Health>> {
    const asked = await Promise.all(
      [...this.#byPrefix.values()].map(async ({ name, servers }) => {
        const answers = await Promise.all(servers.map(healthOf));
        const up = answers.filter(({ own }) => own === 'up');
        const found: [string, Health][] = [[name, up.length > 0 ? 'up' : 'down']];
        for (const [index, dependency] of innerDependencies.entries()) {
          // Of a server that doesn't answer nothing more is known.
          const states = up.map(({ inner }) => inner[index]).filter((state) => state !== undefined);
          if (states.length > 0) found.push([`${name}.${dependency}`, states.includes('up') ? 'up' : 'down']);
        }
        return found;
      }),
    );
    return Object.fromEntries(asked.flat());
  }

  close(): void {
    for (const { unary, streams, servers } of this.#connections.values()) {
      for (const each of [unary, streams, ...servers]) each.close();
    }
  }
}

interface ServerHealth {
  own: Health;
  /** In the order of `innerDependencies`; undefined for one that it doesn't have. */
  inner: (Health | undefined)[];
}

async function healthOf(server: Client): Promise<ServerHealth> {
  const [own, ...inner] = await Promise.all([
    checkHealth(server, ''),
    ...innerDependencies.map((dependency) => checkHealth(server, dependency)),
  ]);
  return { own: own ?? 'up', inner };
}

/** The last segment of a package or service that is no version. */
function shortName(prefix: string): string {
  const segments = prefix.split('.');
  return segments.findLast((segment) => !/^v\d+\w*$/.test(segment)) ?? prefix;
}

/** Asks grpc.health.v1; undefined if the server doesn't know that name, or has no health service. */
function checkHealth(client: Client, service: string): Promise<Health | undefined> {
  const request = Buffer.from(new BinaryWriter().tag(1, WireType.LengthDelimited).string(service).finish());
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      (bytes: Buffer) => bytes,
      servingStatus,
      request,
      new Metadata(),
      { deadline: Date.now() + healthDeadline },
      (error: ServiceError | null, serving?: number) => {
        if (error === null) resolve(serving === 1 ? 'up' : 'down');
        else resolve(error.code === status.NOT_FOUND || error.code === status.UNIMPLEMENTED ? undefined : 'down');
      },
    );
  });
}

/** `status` of a HealthCheckResponse: 1 is SERVING. */
function servingStatus(bytes: Uint8Array): number {
  const reader = new BinaryReader(bytes);
  let serving = 0;
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === 1) serving = reader.int32();
    else reader.skip(wire, number);
  }
  return serving;
}
