import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import type { Logger } from '../log.ts';
import { changeHttp2Server } from './http2-server.ts';

/**
 * How many calls a client may reset on one connection before anything of their requests has come: so many at once, and so many more
 * with each second. Clients that hedge or lose interest send at least a part of what they ask, so that theirs don't count; but some
 * leave out what they haven't sent yet when they reset a call, and then even a few thousand at once do no harm: they cost less than
 * as many calls.
 */
export const emptyResets = { burst: 10_000, perSecond: 500 };

/** nghttp2 takes no higher number. */
const unlimited = 2 ** 32 - 1;

/** Of the inside of grpc-js's server what is changed here. */
interface Inside {
  commonServerOptions: object;
}

/**
 * Lets clients reset as many calls as they like, of those on which a server has something to do. Node by itself ends a connection
 * after 1,000 resets in a row, or more than 33 a second, whatever was reset (`streamResetBurst` and `streamResetRate` of
 * http2.createServer), and with it every other call on it. grpc-js has no option for these, nor a public way to its HTTP/2 server, so
 * its inside is changed before it is bound.
 *
 * In place of that, calls count that were reset before anything of their requests had come (`emptyResets`): a flood of those makes
 * work at no cost (CVE-2023-44487, "rapid reset"). A connection with too many ends with ENHANCE_YOUR_CALM (RFC 9113, 7), and the log
 * says whose it was, as it does where Node ends one.
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
      // What is open when a connection ends was not reset.
      if (isEmpty && !session.destroyed) count();
    });
  });
  session.on('error', (error: NodeJS.ErrnoException) => {
    // What is only the end of a socket needs no line.
    if (/^ERR_HTTP2_(ERROR|TOO_MANY)/.test(error.code ?? ''))
      log.warn({ peer, err: error }, 'A connection was ended for what its client sent');
  });
}
