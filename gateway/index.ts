import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import path from 'node:path';
import type { FileRegistry } from '@bufbuild/protobuf';
import express, { type ErrorRequestHandler, type RequestHandler, type Response } from 'express';
import { ConfigError, duration, integer, list, port, text, type Config } from '#lib/config.ts';
import type { Running } from '#lib/lifecycle.ts';
import type { Logger } from '#lib/log.ts';
import { minBodyRate, minDownloadRate } from '#lib/rate-floor.ts';
import { isAddress } from '#lib/rpc/reach.ts';
import { openTransport, staysHere, transportSettings } from '#lib/rpc/transport.ts';
import { Admission } from './http/admission.ts';
import { answerNothing } from './http/send-answer.ts';
import { Backends, grpcClientSettings, type BackendAddress } from './grpc/backends.ts';
import { requestContext, startCounter, closeAfter, noRoute, type OpenAnswers } from './http/request-context.ts';
import { envelopedPaths } from './rules/answer-styles.ts';
import { readRoutes } from './rules/bindings.ts';
import { Callers } from './http/callers.ts';
import { ConsoleFiles } from './console-files.ts';
import { corsOf, type Cors } from './http/cors.ts';
import { hubRules } from './dialects/hub/rules.ts';
import { hubDialect } from './dialects/hub/dialect.ts';
import { Docs } from './openapi/pages.ts';
import type { RequestDetails } from './http/request-details.ts';
import { HealthAnswers } from './health.ts';
import { hasTarget, hostIn, malformedTarget, targetOf } from './http/request-target.ts';
import { documentOf, ownRoutes, routedPath, watchedPaths } from './own-routes.ts';
import { Problem } from './http/problem.ts';
import { ProblemForms } from './calls/problem-forms.ts';
import { rateLimit } from './http/rate-limit.ts';
import { RouteTable } from './dialects/hub/route-table.ts';
import { maxUploadMs, rpcRoutes, type Handler, type Limits } from './calls/rpc-routes.ts';
import { answerOrAbort, dispatch, openGatewayServer, problemFrom, readDescriptors, type Dispatcher } from './server.ts';

const root = path.join(import.meta.dirname, '..');

/** Settings of the gateway. */
export const settings = {
  ...transportSettings,
  HOST: text().default('127.0.0.1').describe('address to serve HTTP on'),
  PORT: port().default(8000).describe('port to serve HTTP on; 0 takes a free one'),
  BACKENDS: list()
    .refine(
      (entries) => entries.every((entry) => /^[\w.]+=\S+$/.test(entry)),
      'must be <package or service>=<host:port>, …',
    )
    .transform((entries) =>
      entries.map((entry) => {
        const equals = entry.indexOf('=');
        return { prefix: entry.slice(0, equals), address: entry.slice(equals + 1) };
      }),
    )
    .refine(
      (entries) => entries.every(({ address }) => isAddress(address)),
      'must have the address of each server as host:port, or as a gRPC target with a port (dns:///orders:50051)',
    )
    .refine((entries) => {
      const several = [...Map.groupBy(entries, ({ prefix }) => prefix).values()].filter(({ length }) => length > 1);
      return several.every((same) => isAddress(same.map(({ address }) => address).join(',')));
    }, 'must name each package or service once, or with the IP address of each of its servers')
    .describe(
      'gRPC servers: <package or full service name>=<host:port>, with commas; the longest name that fits wins. A name ' +
        'may come several times, with the IP addresses of servers that share its calls',
    ),
  DESCRIPTOR_SET: text()
    .default('gen/descriptors.binpb')
    .transform((file) => path.resolve(root, file))
    .describe('descriptor set of the services, from the project folder'),
  REQUEST_TIMEOUT: duration({ max: 3_600_000 }).default(10_000).describe('how long a call may take'),
  BODY_LIMIT: integer({ min: 1, max: 1024 ** 3 })
    .default(1024 ** 2)
    .describe('bytes that a JSON body may have'),
  RATE_LIMIT: integer({ min: 0, max: 1_000_000_000 })
    .default(2_000)
    .describe(
      'requests per second of one user, or of an address as far as nobody is known there, before 429; 0 is no limit',
    ),
  TRUST_PROXY: text()
    .default('false')
    .transform((value) => (/^\d+$/.test(value) ? Number(value) : value === 'true' || (value !== 'false' && value)))
    .describe("which proxies' X-Forwarded-For is believed: false, true, a number of hops, or addresses (Express)"),
  CORS_ORIGINS: list()
    .refine((origins) => origins.every((origin) => origin === '*' || isOrigin(origin)), 'must be origins, or *')
    .optional()
    .describe('origins of web pages that may call (https://app.example), with commas; * is all; not set, none may'),
  HTTP_CONCURRENCY: integer({ min: 4, max: 1_000_000 })
    .default(1_000)
    .describe(
      'how many requests may be under way at once, and half as many uploads and downloads beside them; more get 503. One user ' +
        'or address gets half of each at most, and 429',
    ),
  ...grpcClientSettings,
  HTTP_DRAIN: duration({ max: 300_000 })
    .default(5_000)
    .describe('how long running requests may go on when the process stops'),
};

const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };

/** Milliseconds. */
const defaultTimeouts = {
  /**
   * In which a client has to send the least of a body (`minBodyRate`), or to read the least of an answer (`minDownloadRate`). A store behind
   * the backend has limits of its own: MinIO gives a part up after 30 s of silence, and says that it is too busy.
   */
  uploadIdle: minBodyRate.window,
  downloadIdle: minDownloadRate.window,
  /** In which the headers of a request have to come. */
  headers: 15_000,
  /**
   * For which a client may read nothing of an answer that is ready, or send no request: longer than load balancers keep a connection
   * that they reuse.
   */
  idle: 65_000,
  /** Between two searches for requests that are too slow. */
  checkEvery: 1_000,
  /**
   * After how long a silence a client that waits for events is sent a sign of life: proxies give up after a minute, some after half of one.
   * Longer than the events service is ever silent, which has heartbeats of its own.
   */
  heartbeat: 20_000,
};

/** Serves HTTP in front of gRPC servers, by the rules in their descriptors. */
export async function start(
  config: Config<typeof settings>,
  log: Logger,
  timeouts: Partial<typeof defaultTimeouts> = {},
): Promise<Running> {
  const { uploadIdle, downloadIdle, heartbeat, ...timeoutsMs } = { ...defaultTimeouts, ...timeouts };
  const registry = readDescriptors(config.DESCRIPTOR_SET, 'DESCRIPTOR_SET');
  checkBackends(config.BACKENDS, registry);
  const transport = openTransport(config);
  const backends = new Backends(config.BACKENDS, transport, { client: config.GATEWAY_GRPC_CLIENT });
  const plain = transport.encrypted ? [] : config.BACKENDS.filter(({ address }) => !staysHere(address));
  if (plain.length > 0) {
    const addresses = [...new Set(plain.map(({ address }) => address))];
    log.warn({ addresses }, 'calls go there as plain text: set GRPC_TLS_CERT, or use a network that encrypts');
  }
  const unserved = readRoutes(registry, (service) => backends.of(service) === undefined, hubRules);
  if (unserved.length > 0) {
    const services = [...new Set(unserved.map(({ target }) => target.method.parent.typeName))];
    log.warn({ services }, 'services with HTTP rules have no backend: their paths are not served');
  }
  const bindings = readRoutes(registry, (service) => backends.of(service) !== undefined, hubRules);
  const limits: Limits = {
    timeout: config.REQUEST_TIMEOUT,
    bodyLimit: config.BODY_LIMIT,
    bodyTimeout: config.REQUEST_TIMEOUT,
    floor: { ...minBodyRate, window: uploadIdle },
    silence: uploadIdle,
    downloadIdle,
    heartbeat,
  };
  const admission = new Admission({
    places: config.HTTP_CONCURRENCY,
    bodyLimit: config.BODY_LIMIT,
    clientOf: (_request, response) => detailsOf(response).caller!.client,
    log,
  });
  const health = new HealthAnswers(backends, version);
  const docs = new Docs(documentOf(bindings, registry));
  const consoleFiles = new ConsoleFiles(path.join(root, 'console/dist'));
  const routes = rpcRoutes(bindings, registry, backends, limits, admission, hubDialect(registry));
  for (const { method, template, target } of bindings) {
    startCounter({ method, route: template.text }, target.successStatus);
  }
  startCounter(noRoute, 404);
  const prefixes = envelopedPaths(bindings);
  const table = new RouteTable([...routes, ...ownRoutes({ health, docs, consoleFiles }, prefixes)]);
  const forms = new ProblemForms(bindings);
  const cors = corsOf(config.CORS_ORIGINS ?? []);
  const open: OpenAnswers = { answers: new Set(), stopping: false };

  const app = express();
  app.disable('x-powered-by').disable('etag');
  try {
    app.set('trust proxy', config.TRUST_PROXY);
  } catch (error) {
    throw new ConfigError([
      `TRUST_PROXY must be false, true, a number of hops, or addresses and networks: ${(error as Error).message}`,
    ]);
  }
  const isBehindProxy = config.TRUST_PROXY !== false;
  app.use(
    requestContext({ log, open, callers: new Callers(), cors, isBehindProxy, watched: watchedPaths(prefixes) }),
    rateLimit(config.RATE_LIMIT),
    route(table, cors),
    answerErrors(admission, forms, log),
  );

  const serve = (request: IncomingMessage, response: ServerResponse) => {
    const url = request.url ?? '';
    // Express takes a target apart in ways of its own, save for a path.
    if (!hasTarget(request)) {
      malformed.add(request);
      const { pathname } = targetOf(url);
      request.url = pathname.startsWith('/') ? pathname : `/${url}`;
    } else if (!url.startsWith('/') && url !== '*') {
      const { pathname, query } = targetOf(url);
      request.url = query === '' ? pathname : `${pathname}?${query}`;
      // Whatever the Host header says (RFC 9112, 3.2.2).
      request.headers.host = hostIn(url);
    }
    app(request, response);
  };

  const server = await openGatewayServer({
    serve,
    host: config.HOST,
    port: config.PORT,
    timeoutsMs: {
      ...timeoutsMs,
      // Each kind of body has a limit of its own, which answers better than Node's: that comes last.
      request: timeoutsMs.headers + maxUploadMs(bindings, limits),
      drain: config.HTTP_DRAIN,
    },
    minReadRate: { ...minDownloadRate, window: downloadIdle },
    admission,
    log,
    formOf: (pathname) => forms.of(pathname),
  });

  // Clients are asked to make new connections, which then lead elsewhere.
  const retire = () => {
    health.retire();
    open.stopping = true;
    for (const answer of open.answers) closeAfter(answer);
  };
  return {
    port: server.port,
    health: () => health.parts(),
    retire,
    async stop() {
      retire();
      await server.stop();
      backends.close();
    },
  };
}

/** Whether a text is an origin as browsers send it (RFC 6454). */
function isOrigin(text: string): boolean {
  return /^https?:\/\/[\w.:[\]-]+$/.test(text) && URL.parse(text)?.origin === text;
}

function checkBackends(addresses: readonly BackendAddress[], registry: FileRegistry): void {
  const services = [...registry].filter((type) => type.kind === 'service').map((service) => service.typeName);
  const unknown = addresses
    .map(({ prefix }) => prefix)
    .filter((prefix) => !services.some((name) => name === prefix || name.startsWith(`${prefix}.`)));
  if (unknown.length > 0)
    throw new ConfigError([`BACKENDS names what DESCRIPTOR_SET doesn't have: ${unknown.join(', ')}`]);
}

/** Requests with a target that HTTP doesn't allow. */
const malformed = new WeakSet<IncomingMessage>();

/** Express's response has the details of its request. */
function detailsOf(response: ServerResponse): RequestDetails {
  return (response as Response<unknown, RequestDetails>).locals;
}

function route(table: RouteTable<Handler>, cors: Cors): RequestHandler {
  const dispatcher: Dispatcher = {
    find: (method, pathname) => table.find(method, routedPath(pathname)),
    onRoute(response, template) {
      detailsOf(response).route = template;
    },
    onUnknownPath() {
      throw new Problem(404, 'ROUTE_NOT_FOUND', 'There is nothing at this path');
    },
    onWrongMethod(request, response, { allow, template }) {
      detailsOf(response).route = template.text;
      const headers = { Allow: allow.join(', ') };
      if (request.method === 'OPTIONS') {
        return answerNothing(response, { ...headers, ...cors.preflight(request, allow) });
      }
      throw new Problem(405, 'METHOD_NOT_ALLOWED', `This path takes ${headers.Allow}`, { headers });
    },
  };
  return (request, response) => {
    if (malformed.has(request)) throw malformedTarget();
    const target = targetOf(request.url);
    // Of the server as a whole (RFC 9110, 9.3.7).
    if (target.pathname === '*' && request.method === 'OPTIONS') return answerNothing(response, {});
    return dispatch(dispatcher, request.method, target, request, response);
  };
}

function answerErrors(admission: Admission, forms: ProblemForms, log: Logger): ErrorRequestHandler {
  // Express knows an error handler by its four parameters.
  return (error: unknown, request, response, _next) => {
    const problem = problemFrom(error, 'Something went wrong on our side');
    // Admission itself logs all of those together.
    if (admission.isRefusal(problem)) detailsOf(response).isRefused = true;
    else if (problem.status === 500) log.error({ err: problem.cause }, 'a request failed in a way that it should not');
    else if (problem.status > 500) log.warn({ code: problem.code, cause: causeOf(problem) }, problem.message);
    answerOrAbort(response, problem, forms.of(targetOf(request.url).pathname));
  };
}

/** What gRPC itself says of a failure. */
function causeOf({ cause }: Problem): string | undefined {
  return cause instanceof Error ? cause.message : undefined;
}
