import type { ServerResponse } from 'node:http';
import type { ClientWritableStream, Metadata, ServiceError } from '@grpc/grpc-js';
import { callerKey } from '#lib/rpc/status.ts';
import { asIs, type Answer, type CallOptions, type Outgoing } from './call.ts';
import { fromMetadata } from '../grpc/metadata.ts';
import { recordCaller } from '../http/request-details.ts';

/** A call of a client-streaming RPC that is under way. */
export interface ClientStream {
  /** Takes encoded messages. After `cancel` the backend sees a call that was broken off, and never one that came to its end. */
  upstream: ClientWritableStream<Buffer>;
  /** What the backend answers, be it before the last message. Fails with a Problem. */
  answer: Promise<Answer>;
}

/** Opens a call to which messages are sent one by one: the one way in which uploads and streams of messages do. */
export function openClientStream(
  response: ServerResponse,
  { backend, binding }: CallOptions,
  outgoing: Outgoing,
): ClientStream {
  let metadata: Metadata | undefined;
  let trailers: Metadata | undefined;
  const { promise: answer, resolve, reject } = Promise.withResolvers<Answer>();
  // After a cancelled call nobody waits for it.
  answer.catch(() => {});
  const upstream = backend.streams.makeClientStreamRequest(
    binding.rpcPath,
    asIs,
    asIs,
    outgoing.metadata,
    { deadline: outgoing.deadline },
    (error: ServiceError | null, message?: Buffer) => {
      if (error !== null) {
        reject(outgoing.refusal(error));
        return;
      }
      resolve({
        message: message as Buffer,
        headers: fromMetadata(metadata),
        // The status comes right after the answer.
        get trailers() {
          return fromMetadata(trailers);
        },
      });
    },
  );
  upstream.on('metadata', (received: Metadata) => (metadata = received));
  upstream.on('status', (status: { metadata: Metadata }) => {
    trailers = status.metadata;
    recordCaller(response, trailers.get(callerKey)[0]);
  });
  // The callback gets the error, too.
  upstream.on('error', () => {});
  return { upstream, answer };
}
