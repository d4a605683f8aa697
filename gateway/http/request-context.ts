import type { Socket } from 'node:net';
import type { Request, RequestHandler, Response } from 'express';
import { withContext } from '#lib/context.ts';
import type { Logger } from '#lib/log.ts';
import { beginAtZero, counter, durationHistogram, gauge } from '#lib/metrics.ts';
import { beginWork, requestIdOf } from '#lib/tracing.ts';
import type { Callers } from './callers.ts';
import type { Cors } from './cors.ts';
import { canonicalHeader, valuesOf } from './headers.ts';
import type { RequestDetails } from './request-details.ts';
import { requireHost, targetOf } from './request-target.ts';
import { Problem } from './problem.ts';

/** The answers that are not finished. */
export interface OpenAnswers {
  answers: Set<Response>;
  /** Whether their connections are to be closed behind them. */
  stopping: boolean;
}

export interface RequestContextOptions {
  log: Logger;
  open: OpenAnswers;
  callers: Callers;
  cors: Cors;
  /** Whether a proxy may say that it ended TLS in front of us. */
  isBehindProxy: boolean;
  /** Paths of health checks, which are asked for every second: these requests are logged at debug level. */
  watched: ReadonlySet<string>;
}

/** Bytes of the path and the query together. Node itself refuses more than 16 KiB of head. */
const maxTargetBytes = 8 * 1024;
const maxHeaders = 100;
const maxParameters = 500;

/** Requests that were answered. */
export const answered = counter('http_requests_total', 'HTTP requests, by route and status', [
  'method',
  'route',
  'status',
]);
const answering = durationHistogram(
  'http_request_duration_seconds',
  'From the head of a request to the end of its answer',
  ['route'],
);
const inFlight = gauge('http_requests_in_flight', 'HTTP requests being answered');
/** The labels of requests without a route: clients may invent any path and method. */
export const noRoute = { route: 'none', method: 'any' };

/** The statuses that a request to any route may fail with. */
const commonFailures = [429, 500, 503, 504];

/** Lets the counter of a route's requests begin at 0, so that a monitor sees the first of them. */
export function startCounter({ method, route }: { method: string; route: string }, success: number): void {
  const status = [success, ...commonFailures].map(String);
  if (method !== '*') beginAtZero(answered, { method: [method], route: [route], status });
}

/**
 * Gives each request its id, its context, its line in the log and the headers that every answer has, and refuses what HTTP itself
 * forbids, or what is too much.
 */
export function requestContext({
  log,
  open,
  callers,
  cors,
  isBehindProxy,
  watched,
}: RequestContextOptions): RequestHandler {
  return (request, response, next) => {
    const began = performance.now();
    const { traceparent, 'x-request-id': givenId } = request.headers;
    const requestId = requestIdOf(givenId, traceparent);
    response.setHeader('X-Request-ID', requestId);
    const context = { requestId };
    const traced = beginWork(requestId, request.method, { kind: 'server', traceparent, isFirst: true });
    const within = (work: () => void) =>
      traced === undefined ? withContext(context, work) : traced.run(() => withContext(context, work));
    const { pathname } = targetOf(request.url);
    const caller = callers.of(request);
    (response.locals as RequestDetails).caller = caller;
    open.answers.add(response);
    inFlight.inc();
    response.on('close', () => {
      open.answers.delete(response);
      inFlight.dec();
      const took = performance.now() - began;
      const line = { ...lineOf(request, response), ms: Math.round(took * 10) / 10, bytes: sentOn(request.socket) };
      const { route, method } = line.route === undefined ? noRoute : { route: line.route, method: line.method };
      answered.inc({ method, route, status: line.status });
      answering.observe({ route }, took / 1_000);
      callers.answered(caller, line.status, line.user);
      // Health checks are no news, and refused requests are logged together.
      const level = watched.has(pathname) || (response.locals as RequestDetails).isRefused === true ? 'debug' : 'info';
      within(() => log[level](line, 'http'));
      traced?.end(
        `${request.method} ${route}`,
        {
          'http.request.method': request.method,
          'http.route': route,
          'http.response.status_code': line.status,
        },
        // What a client did wrong is no failure of a server: https://opentelemetry.io/docs/specs/semconv/http/http-spans/
        line.status >= 500 ? String(line.status) : undefined,
      );
    });
    markSafe(response);
    if (isBehindProxy && request.protocol === 'https')
      response.setHeader('Strict-Transport-Security', 'max-age=31536000');
    cors.mark(request, response);
    if (open.stopping) closeAfter(response);
    within(() => {
      check(request);
      next();
    });
  };
}

/** Asks a client whose answer hasn't begun to make another connection for its next request. */
export function closeAfter(answer: Response): void {
  if (!answer.headersSent) answer.setHeader('Connection', 'close');
}

/** Tells a browser that is led here to take the answer for nothing but what it is, and to keep none of it. */
function markSafe(response: Response): void {
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.setHeader('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'");
  response.setHeader('Referrer-Policy', 'no-referrer');
  response.setHeader('Cache-Control', 'no-store');
}

function check(request: Request): void {
  const { headers, httpVersion, method, rawHeaders, url } = request;
  const { expect, 'transfer-encoding': transferEncoding } = headers;
  requireHost(request);
  for (const name of ['authorization', 'x-api-key'] as const) {
    // Another server on the way may read another one of them.
    if (headers[name] !== undefined && valuesOf(name, rawHeaders).length > 1) {
      throw new Problem(400, 'MALFORMED_HEADER', `There must be one header ${canonicalHeader(name)}`);
    }
  }
  if (transferEncoding !== undefined) requireChunks(transferEncoding, httpVersion);
  if (method === 'PUT' && headers['content-range'] !== undefined) {
    // A part must not replace the whole (RFC 9110, 14.5).
    throw new Problem(400, 'MALFORMED_REQUEST', 'A PUT with Content-Range is not taken: nothing here is put in parts');
  }
  // HTTP/1.0 knows of no expectations: there they are ignored (RFC 9110, 10.1.1).
  if (expect !== undefined && httpVersion !== '1.0' && expect.toLowerCase() !== '100-continue') {
    throw new Problem(417, 'EXPECTATION_FAILED', 'Only Expect: 100-continue is understood', {
      headers: { Connection: 'close' },
    });
  }
  // Names and values by turns.
  if (rawHeaders.length > 2 * maxHeaders) {
    throw new Problem(431, 'HEADERS_TOO_LARGE', `There must not be more than ${maxHeaders} headers`);
  }
  if (url.length > maxTargetBytes) {
    throw new Problem(414, 'URI_TOO_LONG', `The path and the query must not have more than ${maxTargetBytes} bytes`);
  }
  // A shorter URL can't have too many.
  if (url.length > maxParameters && url.split('&', maxParameters + 1).length > maxParameters) {
    throw new Problem(400, 'TOO_MANY_PARAMETERS', `There must not be more than ${maxParameters} parameters`);
  }
}

/** What RFC 9112, 6.1 asks of whoever reads a body that only chunks can have. */
function requireChunks(transferEncoding: string, httpVersion: string): void {
  const headers = { Connection: 'close' };
  if (httpVersion === '1.0') {
    throw new Problem(400, 'MALFORMED_REQUEST', 'HTTP/1.0 has no Transfer-Encoding', { headers });
  }
  const codings = transferEncoding.split(',').map((coding) => coding.trim().toLowerCase());
  if (codings.some((coding) => coding !== 'chunked')) {
    throw new Problem(501, 'UNIMPLEMENTED', 'The only Transfer-Encoding that is understood is chunked', { headers });
  }
  if (codings.length > 1) {
    throw new Problem(400, 'MALFORMED_REQUEST', 'The body must be in chunks once', { headers });
  }
}

/** The line in the log: with the template of the route rather than the path, which may hold personal data. */
function lineOf(request: Request, response: Response) {
  const { route, user } = response.locals as RequestDetails;
  return {
    method: request.method,
    route,
    // So that calls to paths that don't exist can be found.
    path: route === undefined ? targetOf(request.url).pathname.slice(0, 200) : undefined,
    status: response.headersSent ? response.statusCode : 499,
    user,
  };
}

const counted = Symbol('bytes of the answers before');

/** The bytes that a connection has carried since the answer before: those of this one with its head, and of what was sent at once with it. */
function sentOn(socket: Socket & { [counted]?: number }): number {
  const before = socket[counted] ?? 0;
  socket[counted] = socket.bytesWritten;
  return socket.bytesWritten - before;
}
