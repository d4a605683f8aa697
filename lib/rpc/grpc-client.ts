import http2, { type ClientHttp2Stream } from 'node:http2';
import {
  Channel,
  Client,
  connectivityState,
  Metadata,
  status,
  type ChannelCredentials,
  type ChannelOptions,
  type StatusObject,
} from '@grpc/grpc-js';
import { deadlineExceeded, isLost, isOfGateway, isUnwanted, type Delivery } from './delivery.ts';
import { observedStreams } from './http2-connect.ts';

const { NGHTTP2_REFUSED_STREAM } = http2.constants;

/**
 * Options of a client that repeats a call once if the server refused it unprocessed, as happens to a call that is made while the server
 * sends GOAWAY: for calls that nothing else repeats. Until the answer begins, up to 128 KiB of the request are kept for that; so much
 * counts as written before it is sent, which delays the backpressure of a stream.
 */
export const onceMoreIfRefused: ChannelOptions = {
  'grpc.enable_retries': 1,
  'grpc.per_rpc_retry_buffer_size': 128 * 1024,
};

/**
 * A client of grpc-js whose errors say how far the call came (`CallError`). It repeats no call by itself, unless the options say so, and
 * so keeps no message for another attempt.
 */
export function openClient(address: string, credentials: ChannelCredentials, options: ChannelOptions): ReportingClient {
  return new ReportingClient(address, credentials, {
    'grpc.enable_retries': 0,
    ...options,
    channelFactoryOverride: (...given) => new ReportingChannel(...given),
  });
}

export class ReportingClient extends Client {
  /**
   * Why it is not connected, as the last attempt to connect failed: nobody listens, or the certificate is for another name. grpc-js 1.14
   * says that only in the errors of calls, so this reads private fields; undefined if it isn't found there.
   */
  whyAway(): string | undefined {
    if (this.getChannel().getConnectivityState(false) !== connectivityState.TRANSIENT_FAILURE) return undefined;
    const { currentPicker } = (this.getChannel() as unknown as WithPicker).internalChannel ?? {};
    const details = currentPicker?.pick?.({ metadata: new Metadata(), extraPickInfo: {} }).status?.details;
    return details && (/Last error: (.*?)(?:\. Resolution note|$)/s.exec(details)?.[1] ?? details);
  }
}

interface WithPicker {
  internalChannel?: { currentPicker?: { pick?(about: object): { status?: { details?: string } | null } } };
}

type Call = ReturnType<Channel['createCall']>;

class ReportingChannel extends Channel {
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
          // grpc-js copies all properties of the status to the error.
          listener.onReceiveStatus({ ...received, ...(isLate ? deadlineExceeded : { delivery }) } as StatusObject);
        },
      });
    };
    return call;
  }
}

/** Private fields of a call of grpc-js 1.14: its attempts, and the HTTP/2 stream of an attempt. */
interface CallInternals {
  child?: { underlyingCalls?: { call?: { child?: { http2Stream?: ClientHttp2Stream } | null } }[] } | null;
}

/**
 * How far a call of grpc-js came. grpc-js doesn't say, so this reads private fields. If they are not there any more, the result is `maybe
 * processed`, after which only calls are repeated that may be.
 */
function deliveryOf(call: Call, code: status): Delivery {
  const { child: retrying } = call as unknown as CallInternals;
  const attempts = retrying?.underlyingCalls;
  const attempt = attempts?.at(-1)?.call;
  if (retrying === null || attempts?.length === 0 || attempt?.child === null) return 'never sent';
  const stream = attempt?.child?.http2Stream;
  const seen = stream === undefined ? undefined : observedStreams.get(stream);
  if (stream === undefined || seen === undefined) return 'maybe processed';
  // grpc-js itself ends a call with this status only if a message of the answer is too large.
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
  // A session that is closing assigns no stream ids.
  if (id === undefined) return 'never sent';
  if (rstCode === NGHTTP2_REFUSED_STREAM || id > seen.session.lastStream) return 'refused unprocessed';
  return isUnwanted(rstCode) ? 'answered' : 'maybe processed';
}
