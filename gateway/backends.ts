import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Client, Metadata, status, type ChannelCredentials, type ServiceError } from '@grpc/grpc-js';

/** An entry of BACKENDS: the server of a package or service. */
export interface BackendAddress {
  /** A package (`acme.shop.v1`) or a service (`acme.shop.v1.Orders`). */
  prefix: string;
  /** host:port, or a gRPC target such as dns:///orders:50051. */
  address: string;
}

/** A gRPC server behind the gateway. */
export interface Backend {
  /** Short name, for people: `shop` for `acme.shop.v1`. */
  name: string;
  client: Client;
  /** For calls that stream: they have a connection of their own, so that bulk doesn't hold up the others. */
  streams: Client;
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

/** How every connection is made. */
const common = {
  // A backend that was restarted is found again soon.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
};

/** The gRPC servers behind the gateway, with the same connections for the same address. */
export class Backends {
  readonly #byPrefix: ReadonlyMap<string, Backend>;
  readonly #credentials: ChannelCredentials;
  readonly #clients = new Map<string, Pick<Backend, 'client' | 'streams'>>();

  constructor(addresses: readonly BackendAddress[], credentials: ChannelCredentials) {
    this.#credentials = credentials;
    const names = addresses.map(({ prefix }) => shortName(prefix));
    this.#byPrefix = new Map(
      addresses.map(({ prefix, address }, index) => {
        const short = names[index] as string;
        const name = names.indexOf(short) === names.lastIndexOf(short) ? short : prefix;
        return [prefix, { name, ...this.#connect(address) }];
      }),
    );
  }

  #connect(address: string): Pick<Backend, 'client' | 'streams'> {
    let clients = this.#clients.get(address);
    if (clients === undefined) {
      clients = {
        client: new Client(address, this.#credentials, { ...common, 'grpc.max_receive_message_length': maxAnswer }),
        streams: new Client(address, this.#credentials, {
          ...common,
          'grpc-node.flow_control_window': window,
          // What is kept for another attempt would count as taken: `write` would say so too early, and hold bytes.
          'grpc.enable_retries': 0,
        }),
      };
      this.#clients.set(address, clients);
    }
    return clients;
  }

  /** The server of a service: that with the longest prefix of its full name. */
  of(service: string): Backend | undefined {
    for (let end = service.length; end > 0; end = service.lastIndexOf('.', end - 1)) {
      const backend = this.#byPrefix.get(service.slice(0, end));
      if (backend !== undefined) return backend;
    }
    return undefined;
  }

  /** How every backend is, and what each depends on, by names such as `shop` and `shop.database`. Takes at most 1 s. */
  async health(): Promise<Record<string, Health>> {
    const asked = await Promise.all(
      [...this.#byPrefix.values()].map(async ({ name, client }) => {
        const [own, ...inner] = await Promise.all([
          checkHealth(client, ''),
          ...innerDependencies.map((dependency) => checkHealth(client, dependency)),
        ]);
        const found: [string, Health][] = [[name, own ?? 'up']];
        for (const [index, state] of inner.entries()) {
          // Of a backend that doesn't answer nothing more is known.
          if (state !== undefined && own !== 'down') found.push([`${name}.${innerDependencies[index]}`, state]);
        }
        return found;
      }),
    );
    return Object.fromEntries(asked.flat());
  }

  close(): void {
    for (const { client, streams } of this.#clients.values()) {
      client.close();
      streams.close();
    }
  }
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
