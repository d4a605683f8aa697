import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { RateFloor } from '#lib/rate-floor.ts';
import { callerKey } from '#lib/rpc/status.ts';
import { answerMessage, asIs, Outgoing, type Answer, type CallOptions } from './call.ts';
import { incomplete, tooSlow, type BodyLimits } from '../http/request-body.ts';
import { openClientStream } from './client-stream.ts';
import { fromMetadata } from '../grpc/metadata.ts';
import { recordCaller, requestIdIn } from '../http/request-details.ts';
import { answeredBody, httpBody } from './http-body.ts';
import { JsonValues, ValueTooLong } from '../json/json-values.ts';
import { FlowControl } from './flow-control.ts';
import { Problem } from '../http/problem.ts';
import { readMessage } from './request-message.ts';
import { acceptsEvents } from '../http/media-type.ts';
import { askForBody, sendWhole } from '../http/lingering-close.ts';

/** What a stream of messages over HTTP needs. */
export interface StreamOptions extends CallOptions, BodyLimits {
  /** Milliseconds in which at least one message has to come, or an answer to be sent. A message that has begun has to come as fast as a body. */
  silence: number;
  /** Milliseconds between two comments that keep the connection of a client alive that waits for events. */
  heartbeat: number;
  /** Takes a place for a stream, and waits until its backend is there. @throws Problem */
  enter(request: IncomingMessage, response: ServerResponse): Promise<void>;
}

/**
 * Answers a request with the messages that an RPC streams: each a line `{"result": …}`, an error in the middle as a last line
 * `{"error": …}`. A client that accepts text/event-stream gets the same as events. Messages that are bodies of any type
 * (google.api.HttpBody) are sent as they are.
 *
 * @throws Problem before anything was answered
 */
export async function answerStream(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: StreamOptions,
): Promise<void> {
  const { backend, binding, enter } = options;
  const outgoing = new Outgoing(request, response, options);
  const flowControl = new FlowControl();
  const callOptions = { deadline: outgoing.deadline, interceptors: [flowControl.interceptor] };
  if (binding.method.methodKind === 'bidi_streaming') {
    await enter(request, response);
    if (response.destroyed) return;
    const upstream = backend.streams.makeBidiStreamRequest(binding.rpcPath, asIs, asIs, outgoing.metadata, callOptions);
    const sending = send(request, response, upstream, outgoing, options);
    await receive(request, response, upstream, flowControl, outgoing, options, sending);
    return;
  }
  const message = await readMessage(request, response, values, query, options, outgoing);
  await enter(request, response);
  if (response.destroyed) return;
  const upstream = backend.streams.makeServerStreamRequest(
    binding.rpcPath,
    asIs,
    asIs,
    message,
    outgoing.metadata,
    callOptions,
  );
  await receive(request, response, upstream, flowControl, outgoing, options);
}

/**
 * Answers a request whose body is a stream of JSON values, each a message, with what a client-streaming RPC answers.
 *
 * @throws Problem
 */
export async function answerCollected(
  request: IncomingMessage,
  response: ServerResponse,
  options: StreamOptions,
): Promise<void> {
  const outgoing = new Outgoing(request, response, options);
  await options.enter(request, response);
  if (response.destroyed) return;
  const { upstream, answer } = openClientStream(response, options, outgoing);
  const cancel = () => upstream.cancel();
  response.on('close', cancel);
  const sending = send(request, response, upstream, outgoing, options);
  let answered: Answer;
  try {
    // An error in the messages is the answer, unless the backend answers before.
    answered = await Promise.race([answer, sending.done.then(() => answer)]);
  } catch (error) {
    cancel();
    throw error;
  } finally {
    response.off('close', cancel);
    sending.stop();
  }
  await answerMessage(request, response, options, answered);
}

/** The sending half of a stream of gRPC's. */
interface Upstream {
  write(message: Buffer): boolean;
  end(): void;
  on(event: 'drain', listener: () => void): unknown;
}

interface Sending {
  /** Fails with a Problem if what is sent is wrong, or comes too slowly. */
  done: Promise<void>;
  /** Takes nothing more. */
  stop(): void;
  /** The client was sent a message: it may be silent for another while. */
  answered(): void;
}

/** Sends the messages in the body to the backend, with backpressure. */
function send(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Upstream,
  outgoing: Outgoing,
  { bodyLimit, floor: { rate }, silence, dialect }: StreamOptions,
): Sending {
  const values = new JsonValues(bodyLimit);
  let stop = () => {};
  let answered = () => {};
  const done = new Promise<void>((resolve, reject) => {
    const floor = new RateFloor({ rate, window: silence }, () => end(() => reject(tooSlow())));
    const end = (then: () => void) => {
      floor.stop();
      request.off('data', onData).off('end', onEnd).off('close', onClose);
      then();
    };
    const write = (value: Buffer): boolean => upstream.write(outgoing.next(dialect.bodies.streamedValue(value)));
    const onData = (chunk: Buffer) => {
      floor.count(chunk.length);
      try {
        let isFull = false;
        for (const value of values.push(chunk)) {
          isFull = !write(value) || isFull;
          // Messages may be far apart, but one that has begun has to come.
          floor.count(Infinity);
        }
        if (!isFull) return;
        request.pause();
        floor.pause();
      } catch (error) {
        end(() => reject(error instanceof ValueTooLong ? tooLong(bodyLimit) : (error as Error)));
      }
    };
    const onEnd = () => {
      try {
        const rest = values.rest();
        if (rest !== undefined) write(rest);
      } catch (error) {
        end(() => reject(error as Error));
        return;
      }
      end(resolve);
      upstream.end();
    };
    const onClose = () => end(() => reject(incomplete()));
    upstream.on('drain', () => {
      floor.resume();
      request.resume();
    });
    stop = () => end(resolve);
    answered = () => floor.count(Infinity);
    request.on('data', onData).on('end', onEnd).on('close', onClose);
    askForBody(response);
  });
  done.catch(() => {});
  return { done, stop, answered };
}

function tooLong(limit: number): Problem {
  return new Problem(413, 'PAYLOAD_TOO_LARGE', `A message must not have more than ${limit} bytes`);
}

/** The receiving half of a stream of gRPC's. */
interface Downstream {
  on(event: 'metadata', listener: (received: Metadata) => void): unknown;
  on(event: 'status', listener: (status: { metadata: Metadata }) => void): unknown;
  on(event: 'data', listener: (message: Buffer) => void): unknown;
  on(event: 'error', listener: (error: ServiceError) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  cancel(): void;
}

function receive(
  request: IncomingMessage,
  response: ServerResponse,
  upstream: Downstream,
  flowControl: FlowControl,
  outgoing: Outgoing,
  { binding, dialect, heartbeat }: StreamOptions,
  sending?: Sending,
): Promise<void> {
  const isEvents = acceptsEvents(request.headers.accept) && !isOfBodies(binding);
  const { answers, transcoder } = dialect;
  return new Promise((resolve, reject) => {
    let isOpen = true;
    let metadata: Metadata | undefined;
    let beat: NodeJS.Timeout | undefined;
    const close = (then: () => void) => {
      if (!isOpen) return;
      isOpen = false;
      clearInterval(beat);
      sending?.stop();
      response.off('close', onClose).off('drain', onDrain);
      then();
    };
    const onClose = () =>
      close(() => {
        upstream.cancel();
        resolve();
      });
    const onDrain = () => flowControl.resume();
    response.on('close', onClose).on('drain', onDrain);

    const begin = (contentType?: string) => {
      const headers = dialect.headersOf(fromMetadata(metadata));
      if (contentType !== undefined) headers['Content-Type'] = contentType;
      if (request.method === 'HEAD') {
        sendWhole(response, 200, headers);
        onClose();
        return;
      }
      response.writeHead(200, isEvents ? { ...headers, 'Cache-Control': 'no-store' } : headers);
      // In both directions at once HTTP/1.1 clients only work if the answer begins before their body ends.
      response.flushHeaders();
      if (isEvents) beat = setInterval(() => response.write(':\n\n'), heartbeat);
    };
    const write = (text: string | Uint8Array) => {
      if (!response.write(text)) flowControl.pause();
    };
    const line = (text: string) => (isEvents ? `data: ${text}\n\n` : `${text}\n`);
    const fail = (problem: Problem) => {
      close(() => {
        upstream.cancel();
        if (response.headersSent) {
          // After bodies that were sent as they are, an error would look like one of them.
          const isHidden = isOfBodies(binding) && !answers.tellsErrorsBehindBodies;
          if (isHidden) response.destroy();
          else response.end(line(`{"error":${answers.problemForm.bodyOf(problem, requestIdIn(response))}}`));
          resolve();
        } else {
          reject(problem);
        }
      });
    };
    sending?.done.catch((error: unknown) => fail(error as Problem));

    upstream.on('metadata', (received) => {
      metadata = received;
      if (isEvents && isOpen) begin('text/event-stream');
    });
    upstream.on('status', ({ metadata: trailers }) => recordCaller(response, trailers.get(callerKey)[0]));
    upstream.on('data', (message) => {
      if (!isOpen) return;
      try {
        sending?.answered();
        const body = answeredBody(binding, message);
        if (!response.headersSent) {
          begin(body === undefined ? (isEvents ? 'text/event-stream' : 'application/json') : body.contentType);
        }
        if (!isOpen) return;
        if (body === undefined) write(line(`{"result":${transcoder.response(binding, message)}}`));
        else write(answers.streamedBody(body.data));
      } catch (cause) {
        fail(new Problem(500, 'INTERNAL', 'Something went wrong on our side', { cause }));
      }
    });
    upstream.on('error', (error) => {
      if (isOpen && outgoing.isWrong) fail(outgoing.wrong());
      else fail(outgoing.refusal(error));
    });
    upstream.on('end', () => {
      if (!isOpen) return;
      if (outgoing.isWrong) {
        fail(outgoing.wrong());
        return;
      }
      if (!response.headersSent) begin(answers.emptyStreamType(isEvents ? 'text/event-stream' : 'application/json'));
      close(() => {
        response.end();
        resolve();
      });
    });
  });
}

function isOfBodies({ output, responseBody }: CallOptions['binding']): boolean {
  if (responseBody === undefined) return output.typeName === httpBody;
  return responseBody.value.kind === 'message' && responseBody.value.message.typeName === httpBody;
}
