import { constants, type ServerHttp2Session } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { changeHttp2Server } from './http2-server.ts';

/** Milliseconds that a client may take to say that it has heard: one that doesn't has gone. */
const hearLimit = 1_000;
/** In a GOAWAY: all streams are still answered (RFC 9113, 6.8). */
const lastStream = 2 ** 31 - 1;

/**
 * Closes connections so that no call is lost, when they are too old (`grpc.max_connection_age_ms`) and when the server stops: the client is
 * told first that no more streams are wanted, and only once it has heard that is the connection closed to more of them (RFC 9113, 6.8).
 * grpc-js 1.14 closes it in the same moment, and what is on its way then is refused: an upload whose bytes have gone can't be made again.
 */
export function closeWhenHeard(server: Server): void {
  changeHttp2Server(server, (http2Server) => http2Server.on('session', gentle));
}

function gentle(session: ServerHttp2Session): void {
  const close = session.close.bind(session);
  let isTold = false;
  session.close = (done) => {
    if (isTold || session.closed || session.destroyed) return close(done);
    isTold = true;
    if (done !== undefined) session.once('close', done);
    const end = () => {
      clearTimeout(timer);
      if (!session.closed && !session.destroyed) close();
    };
    const timer = setTimeout(end, hearLimit).unref();
    try {
      session.goaway(constants.NGHTTP2_NO_ERROR, lastStream);
      // What the client has sent before it hears comes before its answer.
      if (!session.ping(end)) end();
    } catch {
      end();
    }
  };
}
