import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/**
 * Answers that go out before the request's body has come in. A connection that is closed with bytes still coming loses the
 * answer, too: the client's system then throws away what it hasn't read yet. So the rest is read and dropped, within limits.
 */

/** A body of so many bytes is rather read to its end than paid for with a new connection. */
const worthKeeping = 1024 * 1024;
/** What may still come before the connection is cut. */
const mostBytes = 64 * 1024 * 1024;
const mostTime = 5_000;

const continued = new WeakSet<IncomingMessage>();

/** Whether a client sends the body only when it is told to. One of HTTP/1.0 never is: it wouldn't understand that (RFC 9110, 10.1.1). */
export function waitsForBody({ headers: { expect }, httpVersion }: IncomingMessage): boolean {
  return expect !== undefined && httpVersion !== '1.0';
}

/** Tells a client that waits for it to send the body. */
export function askForBody(response: ServerResponse): void {
  const { req: request } = response;
  if (!waitsForBody(request) || continued.has(request) || response.headersSent) return;
  continued.add(request);
  response.writeContinue();
}

/** Sends an answer that is complete as it is, and lets the client read it whatever is left of the request's body. */
export function sendWhole(
  response: ServerResponse,
  status: number,
  headers: OutgoingHttpHeaders,
  body?: string | Uint8Array,
): void {
  const { req: request } = response;
  const rest = unreadBytes(request);
  if (rest === 0) {
    response.writeHead(status, headers).end(body);
    return;
  }
  // A client that was not told to go on may send its body or not: only a new connection tells the two apart.
  const comes = !waitsForBody(request) || continued.has(request);
  if (!comes || rest > worthKeeping) response.setHeader('Connection', 'close');
  const closes =
    !response.shouldKeepAlive || headers['Connection'] === 'close' || response.getHeader('Connection') === 'close';
  response.writeHead(status, headers);
  if (closes && response.socket !== null) {
    // Its end would close the connection in both directions, and at once.
    if (body !== undefined) response.write(body);
    response.flushHeaders();
    response.socket.end();
  } else {
    response.end(body);
  }
  dropRest(request, closes);
}

/** How many bytes of the body are still to come, as far as the request says so. */
function unreadBytes(request: IncomingMessage): number {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  if (request.complete) return 0;
  return encoding === undefined ? Number(length ?? 0) : Infinity;
}

function dropRest(request: IncomingMessage, closes: boolean): void {
  const { socket } = request;
  let bytes = 0;
  const timer = setTimeout(() => socket.destroy(), mostTime);
  const done = () => clearTimeout(timer);
  request.on('data', (piece: Buffer) => {
    bytes += piece.length;
    if (bytes > mostBytes) socket.destroy();
  });
  request.on('end', () => {
    done();
    if (closes) socket.destroySoon();
  });
  request.on('close', done);
  request.resume();
}
