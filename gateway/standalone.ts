import cluster from 'node:cluster';
import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import os from 'node:os';
import { parseArgs } from 'node:util';
import type { DescMethod, FileRegistry } from '@bufbuild/protobuf';
import { clientOf } from '#lib/client-address.ts';
import { ConfigError, type Config } from '#lib/config.ts';
import { runProcess, type ProcessDefinition, type Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { minBodyRate, minDownloadRate } from '#lib/rate-floor.ts';
import { openTransport, transportSettings } from '#lib/rpc/transport.ts';
import { Admission } from './http/admission.ts';
import { readApiConfiguration } from './rules/api-configuration.ts';
import { Backends, grpcClientSettings, type GrpcClient } from './grpc/backends.ts';
import { answered, noRoute } from './http/request-context.ts';
import { readRoutes, type Binding } from './rules/bindings.ts';
import { isForm } from './http/media-type.ts';
import { trailersFor } from './calls/call.ts';
import { grpcGatewayRules } from './dialects/grpc-gateway/rules.ts';
import { grpcGatewayDialect } from './dialects/grpc-gateway/dialect.ts';
import { grpcGatewayProblem } from './dialects/grpc-gateway/errors.ts';
import { HealthAnswers } from './health.ts';
import { hasTarget, malformedTarget, targetOf } from './http/request-target.ts';
import { Problem } from './http/problem.ts';
import type { Route, RouteError } from './rules/path-template.ts';
import { rpcRoutes, type Handler, type Limits } from './calls/rpc-routes.ts';
import { GrpcGatewayRouteTable } from './dialects/grpc-gateway/route-table.ts';
import { startWorkers } from './workers.ts';
import { answerOrAbort, dispatch, openGatewayServer, problemFrom, readDescriptors, type Dispatcher } from './server.ts';

/**
 * Unary calls at once, of one process: one address, which may be a proxy with all clients behind it, gets half. Each costs some
 * 10 KiB while it waits, and a server in Go is used to as many.
 */
const concurrency = 4_000;

const usage = `npm run gateway -- --descriptor-set <file> --backend <host:port> --port <n> [options]

Serves the HTTP rules (google.api.http) of a descriptor set as REST, in front of any gRPC server, as grpc-gateway does.

  --descriptor-set <file>   FileDescriptorSet with all imports: buf build --as-file-descriptor-set -o <file>, or
                            protoc --include_imports --descriptor_set_out=<file>
  --backend <host:port>     the gRPC server; several with commas between them if they are IP addresses
  --port <n>                port to serve HTTP on; 0 takes a free one
  --host <address>          address to serve HTTP on; 127.0.0.1 by default
  --enum-names proto|short  names of enum values in JSON: as in the proto (COLOR_RED, the default), or red
  --api-configuration <file>
                            gRPC API Configuration (YAML) with HTTP rules that don't stand in the protos
  --skip-unusable           serve the other rules if some are not usable: each of these is named in the log, with its method.
                            Without it the gateway doesn't start then
  --workers <n>             processes that share the port; by default as many as the machine has cores
  --concurrency <n>         unary calls that may be under way at once in each of them, ${concurrency} by default. Streams get half as
                            many places, connections ten times as many, and one address at most half of any of them

GET /healthz says whether the server serves (grpc.health.v1), unless a rule of the descriptor set takes that path.
GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA make it call the server over TLS. GATEWAY_GRPC_CLIENT=grpc-js makes unary calls with
the client of @grpc/grpc-js in place of its own.`;

/** How the gateway is to be started alone. */
export interface StandaloneOptions {
  descriptorSet: string;
  backend: string;
  port: number;
  host: string;
  enumNames: 'short' | 'proto';
  /** A gRPC API Configuration with HTTP rules that don't stand in the protos. */
  apiConfiguration?: string;
  /** Whether rules that are not usable are left out. */
  skipUnusable?: boolean;
  grpcClient?: GrpcClient;
  concurrency?: number;
}

const timeoutsMs = { idle: 65_000, headers: 60_000, request: 0, drain: 5_000 };
const limits: Limits = {
  // There is none unless a client says one: whoever doesn't want to wait any longer goes away.
  timeout: Infinity,
  bodyLimit: 64 * 1024 * 1024,
  bodyTimeout: 300_000,
  floor: minBodyRate,
  silence: 300_000,
  downloadIdle: minDownloadRate.window,
  heartbeat: 20_000,
};

/** Serves HTTP in front of a gRPC server of others. */
export async function startStandalone(
  options: StandaloneOptions,
  config: Config<typeof transportSettings>,
  log: Logger,
): Promise<Running> {
  const { descriptorSet, backend, port, host, enumNames, concurrency: places = concurrency, grpcClient } = options;
  const registry = readDescriptors(descriptorSet, descriptorSet);
  const dialect = grpcGatewayDialect(registry, enumNames);
  const bindings = readUsable(registry, options, log);
  if (bindings.length === 0) throw new ConfigError([`${descriptorSet} has no service with an HTTP rule`]);
  const backends = new Backends([{ prefix: '', address: backend }], openTransport(config), {
    whose: 'foreign',
    client: grpcClient,
  });
  const admission = new Admission({
    places,
    bodyLimit: limits.bodyLimit,
    clientOf: ({ socket }) => clientOf(socket.remoteAddress ?? 'unknown'),
    log,
  });
  const table = new GrpcGatewayRouteTable(rpcRoutes(bindings, registry, backends, limits, admission, dialect));
  for (const [never, before] of table.shadowed) {
    const rule = `${never.method} ${never.template.text}`;
    log.warn({ rule, service: never.service, servedBy: before.service }, 'two services have the same rule');
  }
  const health = new HealthAnswers(backends);

  const dispatcher = dispatcherOf(table, health);
  const fail = (error: unknown, request: IncomingMessage, response: ServerResponse) => {
    const problem = problemFrom(error, 'Internal error');
    if (problem !== error) log.error({ err: error }, 'a request failed in a way that it should not');
    answerOrAbort(response, problem, grpcGatewayProblem, trailersOf(problem, request));
  };
  const serve = (request: IncomingMessage, response: ServerResponse & Routed) => {
    response.on('close', () => {
      const status = response.headersSent ? response.statusCode : 499;
      const { route } = response;
      answered.inc(route === undefined ? { ...noRoute, status } : { method: request.method, route, status });
    });
    try {
      const answering = route(dispatcher, request, response);
      if (answering !== undefined) answering.catch((error: unknown) => fail(error, request, response));
    } catch (error) {
      fail(error, request, response);
    }
  };
  const server = await openGatewayServer({
    serve,
    host,
    port,
    settingNames: { host: '--host', port: '--port' },
    timeoutsMs,
    minReadRate: minDownloadRate,
    admission,
    log,
  });
  log.info({ routes: bindings.length, backend }, 'serving');
  return {
    port: server.port,
    retire: () => health.retire(),
    async stop() {
      await server.stop();
      backends.close();
    },
  };
}

/** An answer with the template of its route. */
interface Routed {
  route?: string;
}

function dispatcherOf(table: GrpcGatewayRouteTable<Handler>, health: HealthAnswers): Dispatcher {
  const dispatcher: Dispatcher = {
    find: (method, pathname) => table.find(method, pathname),
    onRoute(response: ServerResponse & Routed, template) {
      response.route = template;
    },
    onUnknownPath(request, response, pathname) {
      if (pathname === '/healthz' && /^(GET|HEAD)$/.test(methodOf(request))) return health.healthz(response);
      throw new Problem(404, 'ROUTE_NOT_FOUND', 'Not Found');
    },
    onWrongMethod(request, response, _match, target) {
      const isGet = request.method === 'POST' && isForm(request) && table.find('GET', target.pathname).kind === 'found';
      if (isGet) return dispatch(dispatcher, 'GET', target, request, response);
      throw new Problem(501, 'METHOD_NOT_ALLOWED', 'Method Not Allowed');
    },
  };
  return dispatcher;
}

/** The method that a request means: a query that is too long for a URL may come as a form. */
function methodOf(request: IncomingMessage): string {
  const override = request.headers['x-http-method-override'];
  const isOverridden = override !== undefined && request.method === 'POST' && isForm(request);
  return isOverridden ? String(override).toUpperCase() : (request.method as string);
}

function route(dispatcher: Dispatcher, request: IncomingMessage, response: ServerResponse): Promise<void> | void {
  const { expect } = request.headers;
  if (expect !== undefined && expect.toLowerCase() !== '100-continue') {
    throw new Problem(417, 'EXPECTATION_FAILED', 'Only Expect: 100-continue is understood', {
      headers: { Connection: 'close' },
    });
  }
  if (!hasTarget(request)) throw malformedTarget();
  return dispatch(dispatcher, methodOf(request), targetOf(request.url as string), request, response);
}

/** What a backend said behind an error, for a client that takes trailers. */
function trailersOf({ cause }: Problem, request: IncomingMessage): OutgoingHttpHeaders | undefined {
  const { trailers } = (cause ?? {}) as { trailers?: IncomingHttpHeaders };
  return trailers === undefined ? undefined : trailersFor(request, trailers);
}

/** The rules of all services. @throws ConfigError that names those that aren't usable, unless they are to be left out */
function readUsable(
  registry: FileRegistry,
  { descriptorSet, skipUnusable = false, apiConfiguration }: StandaloneOptions,
  log: Logger,
): Route<Binding>[] {
  const unusable: RouteError[] = [];
  const onUnusable = (error: RouteError) => unusable.push(error);
  const rules = apiConfiguration === undefined ? undefined : readApiConfiguration(apiConfiguration);
  const methods = new Set([...registry].flatMap((desc) => (desc.kind === 'service' ? desc.methods : [])).map(fullName));
  const unknown = [...(rules?.keys() ?? [])].filter((name) => !methods.has(name));
  if (unknown.length > 0)
    throw new ConfigError(unknown.map((name) => `${apiConfiguration}: there is no method ${name}`));
  const bindings = readRoutes(registry, () => true, grpcGatewayRules, { onUnusable, ...(rules && { rules }) });
  if (unusable.length > 0 && !skipUnusable) {
    const rest = 'With --skip-unusable the other rules are served';
    throw new ConfigError([...unusable.map(({ message }) => `${descriptorSet}: ${message}`), rest]);
  }
  for (const { message } of unusable) log.warn({ rule: message }, 'a rule is left out');
  return bindings;
}

function fullName({ parent, name }: DescMethod): string {
  return `${parent.typeName}.${name}`;
}

function readOptions(): StandaloneOptions & { workers: number } {
  const text = { type: 'string' } as const;
  try {
    const { values } = parseArgs({
      options: {
        'descriptor-set': text,
        backend: text,
        port: text,
        host: text,
        'enum-names': text,
        workers: text,
        concurrency: text,
        'api-configuration': text,
        'skip-unusable': { type: 'boolean' },
        help: { type: 'boolean' },
      },
    });
    if (values.help === true) {
      console.log(usage);
      process.exit(0);
    }
    const {
      'descriptor-set': descriptorSet,
      backend,
      port,
      host = '127.0.0.1',
      'enum-names': enumNames = 'proto',
      workers = String(os.availableParallelism()),
      concurrency: places = String(concurrency),
      'api-configuration': apiConfiguration,
      'skip-unusable': skipUnusable = false,
    } = values;
    if (descriptorSet === undefined || backend === undefined || port === undefined) {
      throw new Error('--descriptor-set, --backend and --port are needed');
    }
    if (!/^\d{1,5}$/.test(port) || Number(port) > 65_535) throw new Error('--port must be a number up to 65535');
    if (enumNames !== 'proto' && enumNames !== 'short') throw new Error('--enum-names must be proto or short');
    if (!/^[1-9]\d{0,2}$/.test(workers)) throw new Error('--workers must be a number from 1 to 999');
    if (!/^\d{1,7}$/.test(places) || Number(places) < 4)
      throw new Error('--concurrency must be a number from 4 to 9999999');
    const numbers = { port: Number(port), workers: Number(workers), concurrency: Number(places) };
    const given = apiConfiguration === undefined ? {} : { apiConfiguration };
    return { descriptorSet, backend, host, enumNames, skipUnusable, ...given, ...numbers };
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${usage}`);
    process.exit(64);
  }
}

if (import.meta.main) {
  const { workers, ...options } = readOptions();
  const hasWorkers = cluster.isPrimary && workers > 1;
  const settings = { ...transportSettings, ...grpcClientSettings };
  const gateway: ProcessDefinition<typeof settings> = {
    name: 'gateway',
    settings,
    start(config, log) {
      if (hasWorkers) return startWorkers(workers, log);
      return startStandalone({ ...options, grpcClient: config.GATEWAY_GRPC_CLIENT }, config, log);
    },
  };
  await runProcess([gateway]);
}
