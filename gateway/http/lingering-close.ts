import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';

/**
 * Lingering close: for answers that are sent before the request's body has come. If the connection were closed while the client still
 * sends, TCP would reset it and the client lose the answer. So the rest of the body is read and dropped, within limits.
 */

/** Up to so many bytes are read, so that the connection can be used again: that costs less than a new one. */
const minKeptBytes = 1024 * 1024;
/** What may still come before the connection is closed all the same. */
const maxLingerBytes = 64 * 1024 * 1024;
const maxLingerMs = 5_000;

const continued = new WeakSet<IncomingMessage>();
const isRead = Symbol('isRead');

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

/** Notes that all of the body has been read, although the request may not be marked as complete yet. */
export function bodyIsRead(request: IncomingMessage & { [isRead]?: true }): void {
  request[isRead] = true;
  // So that its end is noticed, too.
  request.resume();
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
  if (!comes || rest > minKeptBytes) response.setHeader('Connection', 'close');
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
function unreadBytes(request: IncomingMessage & { [isRead]?: true }): number {
  if (request.complete || request[isRead] === true) return 0;
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  return encoding === undefined ? Number(length ?? 0) : Infinity;
}

function dropRest(request: IncomingMessage, closes: boolean): void {
  const { socket } = request;
  let bytes = 0;
  const timer = setTimeout(() => socket.destroy(), maxLingerMs);
  const done = () => clearTimeout(timer);
  request.on('data', (piece: Buffer) => {
    bytes += piece.length;
    if (bytes > maxLingerBytes) socket.destroy();
  });
  request.on('end', () => {
    done();
    if (closes) socket.destroySoon();
  });
  request.on('close', done);
  request.resume();
}
