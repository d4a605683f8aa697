import http, { type Agent, type ClientRequest } from 'node:http';
import https from 'node:https';

/** For bodies that are sent: many system calls less than with Node's 16 to 64 KiB. */
export const sendingMark = 1024 * 1024;
/** For bodies that are received: a reader who takes nothing costs no more. */
export const receivingMark = 128 * 1024;
/** Milliseconds after which an unused connection is closed: sooner than stores do, so that none is found closed. */
const keepAlive = 4_000;

/** What speaks a protocol, as URLs name it: `http:` or `https:`. */
export function httpOf(protocol: string): typeof http | typeof https {
  return protocol === 'https:' ? https : http;
}

/**
 * Connections that bulk goes over, and that are used again.
 *
 * @param highWaterMark bytes that one of them holds for whoever doesn't take them, and as many again that are to be sent
 */
export function openAgent(protocol: string, highWaterMark: number): Agent {
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
    // A process that was busy for so long hears only after its timers of what has come meanwhile.
    const timer = setTimeout(() => setImmediate(() => socket.connecting && giveUp()), milliseconds);
    const giveUp = () => {
      onFailed();
      request.destroy(new Error(`no connection within ${milliseconds} ms`));
    };
    socket.once('error', onFailed);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', onFailed);
    });
    socket.once('close', () => clearTimeout(timer));
  });
}
