import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createFileRegistry, fromBinary, type FileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { ConfigError } from '#lib/config.ts';
import type { Logger } from '#lib/log.ts';
import type { RateFloorOptions } from '#lib/rate-floor.ts';
import type { Handler } from './calls/rpc-routes.ts';
import type { Admission } from './http/admission.ts';
import { answerConnectionErrors, endIdleConnections } from './http/connection-errors.ts';
import { closeSlowReaders } from './http/connections.ts';
import { Problem, type ProblemForm } from './http/problem.ts';
import { listen } from './http/request-target.ts';
import { answerProblem } from './http/send-answer.ts';
import type { Match } from './rules/path-template.ts';

/*
 * What the hub's gateway and the one that stands alone have in common: a server of HTTP with its limits, how a request gets to its
 * route, how an error is answered, and how it stops.
 */

export interface GatewayServerOptions {
  serve(request: IncomingMessage, response: ServerResponse): void;
  host: string;
  port: number;
  /** What the settings of host and port are called, for errors. */
  settingNames?: { host: string; port: string };
  timeoutsMs: {
    /** How long a connection may be idle. */
    idle: number;
    /** How long the head of a request may take. */
    headers: number;
    /** How long all of a request may take; 0 is no limit. */
    request: number;
    /** How often Node looks for requests that are too slow. */
    checkEvery?: number;
    /** How long requests that are under way may go on when the server stops. */
    drain: number;
  };
  /** How fast clients have to read their answers. */
  minReadRate: RateFloorOptions;
  admission: Admission;
  log: Logger;
  /** In which form problems are told at a path, where no request came of what was sent. */
  formOf?: (pathname: string) => ProblemForm;
}

export interface GatewayServer {
  port: number;
  /** Takes no new connections, waits for the requests that are under way, and closes what is left. */
  stop(): Promise<void>;
}

/** @throws StartError or ConfigError that says where HTTP can't be served */
export async function openGatewayServer(options: GatewayServerOptions): Promise<GatewayServer> {
  const { serve, host, port, settingNames, timeoutsMs, minReadRate, admission, log, formOf } = options;
  const server = createServer(
    {
      requireHostHeader: false,
      keepAliveTimeout: timeoutsMs.idle,
      headersTimeout: timeoutsMs.headers,
      requestTimeout: timeoutsMs.request,
      ...(timeoutsMs.checkEvery !== undefined && { connectionsCheckingInterval: timeoutsMs.checkEvery }),
    },
    serve,
  );
  // By itself Node would ask for each body at once, whether it will be read or not.
  server.on('checkContinue', serve).on('checkExpectation', serve);
  admission.connections(server);
  const stopChecking = closeSlowReaders(server, minReadRate);
  answerConnectionErrors(server, log, formOf);
  endIdleConnections(server, timeoutsMs.idle);
  await listen(server, { host, port }, settingNames);
  return {
    port: (server.address() as AddressInfo).port,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      const timer = setTimeout(() => server.closeAllConnections(), timeoutsMs.drain);
      await closed;
      clearTimeout(timer);
      stopChecking();
    },
  };
}

/** How requests get to their routes, where gateways differ. */
export interface Dispatcher {
  find(method: string, pathname: string): Match<Handler>;
  /** A request has the route with this template. */
  onRoute(response: ServerResponse, template: string): void;
  onUnknownPath(request: IncomingMessage, response: ServerResponse, pathname: string): Promise<void> | void;
  onWrongMethod(
    request: IncomingMessage,
    response: ServerResponse,
    match: Extract<Match<Handler>, { kind: 'wrong method' }>,
    target: RequestTarget,
  ): Promise<void> | void;
}

export interface RequestTarget {
  pathname: string;
  query: string;
}

/** Answers a request by the route that it has. @throws Problem */
export function dispatch(
  dispatcher: Dispatcher,
  method: string,
  target: RequestTarget,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> | void {
  const match = dispatcher.find(method, target.pathname);
  switch (match.kind) {
    case 'found':
      dispatcher.onRoute(response, match.route.template.text);
      return match.route.target(request, response, match.values, target.query);
    case 'malformed path':
      throw new Problem(400, 'MALFORMED_PATH', 'The path has a wrong percent-encoding');
    case 'unknown path':
      return dispatcher.onUnknownPath(request, response, target.pathname);
    case 'wrong method':
      return dispatcher.onWrongMethod(request, response, match, target);
  }
}

/** What was thrown as a problem: what is none is a mistake of ours, whose text is nobody's business. */
export function problemFrom(error: unknown, detail: string): Problem {
  return error instanceof Problem ? error : new Problem(500, 'INTERNAL', detail, { cause: error });
}

/** Answers with a problem, or closes the connection where an answer has begun. */
export function answerOrAbort(
  response: ServerResponse,
  problem: Problem,
  form: ProblemForm,
  trailers?: OutgoingHttpHeaders,
): void {
  if (response.headersSent) response.destroy();
  else answerProblem(response, problem, form, trailers);
}

/** @throws ConfigError if the file isn't there, or is no descriptor set. @param name how the error calls it */
export function readDescriptors(file: string, name: string): FileRegistry {
  try {
    return createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(file)));
  } catch (error) {
    throw new ConfigError([`${name} must be a descriptor set with all of its imports: ${(error as Error).message}`]);
  }
}
