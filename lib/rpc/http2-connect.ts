import http2, { type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import { status } from '@grpc/grpc-js';
import { statusIn } from './status.ts';
import { neverEndUnfinished } from './unfinished.ts';

const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_FLAG_END_STREAM, NGHTTP2_INTERNAL_ERROR } = http2.constants;

interface ObservedSession {
  /** The id of the last stream that the server has processed or may process, as its GOAWAY says. */
  lastStream: number;
}

/** What a stream has received so far. */
export interface ObservedStream {
  session: ObservedSession;
  httpStatus?: number;
  /** Whether a gRPC status was received. */
  isAnswered: boolean;
  /** Whether that was RESOURCE_EXHAUSTED. */
  isExhausted: boolean;
}

export const observedStreams = new WeakMap<ClientHttp2Stream, ObservedStream>();

/**
 * This module replaces `http2.connect` of the whole process, because grpc-js has no option to change the sessions of its clients:
 *
 * - What comes on each stream is recorded in `observedStreams`, and a status that gRPC doesn't allow is corrected: grpc-js takes an
 *   empty one for OK.
 * - A session that has received GOAWAY sends no pings: grpc-js goes on with them, Node refuses that, and grpc-js takes the refusal for
 *   the end of the connection and aborts the calls that the server would still finish (github.com/grpc/grpc-node/issues/3068).
 * - After many cancelled calls new ones go to another connection.
 * - A request that is aborted never looks complete (`neverEndUnfinished`).
 */
const { connect } = http2;
http2.connect = ((...given: Parameters<typeof connect>): ClientHttp2Session => {
  const session = connect(...given);
  sendNoPingAfterGoaway(session);
  observe(session);
  replaceAfterResets(session);
  return session;
}) as typeof connect;

type PingDone = (error: null, duration: number, payload: Buffer) => void;

function sendNoPingAfterGoaway(session: ClientHttp2Session): void {
  const ping = session.ping.bind(session) as (done: PingDone) => boolean;
  session.ping = ((done: PingDone) => {
    if (!session.closed) return ping(done);
    process.nextTick(done, null, 0, Buffer.alloc(8));
    return true;
  }) as typeof session.ping;
}

function observe(session: ClientHttp2Session): void {
  let observedSession: ObservedSession | undefined;
  const request = session.request.bind(session);
  session.request = (...given: Parameters<typeof request>): ClientHttp2Stream => {
    const stream = request(...given);
    // Only with the first request, since grpc-js removes all listeners before it.
    observedSession ??= observeGoaway(session);
    const observed: ObservedStream = { session: observedSession, isAnswered: false, isExhausted: false };
    const onEnd = (headers: IncomingHttpHeaders) => {
      observed.isAnswered = headers['grpc-status'] !== undefined;
      if (observed.isAnswered) observed.isExhausted = correctStatus(headers) === status.RESOURCE_EXHAUSTED;
    };
    // These listeners run before those of grpc-js, which get the same headers object.
    stream.on('response', (headers, flags) => {
      observed.httpStatus = headers[':status'] ?? 200;
      if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) onEnd(headers);
    });
    stream.on('trailers', onEnd);
    // If a server ends the stream without a status, grpc-js waits until this side has ended it, too.
    stream.on('end', () => {
      setImmediate(() => {
        if (!observed.isAnswered && !stream.writableEnded) stream.close(NGHTTP2_INTERNAL_ERROR);
      });
    });
    observedStreams.set(stream, observed);
    neverEndUnfinished(stream);
    return stream;
  };
}

/**
 * After this many cancelled calls on one connection, new calls go to another one: servers take many resets for an attack, and end the
 * connection with all calls on it. Node's do so after 1,000 at once, or 33 a second for long; Netty's after 200 in 30 s.
 */
export const maxResets = 100;
/** The last stream id of a GOAWAY after which all open streams are still processed (RFC 9113, 6.8). */
const maxStreamId = 2 ** 31 - 1;

/**
 * After `maxResets` cancelled calls, makes grpc-js believe that the server has sent GOAWAY: new calls go to a new connection, and those
 * in flight end on this one.
 */
function replaceAfterResets(session: ClientHttp2Session): void {
  let resets = 0;
  const request = session.request.bind(session);
  session.request = (...given) => {
    const stream = request(...given);
    const close = stream.close.bind(stream);
    stream.close = (code, callback) => {
      if (code === NGHTTP2_CANCEL && !stream.closed) {
        resets += 1;
        if (resets === maxResets) session.emit('goaway', NGHTTP2_NO_ERROR, maxStreamId, Buffer.alloc(0));
      }
      close(code, callback);
    };
    return stream;
  };
}

function observeGoaway(session: ClientHttp2Session): ObservedSession {
  const observed = { lastStream: Infinity };
  session.on('goaway', (_code, lastStream) => (observed.lastStream = Math.min(observed.lastStream, lastStream)));
  return observed;
}

/** Rewrites the status so that grpc-js understands it: a code that gRPC has, and a message for `decodeURI`. @returns the code */
function correctStatus(headers: IncomingHttpHeaders): status {
  const { code, message } = statusIn(headers);
  headers['grpc-status'] = String(code);
  if (message !== '') headers['grpc-message'] = encodeURI(message);
  return code;
}
