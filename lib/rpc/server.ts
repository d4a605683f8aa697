import { performance } from 'node:perf_hooks';
import {
  type Metadata,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { HealthImplementation } from 'grpc-health-check';
import { v4 as uuid } from 'uuid';
import { duration, list, port, text } from '../config.ts';
import { withContext, type CallContext } from '../context.ts';
import { HubError, invalidFields, type FieldViolation } from '../errors.ts';
import type { Identities, Identity, UserIdentity } from '../identity.ts';
import type { Logger } from '../log.ts';
import { repeat } from '../loop.ts';
import type { Methods, MethodDefinition } from './methods.ts';
import { ownServices, reflectionHandler, reflectionServices } from './reflection.ts';
import { accessOf, method, uuidLowering, validate, type Access } from './schema.ts';
import { decodeViolations, toStatus } from './status.ts';

/** Settings of every process that serves gRPC. */
export const serverSettings = {
  GRPC_HOST: text().default('127.0.0.1').describe('address to serve gRPC on'),
  GRPC_PORT: port().describe('port to serve gRPC on; 0 takes a free one'),
  GRPC_DEADLINE: duration().default(10_000).describe('how long a call may take whose caller set no deadline'),
  GRPC_DRAIN: duration().default(5_000).describe('how long running calls may go on when the process stops'),
  TRUSTED_PROXIES: list()
    .default(['127.0.0.1', '::1'])
    .describe('addresses of gateways, whose x-forwarded-for is believed'),
};

/** What a handler knows about its call. */
export interface Call<Caller = unknown> {
  /** Who calls, as far as the access rule of the RPC makes sure of it. */
  caller: Caller;
  requestId: string;
  /** The client's address, for limits by address. */
  address: string;
  /** Aborted when the caller has gone or its deadline has passed. */
  signal: AbortSignal;
}

/** A call by a user: RPCs with the access rule USER or ADMIN. */
export type UserCall = Call<UserIdentity>;

/** For each RPC of a service what answers it. It answers by returning, and refuses by throwing a HubError. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- who calls is settled by the access rule, at run time
export type Handlers<D> = Methods<D, [call: Call<any>]>;

/**
 * For some RPCs what is wrong with a request beyond the rules in its proto, so that all wrong fields are named at once.
 * `found` is what those rules and the gateway have found; a handler that finds the rest by itself need only be helped
 * out where there is some.
 */
export type Checks<D> = {
  [K in keyof D]?: D[K] extends MethodDefinition<infer Request, infer _>
    ? (request: Request, found: readonly FieldViolation[]) => FieldViolation[] | Promise<FieldViolation[]>
    : never;
};

/** A service to be served. Made by `service`. */
export interface ServedService {
  name: string;
  definition: ServiceDefinition;
  implementation: (serving: Serving) => Record<string, UnaryHandler>;
}

type Check = (request: object, found: readonly FieldViolation[]) => FieldViolation[] | Promise<FieldViolation[]>;
type UnaryHandler = (call: ServerUnaryCall<Decoded, object>, callback: sendUnaryData<object>) => void;

/** A request as the deserialiser hands it over: it must not throw, so what is wrong travels with the request. */
interface Decoded {
  /** Undefined if the bytes were no message of that type. */
  request: object | undefined;
  violations: FieldViolation[];
}

interface Serving {
  identities: Identities;
  log: Logger;
  defaultDeadline: number;
  trustedProxies: ReadonlySet<string>;
}

/** Puts together a generated service definition, its handlers and its checks. */
export function service<D extends Record<string, MethodDefinition<unknown, unknown>>>(
  definition: D,
  handlers: Handlers<D>,
  checks: Checks<D> = {},
): ServedService {
  const wrapped: Record<string, unknown> = {};
  const wrappers: Record<string, (serving: Serving) => UnaryHandler> = {};
  let name = '';
  for (const [key, rpc] of Object.entries(definition)) {
    const description = method(rpc.path);
    name = description.parent.typeName;
    const access = accessOf(description);
    if (access === undefined) throw new Error(`${rpc.path} doesn't say who may call it`);
    const lower = uuidLowering(description.input);
    const check = checks[key] as Check | undefined;
    wrapped[key] = {
      ...rpc,
      requestDeserialize(encoded: Buffer): Decoded {
        try {
          const request = rpc.requestDeserialize(encoded) as object;
          lower?.(request);
          return { request, violations: validate(description.input, encoded) };
        } catch {
          return { request: undefined, violations: [] };
        }
      },
    };
    const handler = handlers[key as keyof D] as (request: object, call: Call) => Promise<object>;
    wrappers[key] = (serving) => unary(rpc.path.slice(1), access, handler, check, serving);
  }
  return {
    name,
    definition: wrapped as unknown as ServiceDefinition,
    implementation: (serving) =>
      Object.fromEntries(Object.entries(wrappers).map(([key, wrap]) => [key, wrap(serving)])),
  };
}

export interface ServeOptions {
  config: {
    GRPC_HOST: string;
    GRPC_PORT: number;
    GRPC_DEADLINE: number;
    GRPC_DRAIN: number;
    TRUSTED_PROXIES: string[];
  };
  identities: Identities;
  log: Logger;
  services: readonly ServedService[];
  /** What the process needs, by name: each is asked every second, and shown by the health service under its name. */
  dependencies: Readonly<Record<string, () => Promise<void>>>;
}

export interface RunningServer {
  /** The port that is really served. */
  port: number;
  /** Refuses new calls, lets running ones end within GRPC_DRAIN, then cuts them off. */
  stop(): Promise<void>;
}

/**
 * Serves gRPC: the given services, each call checked against the access rule and the validation rules of its proto, with
 * a deadline, a log line and an error boundary; beside them health (grpc.health.v1) and reflection.
 */
export async function serve({ config, identities, log, services, dependencies }: ServeOptions): Promise<RunningServer> {
  const server = new Server({ 'grpc.max_receive_message_length': 4 * 1024 * 1024 });
  const serving: Serving = {
    identities,
    log,
    defaultDeadline: config.GRPC_DEADLINE,
    trustedProxies: new Set(config.TRUSTED_PROXIES),
  };
  for (const each of services) server.addService(each.definition, each.implementation(serving));

  const names = services.map((each) => each.name);
  for (const reflection of reflectionServices) {
    server.addService(reflection as unknown as ServiceDefinition, reflectionHandler([...names, ...ownServices]));
  }
  const health = new HealthImplementation(
    Object.fromEntries([
      ...['', ...names].map((name) => [name, 'SERVING'] as const),
      ...Object.keys(dependencies).map((name) => [name, 'NOT_SERVING'] as const),
    ]),
  );
  health.addToServer(server);

  const watch = watchDependencies(dependencies, health, log);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${config.GRPC_HOST}:${config.GRPC_PORT}`, ServerCredentials.createInsecure(), (error, port) => {
      if (error) reject(new Error(`Can't serve gRPC on ${config.GRPC_HOST}:${config.GRPC_PORT}: ${error.message}`));
      else resolve(port);
    });
  });

  return {
    port: bound,
    async stop() {
      for (const name of ['', ...names]) health.setStatus(name, 'NOT_SERVING');
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

/** Wraps a handler in all that every call needs. `name` is `<service>/<method>`. */
function unary(
  name: string,
  access: Access,
  handler: (request: object, call: Call) => Promise<object>,
  check: Check | undefined,
  { identities, log, defaultDeadline, trustedProxies }: Serving,
): UnaryHandler {
  return (call, callback) => {
    const began = performance.now();
    const context: CallContext = {
      requestId: requestIdOf(call.metadata),
      deadline: deadlineOf(call.getDeadline(), defaultDeadline),
    };
    void withContext(context, async () => {
      let caller: Identity | undefined;
      let failure: HubError | undefined;
      try {
        caller = await identify(call.metadata, access, identities);
        const { request, violations } = call.request;
        const told = toldBy(call.metadata);
        if (request === undefined || told === undefined) {
          throw new HubError('INVALID_ARGUMENT', 'MALFORMED_REQUEST', 'The request is no message of the expected type');
        }
        const answer = await withDeadline(context.deadline as number, async (abort) => {
          call.on('cancelled', () => abort.abort());
          const found = [...told, ...withoutRepeats(violations, told)];
          const more = check === undefined ? [] : await check(request, found);
          const wrong = [...found, ...withoutRepeats(more, found)];
          if (wrong.length > 0) throw invalidFields(wrong);
          const address = addressOf(call.getPeer(), call.metadata, trustedProxies);
          return handler(request, { caller, requestId: context.requestId, address, signal: abort.signal });
        });
        callback(null, answer);
      } catch (error) {
        if (error instanceof HubError) {
          failure = error;
        } else {
          log.error({ err: error, rpc: name }, 'An RPC failed in a way that it should not');
          failure = new HubError('INTERNAL', 'INTERNAL', 'Something went wrong on our side');
        }
        callback({ ...toStatus(failure) });
      }
      const line = {
        rpc: name,
        code: failure?.kind ?? 'OK',
        reason: failure?.reason,
        ms: Math.round((performance.now() - began) * 10) / 10,
        by: caller?.kind === 'user' ? caller.userId : caller?.name,
      };
      if (failure?.kind === 'UNAVAILABLE') log.warn({ ...line, err: failure.cause }, failure.message);
      else log.info(line, 'rpc');
    });
  };
}

const violationsKey = 'x-field-violations-bin';
/** Wrong fields that a gateway found while it decoded, as google.rpc.BadRequest: the call is refused with all of them. */
function toldBy(metadata: Metadata): FieldViolation[] | undefined {
  const [encoded] = metadata.get(violationsKey);
  if (encoded === undefined) return [];
  try {
    const told = decodeViolations(encoded as Buffer);
    return told.length > 0 ? told : undefined;
  } catch {
    return undefined;
  }
}

const requestIdPattern = /^[A-Za-z0-9._:-]{1,128}$/;

function requestIdOf(metadata: Metadata): string {
  const [given] = metadata.get('x-request-id');
  return typeof given === 'string' && requestIdPattern.test(given) ? given : uuid();
}

/** Milliseconds since the epoch. */
function deadlineOf(given: Date | number, fallback: number): number {
  const at = given instanceof Date ? given.getTime() : given;
  return Number.isFinite(at) ? at : Date.now() + fallback;
}

/** The address that the nearest trusted proxy saw, or that of the peer itself. */
function addressOf(peer: string, metadata: Metadata, trustedProxies: ReadonlySet<string>): string {
  const direct = peer.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
  const [forwarded] = metadata.get('x-forwarded-for');
  if (typeof forwarded !== 'string' || !trustedProxies.has(direct)) return direct;
  return forwarded.split(',').at(-1)?.trim() || direct;
}

/** Who calls, if they may. */
async function identify(metadata: Metadata, access: Access, identities: Identities): Promise<Identity | undefined> {
  if (access === 'PUBLIC') return undefined;
  const [header] = metadata.get('authorization');
  const token = typeof header === 'string' ? /^bearer +(\S+)$/i.exec(header)?.[1] : undefined;
  if (token === undefined) {
    throw header === undefined
      ? new HubError('UNAUTHENTICATED', 'TOKEN_MISSING', 'This call needs a bearer token: log in first')
      : new HubError('UNAUTHENTICATED', 'TOKEN_INVALID', 'The authorization must be `Bearer <token>`');
  }
  const caller = await identities.verify(token);
  const allowed =
    access === 'SERVICE' ? caller.kind === 'service' : caller.kind === 'user' && (access === 'USER' || caller.admin);
  if (!allowed) throw new HubError('PERMISSION_DENIED', 'ACCESS_DENIED', 'Access denied: this call is not for you');
  return caller;
}

/** Of `found`, what is not already said of the same field. */
function withoutRepeats(found: readonly FieldViolation[], said: readonly FieldViolation[]): FieldViolation[] {
  const named = new Set(said.map((violation) => violation.field));
  return found.filter((violation) => !named.has(violation.field));
}

async function withDeadline<T>(deadline: number, work: (signal: AbortController) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      controller.abort();
      reject(new HubError('DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'The call took longer than its deadline'));
    }, deadline - Date.now());
  });
  try {
    return await Promise.race([work(controller), late]);
  } finally {
    clearTimeout(timer);
  }
}
