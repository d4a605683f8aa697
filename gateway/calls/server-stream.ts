import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { Client, Metadata, ServiceError, StatusObject } from '@grpc/grpc-js';
import { callerKey } from '#lib/rpc/status.ts';
import { asIs, type CallOptions, type Outgoing } from './call.ts';
import type { LastingRequest } from '../grpc/http2/request.ts';
import { plain } from '../grpc/metadata.ts';
import type { StreamListener } from '../grpc/stream-exchange.ts';
import { recordCaller } from '../http/request-details.ts';
import { FlowControl } from './flow-control.ts';
import { Problem } from '../http/problem.ts';
import { sendWhole } from '../http/lingering-close.ts';

/** A stream of a backend's messages on its way to a client, at the pace of which it comes. */
export interface Passage {
  /** The metadata of the backend, as headers. */
  headers(): OutgoingHttpHeaders;
  /** Begins the answer. A HEAD is answered by that, and the call is over. */
  begin(status: number, headers: OutgoingHttpHeaders): void;
  /** Writes a part of the answer; nothing once it is over. */
  write(part: string | Uint8Array): void;
  /** Ends the answer as an error, or breaks it off if it has begun and the sink can't say so. */
  fail(problem: Problem): void;
}

/** What becomes of the messages. What it throws is an error on our side. */
export interface Sink {
  /** The backend's metadata is there. */
  begun?(): void;
  message(message: Buffer): void;
  /** There are no more messages; all that is left is written here, save for the end of the answer. */
  end(): Promise<void> | void;
  /** Tells of an error in the middle of the answer. Without it the connection is broken off, so that nothing looks complete. */
  broken?(problem: Problem): void;
  /** It is over, whatever the reason. */
  stop?(): void;
}

/**
 * Calls a server-streaming RPC, and passes its messages on to a sink. When the client goes, the call is cancelled.
 *
 * @throws Problem, before the answer has begun
 */
export function passOn(
  request: IncomingMessage,
  response: ServerResponse,
  { backend, binding, dialect }: CallOptions,
  outgoing: Outgoing,
  message: Buffer,
  sinkOf: (passage: Passage) => Sink,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let isOpen = true;
    let metadata: IncomingHttpHeaders = {};
    /** What was written while messages came that came together. */
    let together: string | undefined;
    const close = (then: () => void) => {
      if (!isOpen) return;
      flush();
      isOpen = false;
      sink.stop?.();
      response.off('close', onGone).off('drain', onDrain);
      then();
    };
    const onGone = () =>
      close(() => {
        upstream.cancel();
        resolve();
      });
    const onDrain = () => upstream.resume();
    response.on('close', onGone).on('drain', onDrain);
    const send = (part: string | Uint8Array) => {
      if (!response.write(part)) upstream.pause();
    };
    const flush = () => {
      if (together !== undefined && together !== '') send(together);
      together = undefined;
    };

    const passage: Passage = {
      headers: () => dialect.headersOf(metadata),
      begin(status, headers) {
        if (!isOpen) return;
        if (request.method === 'HEAD') {
          sendWhole(response, status, headers);
          onGone();
          return;
        }
        response.writeHead(status, headers);
        // What follows may be a long time in coming.
        response.flushHeaders();
      },
      write(part) {
        if (!isOpen || part === '') return;
        if (together !== undefined && typeof part === 'string') {
          together += part;
          return;
        }
        flush();
        send(part);
      },
      fail(problem) {
        if (!isOpen) return;
        flush();
        if (response.headersSent) sink.broken?.(problem);
        close(() => {
          upstream.cancel();
          if (!response.headersSent || sink.broken === undefined) {
            reject(problem);
            return;
          }
          response.end();
          resolve();
        });
      },
    };
    const sink = sinkOf(passage);
    const attempt = (work: () => void) => {
      try {
        if (isOpen) work();
      } catch (cause) {
        passage.fail(broken(cause));
      }
    };

    const listener: StreamListener = {
      begin(headers) {
        metadata = headers;
        attempt(() => sink.begun?.());
      },
      messages(messages) {
        together = messages.length > 1 ? '' : undefined;
        for (const each of messages) attempt(() => sink.message(each));
        flush();
      },
      fail(error) {
        recordCaller(response, error.metadata.get(callerKey)[0]);
        if (isOpen) passage.fail(outgoing.refusal(error));
      },
      end(trailers) {
        recordCaller(response, trailers[callerKey]);
        if (!isOpen) return;
        if (outgoing.isWrong) {
          passage.fail(outgoing.wrong());
          return;
        }
        (async () => sink.end())().then(
          () =>
            close(() => {
              if (!response.writableEnded) response.end();
              resolve();
            }),
          (cause: unknown) => passage.fail(cause instanceof Problem ? cause : broken(cause)),
        );
      },
    };
    const { rpcPath } = binding;
    const { sent, deadline } = outgoing;
    const upstream: LastingRequest =
      backend.messages === undefined
        ? throughGrpcJs(backend.streams, rpcPath, outgoing, message, listener)
        : backend.messages.stream(rpcPath, sent, message, deadline, listener);
  });
}

/** The same through the client of grpc-js, which has messages one by one. */
function throughGrpcJs(
  client: Client,
  path: string,
  { metadata, deadline }: Outgoing,
  message: Buffer,
  listener: StreamListener,
): LastingRequest {
  const flowControl = new FlowControl();
  const interceptors = [flowControl.interceptor];
  const call = client.makeServerStreamRequest(path, asIs, asIs, message, metadata, { deadline, interceptors });
  let trailers: IncomingHttpHeaders = {};
  call.on('metadata', (received: Metadata) => listener.begin(plain(received)));
  call.on('status', ({ metadata: received }: StatusObject) => (trailers = plain(received)));
  call.on('data', (received: Buffer) => listener.messages([received]));
  call.on('error', (error: ServiceError) => listener.fail(error));
  call.on('end', () => listener.end(trailers));
  return {
    cancel: () => call.cancel(),
    pause: () => flowControl.pause(),
    resume: () => flowControl.resume(),
  };
}

function broken(cause: unknown): Problem {
  return new Problem(500, 'INTERNAL', 'Something went wrong on our side', { cause });
}
