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
 * Options of a client that retries a call once if the server refused it unprocessed, as happens when the server sends GOAWAY at that
 * moment: for calls that nothing else retries. Until the answer begins, up to 128 KiB of the request are buffered for that, and count as
 * written before they are sent, which delays backpressure.
 */
export const onceMoreIfRefused: ChannelOptions = {
  'grpc.enable_retries': 1,
  'grpc.per_rpc_retry_buffer_size': 128 * 1024,
};

/**
 * A client of grpc-js whose errors say how far the call came (`CallError`). Unless the options say so it doesn't retry, and so buffers no
 * messages.
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
   * Why the last attempt to connect failed: nobody listens, or the certificate is for another name. grpc-js 1.14 only shows that in errors
   * of calls, so this reads private fields; undefined if they have changed.
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
 * How far a call of grpc-js came. grpc-js has no public access to that, so this reads private fields. If they have changed, the result is
 * `maybe processed`, after which only idempotent calls are retried.
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
