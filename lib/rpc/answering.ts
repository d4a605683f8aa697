import {
  Metadata,
  type sendUnaryData,
  type ServerReadableStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type StatusObject,
} from '@grpc/grpc-js';
import type { DescField } from '@bufbuild/protobuf';
import type { HubError } from '../errors.ts';
import {
  initialMetadata,
  requestIdKey,
  handleCall,
  type Call,
  type Decoded,
  type Outcome,
  type Rpc,
  type Serving,
  type StreamCall,
} from './call.ts';
import type { Download, UploadBytes } from './methods.ts';
import { handOverKeys, headOnlyKey, receivedBytes, widenWindow, writeBytes } from './raw-body.ts';
import { callerKey, toStatus, wideTrailersKey } from './status.ts';
import { writeMessages } from './writing.ts';

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- grpc-js gives each kind of RPC a signature of its own
export type ServerHandler = (call: any, callback: any) => void;

export type UnaryHandler = (request: object, call: Call) => Promise<object>;
export type UploadHandler = (request: object, call: Call, body: UploadBytes) => Promise<object>;
export type DownloadHandler = (request: object, call: StreamCall) => Promise<Download<object>>;
export type StreamHandler = (request: object, call: StreamCall) => AsyncIterable<object>;

async function respond(
  call: { metadata: Metadata; sendMetadata(metadata: Metadata): void },
  callback: sendUnaryData<object>,
  ending: Promise<Outcome>,
): Promise<void> {
  const outcome = await ending;
  if ('failure' in outcome) {
    callback({ ...statusOf(outcome.failure, outcome, call.metadata) });
  } else {
    call.sendMetadata(initialMetadata(outcome.requestId));
    callback(null, outcome.answer, trailersOf(outcome));
  }
}

/**
 * The request id is also sent with the status: an error before the answer has begun is a trailers-only response, without initial metadata.
 * So a gateway knows that an answer with initial metadata is not an immediate error.
 */
function statusOf(failure: HubError, { userId, requestId }: Outcome, asked: Metadata): Partial<StatusObject> {
  const status = toStatus(failure, asked.get(wideTrailersKey).length > 0);
  status.metadata?.set(requestIdKey, requestId);
  if (userId !== undefined) status.metadata?.set(callerKey, userId);
  return status;
}

function trailersOf({ userId, requestId }: Outcome, { withId = false } = {}): Metadata | undefined {
  if (userId === undefined && !withId) return undefined;
  const trailers = new Metadata();
  if (userId !== undefined) trailers.set(callerKey, userId);
  if (withId) trailers.set(requestIdKey, requestId);
  return trailers;
}

/** Serves an RPC of one request and one answer. */
export function unary(rpc: Rpc, handler: UnaryHandler, serving: Serving): ServerHandler {
  return (call: ServerUnaryCall<Decoded, object>, callback: sendUnaryData<object>) => {
    const answer = (request: object, about: Call) => handler(request, about);
    const ending = handleCall(rpc, serving, call, { there: call.request }, answer).then((outcome) => {
      // Also before an error: for a unary RPC no gateway has to tell the two apart.
      call.sendMetadata(initialMetadata(outcome.requestId));
      return outcome;
    });
    void respond(call, callback, ending);
  };
}

/** Serves an RPC whose request is followed by bytes. */
export function upload(rpc: Rpc, body: DescField, handler: UploadHandler, serving: Serving): ServerHandler {
  return (call: ServerReadableStream<Decoded, object>, callback: sendUnaryData<object>) => {
    widenWindow(call);
    // Errors of the stream are seen by its reader.
    call.on('error', () => {});
    const messages = call.iterator({ destroyOnReturn: false });
    let first: Decoded | undefined;
    const coming = async (): Promise<Decoded | undefined> => (first = (await messages.next()).value);
    const answer = (asked: object, about: Call) => {
      // Only our own gateways may learn of internal addresses.
      const canHandOver = about.origin !== undefined && call.metadata.get(handOverKeys.offer).length > 0;
      return handler(
        asked,
        about,
        receivedBytes(call, body, {
          messages,
          first,
          canHandOver,
          rate: serving.clientLimits.sending,
          initial: initialMetadata(about.requestId),
        }),
      );
    };
    void respond(call, callback, handleCall(rpc, serving, call, { coming }, answer));
  };
}

/** Serves an RPC whose answer is followed by bytes. */
export function download(rpc: Rpc, body: DescField, handler: DownloadHandler, serving: Serving): ServerHandler {
  return (call: ServerWritableStream<Decoded, object>) => {
    const answer = async (request: object, about: Omit<StreamCall, 'begin'>) => {
      const initial = initialMetadata(about.requestId);
      const begin = () => call.sendMetadata(initial);
      const { head, body: bytes, place } = await handler(request, { ...about, begin });
      if (call.metadata.get(headOnlyKey).length > 0) {
        begin();
        call.write(head);
        return {};
      }
      // Only our own gateways may learn of internal addresses.
      const canFetch = about.origin !== undefined && call.metadata.get(handOverKeys.offer)[0] === 'get';
      const url = canFetch ? await place?.() : undefined;
      if (url !== undefined) {
        initial.set(handOverKeys.location, url);
        begin();
        call.write(head);
        return {};
      }
      await writeBytes(call, head, bytes, body, { begin, signal: about.signal, minRate: serving.clientLimits.reading });
      return {};
    };
    void handleCall(rpc, serving, call, { there: call.request }, answer).then((outcome) => endStream(call, outcome));
  };
}

/** Serves an RPC that answers with messages, one by one. */
export function stream(
  rpc: Rpc,
  serialize: (message: object) => Buffer,
  handler: StreamHandler,
  serving: Serving,
): ServerHandler {
  return (call: ServerWritableStream<Decoded, Buffer>) => {
    const answer = async (request: object, about: Omit<StreamCall, 'begin'>) => {
      const begin = () => call.sendMetadata(initialMetadata(about.requestId));
      const messages = handler(request, { ...about, begin });
      await writeMessages(call, messages, serialize, {
        begin,
        signal: about.signal,
        minRate: serving.clientLimits.reading,
      });
      return {};
    };
    void handleCall(rpc, serving, call, { there: call.request }, answer).then((outcome) => endStream(call, outcome));
  };
}

function endStream(call: ServerWritableStream<Decoded, unknown>, outcome: Outcome): void {
  // grpc-js takes the status of a stream from its error event.
  if ('failure' in outcome) call.emit('error', statusOf(outcome.failure, outcome, call.metadata));
  // A stream without messages sends no initial metadata, so that a gateway knows that it is empty: the request id is sent in the trailers.
  else call.end(trailersOf(outcome, { withId: true }));
}
