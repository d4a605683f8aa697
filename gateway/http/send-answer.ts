import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { requestIdIn } from './request-details.ts';
import { problemJson, type Problem } from './problem.ts';
import { sendWhole } from './lingering-close.ts';

/** Answers with JSON, unless the client has gone. */
export function answerJson(
  response: ServerResponse,
  status: number,
  json: string,
  headers: OutgoingHttpHeaders = {},
): void {
  if (response.headersSent || response.destroyed) return;
  headers['Content-Type'] ??= 'application/json';
  headers['Content-Length'] = Buffer.byteLength(json);
  sendWhole(response, status, headers, json);
}

/**
 * Answers with a body, unless the client has gone.
 *
 * @param trailers what follows it; undefined for a client that takes no trailers
 */
export function answerBody(
  response: ServerResponse,
  status: number,
  body: string | Uint8Array,
  headers: OutgoingHttpHeaders,
  trailers?: OutgoingHttpHeaders,
): void {
  if (response.headersSent || response.destroyed) return;
  if (trailers === undefined) {
    headers['Content-Length'] = Buffer.byteLength(body);
    sendWhole(response, status, headers, body);
    return;
  }
  const names = Object.keys(trailers);
  response.writeHead(status, names.length === 0 ? headers : { ...headers, Trailer: names.join(', ') });
  response.write(body);
  response.addTrailers(trailers);
  response.end();
}

/** Answers without a body, unless the client has gone. */
export function answerNothing(response: ServerResponse, headers: OutgoingHttpHeaders): void {
  if (!response.headersSent && !response.destroyed) sendWhole(response, 204, headers);
}

/** Answers with an error. @param trailers as for `answerBody` */
export function answerProblem(
  response: ServerResponse,
  problem: Problem,
  form = problemJson,
  trailers?: OutgoingHttpHeaders,
): void {
  const body = form.bodyOf(problem, requestIdIn(response));
  answerBody(response, problem.status, body, form.headersOf(problem), trailers);
}
