import http, { type Agent, type ClientRequest } from 'node:http';
import https from 'node:https';

/** The high-water mark for bodies that are sent: it takes far fewer system calls than Node's 16 to 64 KiB. */
export const sendingMark = 1024 * 1024;
/** The high-water mark for bodies that are received: the most that a reader that pauses keeps in memory. */
export const receivingMark = 128 * 1024;
/** An idle connection is closed after this, before the store does: so a request rarely finds its connection closed. */
const keepAliveMs = 4_000;

/** The module for a URL's protocol, `http:` or `https:`. */
export function httpOf(protocol: string): typeof http | typeof https {
  return protocol === 'https:' ? https : http;
}

/**
 * A keep-alive agent for large bodies.
 *
 * @param highWaterMark how many bytes a connection buffers in each direction
 */
export function openAgent(protocol: string, highWaterMark: number): Agent {
  // The types lack `highWaterMark`, which is passed on to the sockets.
  const options = { keepAlive: true, timeout: keepAliveMs, highWaterMark };
  const { Agent } = httpOf(protocol);
  return new Agent(options);
}

/**
 * Fails a request that is not connected within `milliseconds`.
 *
 * @param onFailed is called if it never gets connected, for whatever reason
 */
export function limitConnecting(request: ClientRequest, milliseconds: number, onFailed: () => void = () => {}): void {
  request.once('socket', (socket) => {
    if (!socket.connecting) return;
    // After a long busy spell, timers run before the events of sockets: `setImmediate` lets those be seen first.
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
