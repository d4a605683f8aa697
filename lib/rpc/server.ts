import {
  addAdminServicesToServer,
  Metadata,
  Server,
  type sendUnaryData,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
} from '@grpc/grpc-js';
import type { DescField } from '@bufbuild/protobuf';
import type { HealthImplementation } from 'grpc-health-check';
import { Networks } from '../client-address.ts';
import { duration, flag, integer, networks, port, text, type Config } from '../config.ts';
import type { FieldViolation, HubError } from '../errors.ts';
import type { Identities, Identity } from '../identity.ts';
import type { Logger } from '../log.ts';
import { repeat } from '../loop.ts';
import {
  seeThrough,
  usualPatience,
  type Call,
  type Check,
  type Decoded,
  type Outcome,
  type Patience,
  type Rpc,
  type Serving,
} from './call.ts';
import type { Download, DownloadMethod, MethodDefinition, UnaryMethod, UploadBytes, UploadMethod } from './methods.ts';
import type { Authority } from './authority.ts';
import { openCallers } from './callers.ts';
import { Places } from './places.ts';
import { handOverKeys, headOnlyKey, PieceMessage, receivedBytes, widenWindow, writeBytes } from './raw-body.ts';
import { channelzService, ownServices, reflectionHandler, reflectionServices } from './reflection.ts';
import { boundResets } from './resets.ts';
import { accessOf, callersOf, isBearerOnly, method, rawBodyOf, timeoutOf, uuidLowering } from './schema.ts';
import { serveHealth, standing } from './standing.ts';
import { callerKey, toStatus } from './status.ts';
import { openTransport, staysHere, transportSettings } from './transport.ts';

/** Settings of every process that serves gRPC. */
export const serverSettings = {
  ...transportSettings,
  GRPC_HOST: text().default('127.0.0.1').describe('address to serve gRPC on'),
  GRPC_PORT: port().describe('port to serve gRPC on; 0 takes a free one'),
  GRPC_DEADLINE: duration().default(10_000).describe('how long a call may take whose caller set no deadline'),
  GRPC_CONCURRENCY: integer({ min: 2, max: 1_000_000 })
    .default(500)
    .describe('how many calls may run at once, and beside them as many streams and calls that take longer'),
  GRPC_DRAIN: duration().default(5_000).describe('how long running calls may go on when the process stops'),
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

/**
 * For each RPC of a service what answers it. It answers by returning, and refuses by throwing a HubError.
 *
 * An upload is the request and the bytes behind it. A client that goes in the middle aborts the signal, but its bytes may
 * just end before that, since Node's HTTP/2 client ends a stream before it resets it: whoever needs all of them has to know
 * how many they are. A download returns its first message and the bytes behind it.
 */
export type Handlers<D> = {
  [K in keyof D]: D[K] extends UnaryMethod<infer Request, infer Response>
    ? (request: Request, call: CallOfRpc) => Promise<Response>
    : D[K] extends UploadMethod<infer Request, infer Response>
      ? (request: Request, call: CallOfRpc, body: UploadBytes) => Promise<Response>
      : D[K] extends DownloadMethod<infer Request, infer Response>
        ? (request: Request, call: CallOfRpc) => Promise<Download<Response>>
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

/** A service to be served. Made by `service`. */
export interface ServedService {
  name: string;
  definition: ServiceDefinition;
  implementation: (serving: Serving) => Record<string, ServerHandler>;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- grpc-js gives each kind of RPC a signature of its own
type ServerHandler = (call: any, callback: any) => void;

/** Puts together a generated service definition, its handlers and its checks. */
export function service<D extends Record<string, MethodDefinition<unknown, unknown>>>(
  definition: D,
  handlers: Handlers<D>,
  checks: Checks<D> = {},
): ServedService {
  const wrapped: Record<string, unknown> = {};
  const wrappers: Record<string, (serving: Serving) => ServerHandler> = {};
  let name = '';
  for (const [key, method_] of Object.entries(definition)) {
    const description = method(method_.path);
    name = description.parent.typeName;
    const access = accessOf(description);
    if (access === undefined) throw new Error(`${method_.path} doesn't say who may call it`);
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
    };
    const requestDeserialize = (encoded: Buffer): Decoded => ({
      encoded,
      request() {
        try {
          const request = method_.requestDeserialize(encoded) as object;
          lower?.(request);
          return request;
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
    } else if (method_.responseStream) {
      const body = rawBodyOf(description);
      // Pieces of the body are messages already.
      const responseSerialize = (value: object) =>
        value instanceof PieceMessage ? (value as unknown as Buffer) : method_.responseSerialize(value);
      wrapped[key] = { ...method_, requestDeserialize, responseSerialize };
      wrappers[key] = (serving) => download(rpc, body, handler as unknown as DownloadHandler, serving);
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
  patience?: Partial<Patience>;
}

export interface RunningServer {
  /** The port that is really served. */
  port: number;
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
  patience = {},
}: ServeOptions): Promise<RunningServer> {
  const transport = openTransport(config);
  const server = new Server({ 'grpc.max_receive_message_length': 4 * 1024 * 1024 });
  boundResets(server, log);
  const callers = openCallers({ identities, authority, log });
  const serving: Serving = {
    callers,
    log,
    defaultDeadline: config.GRPC_DEADLINE,
    places: new Places(config.GRPC_CONCURRENCY, log),
    patience: { ...usualPatience, ...patience },
    trustedProxies: new Networks(config.TRUSTED_PROXIES),
  };
  for (const each of services) server.addService(each.definition, each.implementation(serving));

  const names = services.map((each) => each.name);
  const channelz = config.GRPC_CHANNELZ ?? staysHere(config.GRPC_HOST);
  if (channelz) addAdminServicesToServer(server);
  const shown = [...names, ...(channelz ? [channelzService] : []), ...ownServices];
  for (const reflection of reflectionServices) {
    const { serverReflectionInfo } = reflectionHandler(shown);
    const limited = { serverReflectionInfo: standing(serving, serverReflectionInfo) };
    server.addService(reflection as unknown as ServiceDefinition, limited);
  }
  const health = serveHealth(server, ['', ...names, ...Object.keys(dependencies)], serving);
  const setOwn = (status: 'SERVING' | 'NOT_SERVING') => {
    for (const name of ['', ...names]) health.setStatus(name, status);
  };
  setOwn('SERVING');

  const retire = () => setOwn('NOT_SERVING');
  const watch = watchDependencies(dependencies, health, log);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${config.GRPC_HOST}:${config.GRPC_PORT}`, transport.server, (error, port) => {
      if (error) reject(new Error(`Can't serve gRPC on ${config.GRPC_HOST}:${config.GRPC_PORT}: ${error.message}`));
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
    retire,
    async stop() {
      retire();
      await watch.stop();
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

const askEvery = 1_000;

function watchDependencies(dependencies: ServeOptions['dependencies'], health: HealthImplementation, log: Logger) {
  const up = new Map<string, boolean>();
  async function ask() {
    await Promise.all(
      Object.entries(dependencies).map(async ([name, probe]) => {
        const failure = await probe().then(
          () => undefined,
          (error: unknown) => error,
        );
        const isUp = failure === undefined;
        if (up.get(name) === isUp) return;
        if (!isUp) log.warn({ err: failure }, `${name} is down`);
        else if (up.has(name)) log.info(`${name} is up again`);
        up.set(name, isUp);
        health.setStatus(name, isUp ? 'SERVING' : 'NOT_SERVING');
      }),
    );
  }
  return repeat('The watch over what is needed', log, async () => {
    await ask();
    return askEvery;
  });
}

type UnaryHandler = (request: object, call: Call) => Promise<object>;
type UploadHandler = (request: object, call: Call, body: UploadBytes) => Promise<object>;
type DownloadHandler = (request: object, call: Call) => Promise<Download<object>>;

async function respond(callback: sendUnaryData<object>, ending: Promise<Outcome>): Promise<void> {
  const outcome = await ending;
  if ('failure' in outcome) callback({ ...statusOf(outcome.failure, outcome) });
  else callback(null, outcome.answer, trailersOf(outcome));
}

function statusOf(failure: HubError, { userId }: Outcome): Partial<StatusObject> {
  const status = toStatus(failure);
  if (userId !== undefined) status.metadata?.set(callerKey, userId);
  return status;
}

function trailersOf({ userId }: Outcome): Metadata | undefined {
  if (userId === undefined) return undefined;
  const trailers = new Metadata();
  trailers.set(callerKey, userId);
  return trailers;
}

function unary(rpc: Rpc, handler: UnaryHandler, serving: Serving): ServerHandler {
  return (call: ServerUnaryCall<Decoded, object>, callback: sendUnaryData<object>) => {
    const answer = (request: object, about: Call) => handler(request, about);
    void respond(callback, seeThrough(rpc, serving, call, { there: call.request }, answer));
  };
}

function upload(rpc: Rpc, body: DescField, handler: UploadHandler, serving: Serving): ServerHandler {
  return (call: ServerReadableStream<Decoded, object>, callback: sendUnaryData<object>) => {
    widenWindow(call);
    // What happens to the stream is seen by whoever reads it.
    call.on('error', () => {});
    const messages = call.iterator({ destroyOnReturn: false });
    let first: Decoded | undefined;
    const coming = async (): Promise<Decoded | undefined> => (first = (await messages.next()).value);
    const answer = (asked: object, about: Call) => {
      // Others than gateways of ours are not to learn of places that are reached from inside.
      const canHandOver = about.origin !== undefined && call.metadata.get(handOverKeys.offer).length > 0;
      return handler(
        asked,
        about,
        receivedBytes(call, body, { messages, first, canHandOver, rate: serving.patience.rate }),
      );
    };
    void respond(callback, seeThrough(rpc, serving, call, { coming }, answer));
  };
}

function download(rpc: Rpc, body: DescField, handler: DownloadHandler, serving: Serving): ServerHandler {
  return (call: ServerWritableStream<Decoded, object>) => {
    const answer = async (request: object, about: Call) => {
      const { head, body: bytes, place } = await handler(request, about);
      if (call.metadata.get(headOnlyKey).length > 0) {
        call.write(head);
        return {};
      }
      // Others than gateways of ours are not to learn of places that are reached from inside.
      const canFetch = about.origin !== undefined && call.metadata.get(handOverKeys.offer)[0] === 'get';
      const url = canFetch ? await place?.() : undefined;
      if (url !== undefined) {
        const metadata = new Metadata();
        metadata.set(handOverKeys.location, url);
        call.sendMetadata(metadata);
        call.write(head);
        return {};
      }
      await writeBytes(call, head, bytes, body, about.signal, serving.patience.taken);
      return {};
    };
    void seeThrough(rpc, serving, call, { there: call.request }, answer).then((outcome) => {
      // How grpc-js is told the status of a stream that is a Writable to us.
      if ('failure' in outcome) call.emit('error', statusOf(outcome.failure, outcome));
      else call.end(trailersOf(outcome));
    });
  };
}
