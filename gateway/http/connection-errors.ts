import { randomUUID } from 'node:crypto';
import { STATUS_CODES, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from '#lib/log.ts';
import { targetOf } from './request-target.ts';
import { Problem, problemJson, type ProblemForm } from './problem.ts';

/** A connection with the answer that Node is writing on it now, if any. */
type Connection = Duplex & { _httpMessage?: ServerResponse | null };

/**
 * Answers what never becomes a request: bytes that are no HTTP, headers that are too large or too slow, CONNECT. The
 * answers to requests that came before on the same connection go first. Each gets a line in the log.
 *
 * @param formOf the form of problems at a path. Where no path is known, it is application/problem+json.
 */
export function answerConnectionErrors(
  server: Server,
  log: Logger,
  formOf: (pathname: string) => ProblemForm = () => problemJson,
): void {
  const tell = (status: number | undefined, code: string | undefined) =>
    log.info({ status, code }, status === undefined ? 'a connection was cut off' : 'what came was no request');
  server.on('clientError', (error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Connection) => {
    if (error.code === 'ECONNRESET' || !socket.writable) {
      tell(undefined, error.code);
      socket.destroy();
      return;
    }
    const problem = problemOf(error.code);
    tell(problem.status, error.code);
    const url = unfinishedUrl(socket) ?? firstUrl(error.rawPacket);
    const form = url === undefined ? problemJson : formOf(targetOf(url).pathname);
    afterAnswers(socket, () => refuse(socket, problem, form));
  });
  server.on('connect', (_request, socket: Connection) => {
    const problem = new Problem(405, 'METHOD_NOT_ALLOWED', 'This is no proxy', { headers: { Allow: 'GET, OPTIONS' } });
    tell(problem.status, 'CONNECT');
    // Node has detached the socket: nothing else listens for its errors.
    socket.on('error', () => socket.destroy());
    refuse(socket, problem, problemJson);
  });
}

/** The URL of a request of which the head has come, but not the rest. */
function unfinishedUrl({ _httpMessage: answer }: Connection): string | undefined {
  return answer === undefined || answer === null || answer.req.complete ? undefined : answer.req.url;
}

/** The URL in bytes that begin like a request. */
function firstUrl(bytes: Buffer | undefined): string | undefined {
  return /^[A-Z]+ (\S+)/.exec(bytes?.toString('latin1', 0, 1024) ?? '')?.[1];
}

/**
 * Closes a connection that was idle for `idle` milliseconds, unless the client waits for an answer that is still being made. A
 * connection that is kept alive between two requests is closed in the same way.
 */
export function endIdleConnections(server: Server, idle: number): void {
  server.setTimeout(idle, (socket: Connection) => {
    const answer = socket._httpMessage;
    const isWanted = answer !== undefined && answer !== null && !answer.writableEnded && !answer.writableNeedDrain;
    if (!isWanted) socket.destroy();
  });
}

function afterAnswers(socket: Connection, then: () => void): void {
  const answer = socket._httpMessage;
  // A request of which the rest can't be read any more is not waited for: the error is its answer.
  const isWhole = answer?.req.complete ?? false;
  if (answer === undefined || answer === null || answer.destroyed || !isWhole) then();
  // The next answer takes its place only after its 'close'.
  else answer.once('close', () => setImmediate(() => afterAnswers(socket, then)));
}

function problemOf(code: string | undefined): Problem {
  if (code === 'HPE_HEADER_OVERFLOW') return new Problem(431, 'HEADERS_TOO_LARGE', 'The headers are too large');
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new Problem(408, 'REQUEST_TIMEOUT', 'The request took too long to arrive');
  return new Problem(400, 'MALFORMED_REQUEST', 'This is not a valid HTTP request');
}

function refuse(socket: Connection, problem: Problem, form: ProblemForm): void {
  if (!socket.writable || socket._httpMessage?.headersSent === true) {
    socket.destroy();
    return;
  }
  const requestId = randomUUID();
  const body = form.bodyOf(problem, requestId);
  const headers = {
    ...form.headersOf(problem),
    'Content-Length': Buffer.byteLength(body),
    'X-Request-ID': requestId,
    Connection: 'close',
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`);
  socket.end(`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n${lines.join('')}\r\n${body}`);
  // What still arrives would keep the connection open.
  socket.once('finish', () => socket.destroy());
}
