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
  method,
  rawBodyOf,
  timeoutOf,
  uuidLowering,
} from './schema.ts';
import { serveHealth, Standing } from './standing.ts';
import { boundTimeouts } from './timeouts.ts';
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
 * For each RPC of a service what answers it. It answers by returning, and refuses by throwing a HubError.
 *
 * An upload is the request and the bytes behind it. A client that goes in the middle aborts the signal, but its bytes may
 * just end before that, since Node's HTTP/2 client ends a stream before it resets it: whoever needs all of them has to know
 * how many they are. A download returns its first message and the bytes behind it.
 *
 * Another stream is answered by its messages, one by one: the next one is asked for when the caller has taken the last. If the caller
 * goes or its deadline passes, no more of them are asked for, and the signal is aborted.
 */
export type Handlers<D> = {
  [K in keyof D]: D[K] extends UnaryMethod<infer Request, infer Response>
    ? (request: Request, call: CallOfRpc) => Promise<Response>
    : D[K] extends UploadMethod<infer Request, infer Response>
      ? (request: Request, call: CallOfRpc, body: UploadBytes) => Promise<Response>
      : D[K] extends ServerStreamMethod<infer Request, infer Response>
        ? | ((request: Request, call: CallOfStream) => Promise<Download<Response>>)
          | ((request: Request, call: CallOfStream) => AsyncIterable<Response>)
        : never;
};

/**
 * For some RPCs what is wrong with a request beyond the rules in its proto, so that all wrong fields are named at once.
 * `found` is what those rules and the gateway have found; a handler that finds the rest by itself need only be helped
 * out where there is some.
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
 * For some RPCs what makes sure that the thing exists that a request is about, and is the caller's: before anything else of the
 * request is looked at, so that whose it isn't learns nothing. It refuses by throwing a HubError. `found` is what the gateway
 * could not read, the fields that it needs perhaps among them.
 */
export type Finds<D> = {
  [K in keyof D]?: D[K] extends MethodDefinition<infer Request, infer _>
    ? (request: Request, found: readonly FieldViolation[], caller: Identity | undefined) => void | Promise<void>
    : never;
};

/** A service to be served. Made by `service`. */
export interface ServedService {
  name: string;
  definition: ServiceDefinition;
  implementation: (serving: Serving) => Record<string, ServerHandler>;
}

/** Puts together a generated service definition, its handlers, its checks and its finds. */
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
      kind: method_.requestStream || method_.responseStream || timeoutOf(description) !== undefined ? 'long' : 'short',
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
      // Pieces of the body are messages already.
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

export interface ServeOptions {
  config: Config<typeof serverSettings>;
  identities: Identities;
  /** Asked for API keys and standings. Closed with the server. */
  authority: Authority;
  log: Logger;
  services: readonly ServedService[];
  /** What the process needs, by name: each is asked every second, and shown by the health service under its name. */
  dependencies: Readonly<Record<string, () => Promise<void>>>;
  /**
   * What the process can do without, by name: whether each is there, asked every second. The health service shows it under its name
   * behind `optional.`; whoever keeps up the connection logs what becomes of it.
   */
  optionalDependencies?: Readonly<Record<string, () => boolean>>;
  clientLimits?: Partial<ClientLimits>;
}

export interface RunningServer {
  /** The port that is really served. */
  port: number;
  /** How it is, and what it depends on, under the name of the service. As it was when it was last asked, within a second or so. */
  health(): PartsHealth;
  /** Says on the health service that it serves nothing any more, though it still does. */
  retire(): void;
  /** Refuses new calls, lets running ones end within GRPC_DRAIN, then cuts them off. */
  stop(): Promise<void>;
}

/**
 * Serves gRPC: the given services, each call checked against the access rule and the validation rules of its proto, with
 * a deadline, a log line and an error boundary; beside them health (grpc.health.v1), reflection and, where it may be,
 * channelz: the process's connections with their peers and counters, and nothing of what goes over them.
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
}: ServeOptions): Promise<RunningServer> {
  const transport = openTransport(config);
  // By itself grpc-js writes plain text to standard error. Our own lines tell of failed calls, so its lines are only for debugging.
  const toLog = (...parts: unknown[]) => log.debug(parts.map(String).join(' '));
  setLogger({ error: toLog, info: toLog, debug: toLog });
  const server = new Server({
    'grpc.max_receive_message_length': 4 * 1024 * 1024,
    // There is no grace after which it is cut off: each call has a deadline.
    'grpc.max_connection_age_ms': config.GRPC_CONNECTION_AGE,
  });
  boundResets(server, log);
  boundTimeouts(server);
  closeGracefully(server);
  const callers = openCallers({ identities, authority, log });
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
