import type { DescMethod } from '@bufbuild/protobuf';
import { addAdminServicesToServer, Server, setLogger, type ServiceDefinition } from '@grpc/grpc-js';
import { Networks } from '../client-address.ts';
import { duration, flag, integer, networks, port, text, type Config } from '../config.ts';
import type { FieldViolation } from '../errors.ts';
import type { Identities, Identity } from '../identity.ts';
import type { Logger } from '../log.ts';
import type { Health, PartsHealth } from '../readiness.ts';
import { listenFailure } from '../starting.ts';
import {
  beginCounting,
  defaultClientLimits,
  type Call,
  type Check,
  type Decoded,
  type Find,
  type ClientLimits,
  type Rpc,
  type Serving,
  type StreamCall,
} from './call.ts';
import type {
  Download,
  MethodDefinition,
  ServerStreamMethod,
  UnaryMethod,
  UploadBytes,
  UploadMethod,
} from './methods.ts';
import {
  download,
  stream,
  unary,
  upload,
  type DownloadHandler,
  type ServerHandler,
  type StreamHandler,
  type UnaryHandler,
  type UploadHandler,
} from './answering.ts';
import { watchDependencies } from './dependencies.ts';
import type { Authority } from './authority.ts';
import { openCallers } from './callers.ts';
import { canonical } from './canonical.ts';
import { closeGracefully } from './closing.ts';
import { Places } from './places.ts';
import { PieceMessage } from './raw-body.ts';
import { channelzService, ownServices, reflectionHandler, reflectionServices } from './reflection.ts';
import { refusingMalformed } from './refusing.ts';
import { boundResets } from './resets.ts';
import {
  accessOf,
  callerFieldOf,
  callersOf,
  hasRawBody,
  isBearerOnly,
  isStanding,
  method,
  rawBodyOf,
  timeoutOf,
  uuidLowering,
} from './schema.ts';
import { serveHealth, Standing } from './standing.ts';
import { boundTimeouts } from './timeouts.ts';
import type { EncodedMessage } from './writing.ts';
import { openTransport, staysHere, transportSettings } from './transport.ts';

/** Settings of every process that serves gRPC. */
export const serverSettings = {
  ...transportSettings,
  GRPC_HOST: text().default('127.0.0.1').describe('address to serve gRPC on'),
  GRPC_PORT: port().describe('port to serve gRPC on; 0 takes a free one'),
  GRPC_DEADLINE: duration({ max: 3_600_000 })
    .default(10_000)
    .describe('how long a call may take whose caller set no deadline'),
  GRPC_CONCURRENCY: integer({ min: 2, max: 1_000_000 })
    .default(500)
    .describe('how many calls may run at once, and beside them as many streams and calls that take longer'),
  GRPC_DRAIN: duration({ max: 300_000 })
    .default(5_000)
    .describe('how long running calls may go on when the process stops'),
  GRPC_CONNECTION_AGE: duration({ min: 100, max: 24 * 3_600_000 })
    .default(600_000)
    .describe(
      'how long a connection lasts: then its client makes another one, perhaps to a new replica. Calls on it go on until they end',
    ),
  GRPC_CHANNELZ: flag()
    .optional()
    .describe(
      'whether everybody who reaches the port is served channelz; not set, where GRPC_HOST is only reached from here',
    ),
  TRUSTED_PROXIES: networks()
    .default(['127.0.0.1', '::1'])
    .describe(
      'addresses and networks (10.0.0.0/8) of gateways, whose x-forwarded-for and x-forwarded-host are believed',
    ),
};

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- who calls is settled by the access rule, at run time
type CallOfRpc = Call<any>;
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as above
type CallOfStream = StreamCall<any>;

/**
 * The handlers of a service, by RPC. A handler returns the answer, or throws a HubError.
 *
 * An upload gets the request and the bytes that follow it. If the client goes, the signal is aborted, but the bytes may simply end before
 * that, since Node's HTTP/2 client ends a stream before it resets it: so a handler that needs all bytes must know how many there are. A
 * download returns its first message and the bytes that follow it.
 *
 * Any other stream is an async iterable of messages, or of arrays of encoded ones: the next is requested when the connection has taken the
 * last. If the caller goes, its deadline passes or its user is disabled, no more messages are requested, and the signal is aborted.
 */
export type Handlers<D> = {
  [K in keyof D]: D[K] extends UnaryMethod<infer Request, infer Response>
    ? (request: Request, call: CallOfRpc) => Promise<Response>
    : D[K] extends UploadMethod<infer Request, infer Response>
      ? (request: Request, call: CallOfRpc, body: UploadBytes) => Promise<Response>
      : D[K] extends ServerStreamMethod<infer Request, infer Response>
        ? | ((request: Request, call: CallOfStream) => Promise<Download<Response>>)
          | ((request: Request, call: CallOfStream) => AsyncIterable<Response | readonly EncodedMessage[]>)
        : never;
};

/**
 * Checks of requests beyond the rules in their protos, by RPC, so that all wrong fields are reported at once. `found` are the violations
 * that those rules and the gateway have found; if it is empty, a handler may find the rest by itself.
 */
export type Checks<D> = {
  [K in keyof D]?: D[K] extends MethodDefinition<infer Request, infer _>
    ? (
        request: Request,
        found: readonly FieldViolation[],
        caller: Identity | undefined,
      ) => FieldViolation[] | Promise<FieldViolation[]>
    : never;
};

/**
 * Checks, by RPC, that the resource of a request exists and belongs to the caller. They run before the rest of the request is validated, so
 * that other callers learn nothing, and throw a HubError to refuse. `found` are the fields that the gateway could not decode, perhaps among
 * them the ones that the check needs.
 */
export type Finds<D> = {
  [K in keyof D]?: D[K] extends MethodDefinition<infer Request, infer _>
    ? (request: Request, found: readonly FieldViolation[], caller: Identity | undefined) => void | Promise<void>
    : never;
};

/** A service for `serve`, made by `service`. */
export interface ServedService {
  name: string;
  definition: ServiceDefinition;
  implementation: (serving: Serving) => Record<string, ServerHandler>;
}

/** Combines a generated service definition with its handlers and checks. */
export function service<D extends Record<string, MethodDefinition<unknown, unknown>>>(
  definition: D,
  handlers: Handlers<D>,
  checks: Checks<D> = {},
  finds: Finds<D> = {},
): ServedService {
  const wrapped: Record<string, unknown> = {};
  const wrappers: Record<string, (serving: Serving) => ServerHandler> = {};
  let name = '';
  for (const [key, method_] of Object.entries(definition)) {
    const description = method(method_.path);
    name = description.parent.typeName;
    const access = accessOf(description);
    if (access === undefined) throw new Error(`${method_.path} doesn't say who may call it`);
    beginCounting(method_.path.slice(1));
    const lower = uuidLowering(description.input);
    const rpc: Rpc = {
      name: method_.path.slice(1),
      access,
      callers: callersOf(description),
      bearerOnly: isBearerOnly(description),
      description,
      timeout: timeoutOf(description),
      kind: kindOf(description),
      check: checks[key] as Check | undefined,
      callerField: callerFieldOf(description),
      find: finds[key] as Find | undefined,
    };
    const requestDeserialize = (encoded: Buffer): Decoded => ({
      encoded,
      read() {
        try {
          const bytes = canonical(description.input, encoded);
          const request = method_.requestDeserialize(bytes as Buffer) as object;
          lower?.(request);
          return { request, canonical: bytes };
        } catch {
          return undefined;
        }
      },
    });
    const handler = handlers[key as keyof D];
    if (method_.requestStream) {
      const body = rawBodyOf(description);
      wrapped[key] = { ...method_, requestDeserialize };
      wrappers[key] = (serving) => upload(rpc, body, handler as unknown as UploadHandler, serving);
    } else if (method_.responseStream && hasRawBody(description)) {
      const body = rawBodyOf(description);
      // Pieces of the body are encoded already.
      const responseSerialize = (value: object) =>
        value instanceof PieceMessage ? (value as unknown as Buffer) : method_.responseSerialize(value);
      wrapped[key] = { ...method_, requestDeserialize, responseSerialize };
      wrappers[key] = (serving) => download(rpc, body, handler as unknown as DownloadHandler, serving);
    } else if (method_.responseStream) {
      // The messages are encoded already.
      wrapped[key] = { ...method_, requestDeserialize, responseSerialize: (encoded: Buffer) => encoded };
      const serialize = method_.responseSerialize as (message: object) => Buffer;
      wrappers[key] = (serving) => stream(rpc, serialize, handler as unknown as StreamHandler, serving);
    } else {
      wrapped[key] = { ...method_, requestDeserialize };
      wrappers[key] = (serving) => unary(rpc, handler as unknown as UnaryHandler, serving);
    }
  }
  return {
    name,
    definition: wrapped as unknown as ServiceDefinition,
    implementation: (serving) =>
      Object.fromEntries(Object.entries(wrappers).map(([key, wrap]) => [key, wrap(serving)])),
  };
}

/** The kind of place that calls of an RPC take. */
function kindOf(description: DescMethod): Rpc['kind'] {
  if (isStanding(description)) return 'listening';
  return description.methodKind !== 'unary' || timeoutOf(description) !== undefined ? 'long' : 'short';
}

export interface ServeOptions {
  config: Config<typeof serverSettings>;
  identities: Identities;
  /** The source of API keys and standings; closed with the server. */
  authority: Authority;
  log: Logger;
  services: readonly ServedService[];
  /** The checks of what the process needs, by name. Each is called every second, and its result is shown by the health service. */
  dependencies: Readonly<Record<string, () => Promise<void>>>;
  /**
   * The checks of what the process can do without, by name, called every second. The health service shows each as `optional.<name>`;
   * changes are logged by the owner of the connection.
   */
  optionalDependencies?: Readonly<Record<string, () => boolean>>;
  clientLimits?: Partial<ClientLimits>;
  /** Called with users who are disabled, soon after each was and now and then after that. Their long calls are ended anyhow. */
  onDisabled?: (userIds: readonly string[]) => void;
}

export interface RunningServer {
  /** The actual port, if GRPC_PORT is 0. */
  port: number;
  /** The health of the service and its dependencies, as of the last check, about a second ago at most. */
  health(): PartsHealth;
  /** Reports NOT_SERVING on the health service, though calls are still accepted. */
  retire(): void;
  /** Refuses new calls, lets calls in flight finish within GRPC_DRAIN, then aborts them. */
  stop(): Promise<void>;
}

/**
 * Serves gRPC: the given services, each call checked against the access rule and the validation rules of its proto, with a deadline, a log
 * line and an error boundary; and health (grpc.health.v1), reflection and, if allowed, channelz, which shows the process's connections with
 * their peers and counters, but no content.
 */
export async function serve({
  config,
  identities,
  authority,
  log,
  services,
  dependencies,
  optionalDependencies = {},
  clientLimits = {},
  onDisabled,
}: ServeOptions): Promise<RunningServer> {
  const transport = openTransport(config);
  // grpc-js would write plain text to standard error. Failed calls have log lines of our own, so its lines are only for debugging.
  const toLog = (...parts: unknown[]) => log.debug(parts.map(String).join(' '));
  setLogger({ error: toLog, info: toLog, debug: toLog });
  const server = new Server({
    'grpc.max_receive_message_length': 4 * 1024 * 1024,
    // Without a grace period: each call has a deadline.
    'grpc.max_connection_age_ms': config.GRPC_CONNECTION_AGE,
  });
  boundResets(server, log);
  boundTimeouts(server);
  closeGracefully(server);
  const callers = openCallers({ identities, authority, log, onDisabled });
  const serving: Serving = {
    callers,
    log,
    defaultDeadline: config.GRPC_DEADLINE,
    places: new Places(config.GRPC_CONCURRENCY, log),
    clientLimits: { ...defaultClientLimits, ...clientLimits },
    trustedProxies: new Networks(config.TRUSTED_PROXIES),
  };
  for (const each of services) server.addService(each.definition, each.implementation(serving));

  const names = services.map((each) => each.name);
  const channelz = config.GRPC_CHANNELZ ?? staysHere(config.GRPC_HOST);
  const ofOthers = refusingMalformed(server) as Server;
  if (channelz) addAdminServicesToServer(ofOthers);
  const shown = [...names, ...(channelz ? [channelzService] : []), ...ownServices];
  const stand = new Standing(serving);
  for (const reflection of reflectionServices) {
    const { serverReflectionInfo } = reflectionHandler(shown);
    const limited = { serverReflectionInfo: stand.answering(serverReflectionInfo) };
    ofOthers.addService(reflection as unknown as ServiceDefinition, limited);
  }
  const optional = Object.entries(optionalDependencies).map(
    ([name, isThere]) => [`optional.${name}`, isThere] as const,
  );
  const asked = [...Object.keys(dependencies), ...optional.map(([name]) => name)];
  const health = serveHealth(ofOthers, ['', ...names, ...asked], stand);
  const setOwn = (status: 'SERVING' | 'NOT_SERVING') => {
    for (const name of ['', ...names]) health.setStatus(name, status);
  };
  setOwn('SERVING');

  const retire = () => setOwn('NOT_SERVING');
  const watch = watchDependencies(dependencies, optional, health, log);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${config.GRPC_HOST}:${config.GRPC_PORT}`, transport.server, (error, port) => {
      const at = { host: config.GRPC_HOST, port: config.GRPC_PORT };
      if (error) reject(listenFailure(error, { host: 'GRPC_HOST', port: 'GRPC_PORT' }, at));
      else resolve(port);
    });
  }).catch(async (error: Error) => {
    await Promise.all([watch.stop(), callers.stop()]);
    throw error;
  });

  if (!transport.encrypted && !staysHere(config.GRPC_HOST)) {
    log.warn(`gRPC on ${config.GRPC_HOST} is plain text: set GRPC_TLS_CERT, or use a network that encrypts`);
  }

  return {
    port: bound,
    health() {
      const stateOf = (name: string): Health => (watch.isUp(name) ? 'up' : 'down');
      const own = Object.keys(dependencies).map((name) => [`${identities.name}.${name}`, stateOf(name)]);
      const without = optional.map(([name, isThere]) => [
        name.replace('optional', identities.name),
        isThere() ? 'up' : 'down',
      ]);
      return {
        dependencies: Object.fromEntries([[identities.name, 'up'], ...own]) as Record<string, Health>,
        optional: Object.fromEntries(without) as Record<string, Health>,
      };
    },
    retire,
    async stop() {
      retire();
      await watch.stop();
      stand.end();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          server.forceShutdown();
          resolve();
        }, config.GRPC_DRAIN);
        server.tryShutdown(() => {
          clearTimeout(timer);
          resolve();
        });
      });
      await callers.stop();
    },
  };
}
