import http2, { type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import {
  Channel,
  Client,
  connectivityState,
  Metadata,
  status,
  type ChannelCredentials,
  type ChannelOptions,
  type ServiceError,
  type StatusObject,
} from '@grpc/grpc-js';
import { statusIn } from './status.ts';
import { neverEndUnfinished } from './unfinished.ts';

/**
 * How far a call came that failed:
 *
 * - `never sent`: nothing of it left this process.
 * - `refused unprocessed`: HTTP/2 says that the server has not looked at it: REFUSED_STREAM, or a GOAWAY whose last stream is an
 *   earlier one (RFC 9113, 8.7).
 * - `maybe processed`: it was sent, and its stream or its connection ended without a status of gRPC's.
 * - `answered`: the server, or who is in front of it, said what is wrong.
 * - `given up`: this side ended it, by its deadline or a cancellation.
 * - `too large`: this side ended it, since a message of the answer has more bytes than it takes. The status is RESOURCE_EXHAUSTED, as
 *   if the server had run out of something.
 */
export type Delivery = 'never sent' | 'refused unprocessed' | 'maybe processed' | 'answered' | 'given up' | 'too large';

/** A failed call. Each client of ours says how far it came; of another nothing is known. */
export interface CallError extends ServiceError {
  delivery?: Delivery;
}

/** Whether a call was lost: the server didn't say what it ended with. */
export function isLost({ delivery }: Pick<CallError, 'delivery'>): boolean {
  return delivery === 'never sent' || delivery === 'refused unprocessed' || delivery === 'maybe processed';
}

/**
 * What a call came to that was lost once its deadline had passed. A server that ends a call by its deadline resets the stream, and a busy
 * client reads that before its own timer fires. grpc-go and gRPC's core see it in the same way.
 */
export const deadlineExceeded = {
  code: status.DEADLINE_EXCEEDED,
  details: 'Deadline exceeded',
  delivery: 'given up',
} as const;

/** Whether what HTTP alone says, without a status of gRPC's, comes from a proxy that couldn't reach the server, or lost it. */
export function isOfGateway(httpStatus: number): boolean {
  return httpStatus >= 502 && httpStatus <= 504;
}

/** Error codes of HTTP/2 (RFC 9113, 7) with which a server says that it doesn't want such a call. */
export function isUnwanted(resetCode: number): boolean {
  return resetCode === NGHTTP2_ENHANCE_YOUR_CALM || resetCode === NGHTTP2_INADEQUATE_SECURITY;
}

const {
  NGHTTP2_CANCEL,
  NGHTTP2_NO_ERROR,
  NGHTTP2_ENHANCE_YOUR_CALM,
  NGHTTP2_FLAG_END_STREAM,
  NGHTTP2_INADEQUATE_SECURITY,
  NGHTTP2_INTERNAL_ERROR,
  NGHTTP2_REFUSED_STREAM,
} = http2.constants;

/**
 * Options of a client that makes a call once more by itself if the server has refused it unprocessed, as it does with what is made in the
 * moment in which it says that it closes the connection: for calls that nothing else repeats. Until an answer begins up to 128 KiB of
 * what is sent are kept for that. What is kept counts as sent: `write` of a stream asks for so much too early, and no more.
 */
export const onceMoreIfRefused: ChannelOptions = {
  'grpc.enable_retries': 1,
  'grpc.per_rpc_retry_buffer_size': 128 * 1024,
};

/**
 * A client of grpc-js whose errors say how far the call came (`CallError`). It repeats nothing by itself, unless the options say so, and
 * so keeps no message for another attempt.
 */
export function openClient(address: string, credentials: ChannelCredentials, options: ChannelOptions): TellingClient {
  return new TellingClient(address, credentials, {
    'grpc.enable_retries': 0,
    ...options,
    channelFactoryOverride: (...given) => new TellingChannel(...given),
  });
}

/** Tells why it isn't connected, too. */
export class TellingClient extends Client {
  /**
   * What the last try to connect came to: that nobody listens, or that the certificate is for another name. grpc-js 1.14 tells that to
   * calls alone which can't be sent, so this looks inside; undefined where it isn't found there.
   */
  whyAway(): string | undefined {
    if (this.getChannel().getConnectivityState(false) !== connectivityState.TRANSIENT_FAILURE) return undefined;
    const { currentPicker } = (this.getChannel() as unknown as WithPicker).internalChannel ?? {};
    const said = currentPicker?.pick?.({ metadata: new Metadata(), extraPickInfo: {} }).status?.details;
    return said === undefined ? undefined : (/Last error: (.*?)(?:\. Resolution note|$)/s.exec(said)?.[1] ?? said);
  }
}

interface WithPicker {
  internalChannel?: { currentPicker?: { pick?(about: object): { status?: { details?: string } | null } } };
}

type Call = ReturnType<Channel['createCall']>;

class TellingChannel extends Channel {
  override createCall(...given: Parameters<Channel['createCall']>): Call {
    const call = super.createCall(...given);
    const [, deadline] = given;
    const [start, cancelWithStatus] = [call.start.bind(call), call.cancelWithStatus.bind(call)];
    let givenUp: string | undefined;
    call.cancelWithStatus = (code, details) => {
      givenUp ??= details;
      cancelWithStatus(code, details);
    };
    call.start = (metadata, listener) => {
      start(metadata, {
        onReceiveMetadata: (received) => listener.onReceiveMetadata(received),
        onReceiveMessage: (message) => listener.onReceiveMessage(message),
        onReceiveStatus(received) {
          if (received.code === status.OK) {
            listener.onReceiveStatus(received);
            return;
          }
          const delivery = received.details === givenUp ? 'given up' : deliveryOf(call, received.code);
          const isLate = isLost({ delivery }) && Date.now() >= Number(deadline);
          // What is in the status gets into the error.
          listener.onReceiveStatus({ ...received, ...(isLate ? deadlineExceeded : { delivery }) } as StatusObject);
        },
      });
    };
    return call;
  }
}

/** What grpc-js 1.14 has inside a call: its attempts, and the stream that an attempt got. */
interface Inside {
  child?: { underlyingCalls?: { call?: { child?: { http2Stream?: ClientHttp2Stream } | null } }[] } | null;
}

/**
 * How far a call of grpc-js came. That it keeps to itself, so this looks inside; what isn't found there any more is `maybe
 * processed`, with which nothing is repeated that must not be.
 */
function deliveryOf(call: Call, code: status): Delivery {
  const { child: retrying } = call as unknown as Inside;
  const attempts = retrying?.underlyingCalls;
  const attempt = attempts?.at(-1)?.call;
  if (retrying === null || attempts?.length === 0 || attempt?.child === null) return 'never sent';
  const stream = attempt?.child?.http2Stream;
  const seen = stream === undefined ? undefined : observed.get(stream);
  if (stream === undefined || seen === undefined) return 'maybe processed';
  // The only such status that grpc-js makes of an answer by itself.
  if (
    code === status.RESOURCE_EXHAUSTED &&
    seen.httpStatus === 200 &&
    !seen.isExhausted &&
    !isUnwanted(stream.rstCode)
  ) {
    return 'too large';
  }
  if (seen.isAnswered) return 'answered';
  if (seen.httpStatus !== undefined) {
    return seen.httpStatus === 200 || isOfGateway(seen.httpStatus) ? 'maybe processed' : 'answered';
  }
  const { id, rstCode } = stream;
  // A session that is about to end gives no ids any more.
  if (id === undefined) return 'never sent';
  if (rstCode === NGHTTP2_REFUSED_STREAM || id > seen.session.lastStream) return 'refused unprocessed';
  return isUnwanted(rstCode) ? 'answered' : 'maybe processed';
}

/** What came on a session, and on a stream. */
interface SeenOnSession {
  /** The last stream that the server has looked at, or may look at. */
  lastStream: number;
}
interface SeenOnStream {
  session: SeenOnSession;
  httpStatus?: number;
  /** There was a status of gRPC's. */
  isAnswered: boolean;
  /** And it was RESOURCE_EXHAUSTED. */
  isExhausted: boolean;
}

const observed = new WeakMap<ClientHttp2Stream, SeenOnStream>();

/**
 * The sessions of grpc-js's clients are changed as they are made, since it has no option for any of this:
 *
 * - What the server says on a stream is noted, for `deliveryOf`, and a status that gRPC doesn't allow is mended: grpc-js takes an
 *   empty one for OK.
 * - A connection whose server has said that it stops (GOAWAY) is left in peace: grpc-js goes on pinging it, Node refuses to, and
 *   grpc-js takes that for the end of the connection and cuts off what the server still lets finish
 *   (github.com/grpc/grpc-node/issues/3068).
 * - A connection on which many calls were given up is left for another one.
 * - A request that is broken off never looks complete (`neverEndUnfinished`).
 */
const { connect } = http2;
http2.connect = ((...given: Parameters<typeof connect>): ClientHttp2Session => {
  const session = connect(...given);
  leaveInPeace(session);
  observe(session);
  leaveWhenWorn(session);
  return session;
}) as typeof connect;

type PingDone = (error: null, duration: number, payload: Buffer) => void;

function leaveInPeace(session: ClientHttp2Session): void {
  const ping = session.ping.bind(session) as (done: PingDone) => boolean;
  session.ping = ((done: PingDone) => {
    if (!session.closed) return ping(done);
    process.nextTick(done, null, 0, Buffer.alloc(8));
    return true;
  }) as typeof session.ping;
}

function observe(session: ClientHttp2Session): void {
  let seenOnSession: SeenOnSession | undefined;
  const request = session.request.bind(session);
  session.request = (...given: Parameters<typeof request>): ClientHttp2Stream => {
    const stream = request(...given);
    // Before it makes requests grpc-js removes all listeners.
    seenOnSession ??= hear(session);
    const seen: SeenOnStream = { session: seenOnSession, isAnswered: false, isExhausted: false };
    const onEnd = (headers: IncomingHttpHeaders) => {
      seen.isAnswered = headers['grpc-status'] !== undefined;
      if (seen.isAnswered) seen.isExhausted = mend(headers) === status.RESOURCE_EXHAUSTED;
    };
    // These come before those of grpc-js, which hears of the same object.
    stream.on('response', (headers, flags) => {
      seen.httpStatus = headers[':status'] ?? 200;
      if ((flags & NGHTTP2_FLAG_END_STREAM) !== 0) onEnd(headers);
    });
    stream.on('trailers', onEnd);
    // A server that ends without a status leaves grpc-js waiting for as long as this side may still send.
    stream.on('end', () => {
      setImmediate(() => {
        if (!seen.isAnswered && !stream.writableEnded) stream.close(NGHTTP2_INTERNAL_ERROR);
      });
    });
    observed.set(stream, seen);
    neverEndUnfinished(stream);
    return stream;
  };
}

/**
 * After so many calls that were given up on one connection, later calls get another one: servers take many resets for an attack, and end
 * the connection with all that is on it, also with the calls of others. Those of Node do it after 1,000 in a row, or 33 a second for long;
 * Netty's after 200 in 30 s.
 */
export const mostResets = 100;
/** In a GOAWAY: all streams are still answered (RFC 9113, 6.8). */
const lastStream = 2 ** 31 - 1;

/**
 * Counts the calls that were given up (`mostResets`), and then has grpc-js believe that the server has said that it stops: new calls go
 * to a new connection, and those under way end on this one.
 */
function leaveWhenWorn(session: ClientHttp2Session): void {
  let resets = 0;
  const request = session.request.bind(session);
  session.request = (...given) => {
    const stream = request(...given);
    const close = stream.close.bind(stream);
    stream.close = (code, callback) => {
      if (code === NGHTTP2_CANCEL && !stream.closed) {
        resets += 1;
        if (resets === mostResets) session.emit('goaway', NGHTTP2_NO_ERROR, lastStream, Buffer.alloc(0));
      }
      close(code, callback);
    };
    return stream;
  };
}

function hear(session: ClientHttp2Session): SeenOnSession {
  const seen = { lastStream: Infinity };
  session.on('goaway', (_code, lastStream) => (seen.lastStream = Math.min(seen.lastStream, lastStream)));
  return seen;
}

/** Writes a status as grpc-js understands it: a number that gRPC knows, and a text for `decodeURI`. @returns it */
function mend(headers: IncomingHttpHeaders): status {
  const { code, message } = statusIn(headers);
  headers['grpc-status'] = String(code);
  if (message !== '') headers['grpc-message'] = encodeURI(message);
  return code;
}
