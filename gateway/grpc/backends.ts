import { BinaryReader, BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { Metadata, status, type ChannelOptions, type Client, type ServiceError } from '@grpc/grpc-js';
import { oneOf } from '#lib/config.ts';
import type { Health, PartsHealth } from '#lib/readiness.ts';
import { onceMoreIfRefused, openClient } from '#lib/rpc/grpc-client.ts';
import { connectionOptions, Reach, targetOf } from '#lib/rpc/reach.ts';
import type { Transport } from '#lib/rpc/transport.ts';
import { UnaryClient } from './unary-client.ts';
import { GrpcJsCaller, type UnaryCaller } from './unary-grpc-js.ts';
import { keepalives } from './unary-peer.ts';

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
  unary: UnaryCaller;
  /** How calls get there. */
  calls: Reach;
  /** For streaming calls, which have a connection of their own so that large transfers don't delay unary calls. */
  streams: Client;
  streamCalls: Reach;
  /** For calls that are answered with streams of messages, of which there may be thousands; undefined where they go through `streams`. */
  messages: UnaryClient | undefined;
  messageCalls: Reach;
  /** A client for each server by itself, for health checks. */
  servers: readonly Client[];
}

export interface BackendsOptions {
  /** Our own servers are sent PINGs often; those of others may close the connection for that. */
  whose?: 'ours' | 'foreign';
  /** Which client makes unary calls. */
  client?: GrpcClient;
}

/** Clients of gRPC: our own for unary calls (gateway/grpc/http2), or grpc-js's. */
export type GrpcClient = 'own' | 'grpc-js';

export const grpcClientSettings = {
  GATEWAY_GRPC_CLIENT: oneOf(['own', 'grpc-js'])
    .default('own')
    .describe(
      'which client the gateway makes unary calls with: its own, or that of @grpc/grpc-js, which takes more time',
    ),
};

/** Names under which the health service of a backend may report its dependencies. */
const innerDependencies = ['database', 'clock', 'bus', 'store'];
/** The prefix of optional dependencies in the health service of lib/rpc. */
const optionalPrefix = 'optional.';

const healthTimeoutMs = 1_000;
/** A list of a hundred long texts is more than the 4 MiB that gRPC takes by default. */
const maxAnswer = 32 * 1024 * 1024;
/** The flow-control window of a stream in bytes: with the 64 KiB of HTTP/2, a stream would wait for each round trip. */
const window = 256 * 1024;

const noKeepalive: ChannelOptions = { 'grpc.keepalive_time_ms': 2 ** 31 - 1 };

const forStreams: ChannelOptions = {
  ...connectionOptions,
  ...onceMoreIfRefused,
  'grpc-node.flow_control_window': window,
};

/** The gRPC servers behind the gateway, with the same connections for the same address. */
export class Backends {
  readonly #byPrefix: ReadonlyMap<string, Backend>;
  readonly #transport: Transport;
  readonly #options: BackendsOptions;
  readonly #connections = new Map<string, Connections>();

  constructor(entries: readonly BackendAddress[], transport: Transport, options: BackendsOptions = {}) {
    this.#transport = transport;
    this.#options = options;
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
      const { whose = 'ours', client = 'own' } = this.#options;
      const open = (address: string, options: ChannelOptions) =>
        openClient(
          targetOf(address),
          this.#transport.client,
          whose === 'ours' ? options : { ...options, ...noKeepalive },
        );
      const { tls } = this.#transport;
      const unary =
        client === 'own'
          ? new UnaryClient(targetOf(all), { tls, maxAnswer, keepalive: keepalives[whose] })
          : new GrpcJsCaller(open(all, { ...connectionOptions, 'grpc.max_receive_message_length': maxAnswer }));
      const streams = open(all, forStreams);
      const servers = addresses.map((address) => open(address, { ...connectionOptions, ...onceMoreIfRefused }));
      const streamCalls = new Reach(streams);
      const messages =
        client === 'own'
          ? new UnaryClient(targetOf(all), { tls, maxAnswer, keepalive: keepalives[whose], window })
          : undefined;
      const messageCalls = messages === undefined ? streamCalls : new Reach(messages);
      connections = { unary, calls: new Reach(unary), streams, streamCalls, messages, messageCalls, servers };
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

  /** Asks all servers. A backend with several is up as long as one of them is, and so is what it depends on. Takes at most 1 s. */
  async health(): Promise<PartsHealth> {
    const dependencies: [string, Health][] = [];
    const optional: [string, Health][] = [];
    const asked = await Promise.all(
      [...this.#byPrefix.values()].map(async ({ name, servers }) => ({
        name,
        answers: await Promise.all(servers.map(healthOf)),
      })),
    );
    for (const { name, answers } of asked) {
      // Nothing more is known of a server that doesn't answer.
      const up = answers.filter(({ own }) => own === 'up');
      dependencies.push([name, up.length > 0 ? 'up' : 'down']);
      for (const [inner, state] of merged(up.map(({ inner }) => inner))) dependencies.push([`${name}.${inner}`, state]);
      for (const [inner, state] of merged(up.map((each) => each.optional))) optional.push([`${name}.${inner}`, state]);
    }
    return { dependencies: Object.fromEntries(dependencies), optional: Object.fromEntries(optional) };
  }

  close(): void {
    for (const { unary, streams, messages, servers } of this.#connections.values()) {
      for (const each of [unary, streams, messages, ...servers]) each?.close();
    }
  }
}

interface ServerHealth {
  own: Health;
  /** Those of `innerDependencies` that it has. */
  inner: ReadonlyMap<string, Health>;
  optional: ReadonlyMap<string, Health>;
}

async function healthOf(server: Client): Promise<ServerHealth> {
  const [own, optional, ...inner] = await Promise.all([
    checkHealth(server, ''),
    optionalHealth(server),
    ...innerDependencies.map(async (name) => [name, await checkHealth(server, name)] as const),
  ]);
  const known = inner.filter((each): each is [string, Health] => each[1] !== undefined);
  return { own: own ?? 'up', inner: new Map(known), optional };
}

/** Merges what several servers report: a dependency is up if one of them says so. */
function merged(states: readonly ReadonlyMap<string, Health>[]): Map<string, Health> {
  const found = new Map<string, Health>();
  for (const [name, state] of states.flatMap((each) => [...each])) {
    if (found.get(name) !== 'up') found.set(name, state);
  }
  return found;
}

/** The last segment of a package or service that is no version. */
function shortName(prefix: string): string {
  const segments = prefix.split('.');
  return segments.findLast((segment) => !/^v\d+\w*$/.test(segment)) ?? prefix;
}

/** Asks grpc.health.v1; undefined if the server doesn't know that name, or has no health service. */
async function checkHealth(client: Client, service: string): Promise<Health | undefined> {
  const request = new BinaryWriter().tag(1, WireType.LengthDelimited).string(service).finish();
  const answer = await askHealth(client, 'Check', request);
  if (answer instanceof Uint8Array) return healthIn(answer);
  return answer === status.NOT_FOUND || answer === status.UNIMPLEMENTED ? undefined : 'down';
}

/** What a server says of its optional dependencies; nothing if it can't list them. */
async function optionalHealth(client: Client): Promise<Map<string, Health>> {
  const found = new Map<string, Health>();
  const answer = await askHealth(client, 'List', new Uint8Array());
  if (!(answer instanceof Uint8Array)) return found;
  for (const entry of fieldsOf(answer, 1)) {
    const [name] = fieldsOf(entry, 1);
    const [state] = fieldsOf(entry, 2);
    const text = Buffer.from(name ?? []).toString();
    if (text.startsWith(optionalPrefix))
      found.set(text.slice(optionalPrefix.length), healthIn(state ?? new Uint8Array()));
  }
  return found;
}

/** Calls a method of grpc.health.v1.Health. @returns its answer, or the code of its status */
function askHealth(client: Client, method: 'Check' | 'List', request: Uint8Array): Promise<Uint8Array | status> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      `/grpc.health.v1.Health/${method}`,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.from(request),
      new Metadata(),
      { deadline: Date.now() + healthTimeoutMs },
      (error: ServiceError | null, answer?: Buffer) => resolve(error === null ? answer! : error.code),
    );
  });
}

/** The values of a field that are bytes, texts or messages. */
function fieldsOf(message: Uint8Array, field: number): Uint8Array[] {
  const reader = new BinaryReader(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === field && wire === WireType.LengthDelimited) found.push(reader.bytes());
    else reader.skip(wire, number);
  }
  return found;
}

/** `status` of a HealthCheckResponse: 1 is SERVING. */
function healthIn(bytes: Uint8Array): Health {
  const reader = new BinaryReader(bytes);
  let serving = 0;
  while (reader.pos < reader.len) {
    const [number, wire] = reader.tag();
    if (number === 1) serving = reader.int32();
    else reader.skip(wire, number);
  }
  return serving === 1 ? 'up' : 'down';
}
