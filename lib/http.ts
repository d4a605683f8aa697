import http, { type Agent, type ClientRequest } from 'node:http';
import https from 'node:https';

/** Bytes on their way in one connection: many system calls less than with Node's 16 to 64 KiB. */
const highWaterMark = 1024 * 1024;
/** Milliseconds after which an unused connection is closed: sooner than stores do, so that none is found closed. */
const keepAlive = 4_000;

/** What speaks a protocol, as URLs name it: `http:` or `https:`. */
export function httpOf(protocol: string): typeof http | typeof https {
  return protocol === 'https:' ? https : http;
}

/** Connections that bulk is sent over, and that are used again. */
export function openAgent(protocol: string): Agent {
  // `highWaterMark` is handed on to the sockets, which the types don't know.
  const options = { keepAlive: true, timeout: keepAlive, highWaterMark };
  const { Agent } = httpOf(protocol);
  return new Agent(options);
}

/**
 * Ends a request with an error if it has no connection within `milliseconds`.
 *
 * @param onFailed is told that there is none, for whatever reason
 */
export function limitConnecting(request: ClientRequest, milliseconds: number, onFailed: () => void = () => {}): void {
  request.once('socket', (socket) => {
    if (!socket.connecting) return;
    const timer = setTimeout(() => {
      onFailed();
      request.destroy(new Error(`no connection within ${milliseconds} ms`));
    }, milliseconds);
    socket.once('error', onFailed);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', onFailed);
    });
    socket.once('close', () => clearTimeout(timer));
  });
}
