import { constants, type ServerHttp2Session } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { changeHttp2Server } from './http2-server.ts';

/** How long a client may take to acknowledge a ping: one that doesn't has gone. */
const pingLimitMs = 1_000;
/** The last stream id of a GOAWAY after which all open streams are still processed (RFC 9113, 6.8). */
const maxStreamId = 2 ** 31 - 1;

/**
 * Closes connections so that no call is lost, when they are too old (`grpc.max_connection_age_ms`) and when the server stops: sends GOAWAY
 * and a ping, and refuses new streams only once the client has acknowledged the ping (RFC 9113, 6.8). grpc-js 1.14 refuses them at once,
 * also those that are in flight: an upload whose bytes have been sent can't be retried.
 */
export function closeGracefully(server: Server): void {
  changeHttp2Server(server, (http2Server) => http2Server.on('session', makeGraceful));
}

function makeGraceful(session: ServerHttp2Session): void {
  const close = session.close.bind(session);
  let isGoawaySent = false;
  session.close = (done) => {
    if (isGoawaySent || session.closed || session.destroyed) return close(done);
    isGoawaySent = true;
    if (done !== undefined) session.once('close', done);
    const end = () => {
      clearTimeout(timer);
      if (!session.closed && !session.destroyed) close();
    };
    const timer = setTimeout(end, pingLimitMs).unref();
    try {
      session.goaway(constants.NGHTTP2_NO_ERROR, maxStreamId);
      // Streams that the client opened before the GOAWAY arrived come before its acknowledgement.
      if (!session.ping(end)) end();
    } catch {
      end();
    }
  };
}
