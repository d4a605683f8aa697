import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Problem } from './problem.ts';
import { sendWhole } from './unread.ts';

/** The id of the request that is being answered: its answer carries it from the start. */
export function requestIdIn(response: ServerResponse): string {
  return String(response.getHeader('X-Request-ID'));
}

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

/** Answers without a body, unless the client has gone. */
export function answerNothing(response: ServerResponse, headers: OutgoingHttpHeaders): void {
  if (!response.headersSent && !response.destroyed) sendWhole(response, 204, headers);
}

/** Answers with an error. */
export function answerProblem(response: ServerResponse, problem: Problem): void {
  answerJson(response, problem.status, problem.body(requestIdIn(response)), problem.headers);
}
