import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import type { Logger } from '../log.ts';
import { changeHttp2Server } from './http2-server.ts';

/**
 * How many calls a client may reset on one connection before any part of their request has arrived: a burst, and a rate per second. Clients
 * that hedge or lose interest usually send a part of the request first, so theirs don't count; but some leave out what they have not sent
 * yet when they reset a call. Even a few thousand at once do no harm: they cost less than as many calls.
 */
export const emptyResets = { burst: 10_000, perSecond: 500 };

/** The maximum of nghttp2. */
const unlimited = 2 ** 32 - 1;

/** The private fields of grpc-js's server that are changed here. */
interface Inside {
  commonServerOptions: object;
}

/**
 * Lets clients reset any number of calls whose request has begun to arrive. Node by itself ends a connection, with all other calls on it,
 * after a burst of 1,000 resets or more than 33 a second, whatever was reset (`streamResetBurst` and `streamResetRate` of
 * http2.createServer). grpc-js has no option for these and no public access to its HTTP/2 server, so its private fields are changed before
 * it is bound.
 *
 * Instead, this counts calls that were reset before any part of their request had arrived (`emptyResets`): a flood of those makes work for
 * the server at no cost (CVE-2023-44487, "rapid reset"). A connection with too many ends with ENHANCE_YOUR_CALM (RFC 9113, 7), and is
 * logged, as are those that Node ends.
 */
export function boundResets(server: Server, log: Logger): void {
  const inside = server as unknown as Inside;
  Object.assign(inside.commonServerOptions, { streamResetBurst: unlimited, streamResetRate: unlimited });
  changeHttp2Server(server, (http2Server) => http2Server.on('session', (session) => watch(session, log)));
}

function watch(session: ServerHttp2Session, log: Logger): void {
  const { remoteAddress: peer } = session.socket;
  let left = emptyResets.burst;
  let countedAt = performance.now();

  const count = () => {
    const now = performance.now();
    left = Math.min(emptyResets.burst, left + ((now - countedAt) / 1_000) * emptyResets.perSecond) - 1;
    countedAt = now;
    if (left >= 0) return;
    log.warn({ peer }, 'A client reset too many calls before it sent their requests: its connection was ended');
    session.destroy(new Error('Too many resets'), constants.NGHTTP2_ENHANCE_YOUR_CALM);
  };

  session.on('stream', (stream: ServerHttp2Stream) => {
    stream.once('close', () => {
      const isEmpty = !stream.headersSent && !stream.readableDidRead;
      // Streams that are open when a connection ends were not reset.
      if (isEmpty && !session.destroyed) count();
    });
  });
  session.on('error', (error: NodeJS.ErrnoException) => {
    // The mere loss of a socket is not logged.
    if (/^ERR_HTTP2_(ERROR|TOO_MANY)/.test(error.code ?? ''))
      log.warn({ peer, err: error }, 'A connection was ended for what its client sent');
  });
}
