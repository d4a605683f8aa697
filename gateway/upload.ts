import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { longestTimer } from '#lib/deadline.ts';
import { bytesMessage, handOverKeys, release } from '#lib/rpc/raw-body.ts';
import { callerKey } from '#lib/rpc/status.ts';
import type { RawBody } from './bindings.ts';
import { openPieces, partName, type Pieces, type Sink } from './body-pieces.ts';
import { incomplete, tooSlow } from './body.ts';
import { answerMessage, asIs, Outgoing, type Answer, type CallOptions } from './call.ts';
import { cut } from './cut.ts';
import { fromMetadata, noteCaller } from './headers.ts';
import { handOver, type HandedOver } from './hand-over.ts';
import { Problem } from './problem.ts';
import { askForBody } from './unread.ts';

/** What an upload needs. */
export interface UploadOptions extends CallOptions {
  rawBody: RawBody;
  /** Milliseconds without a byte after which the client isn't waited for any longer. */
  idle: number;
}

/** Bytes that a message carries at most. */
const maxPiece = 1024 * 1024;
/** Milliseconds before its deadline at which an upload that isn't whole is given up. */
const deadlineMargin = 20;

/**
 * Answers a request with what a client-streaming RPC answers that is sent the body, piece by piece, at its own pace.
 *
 * A body that is cut off cancels the call: to the backend it never looks complete. What the backend answers before the
 * end of the body is answered at once. A backend may name a place that takes the body directly; if that can't be reached,
 * the body goes to the backend after all.
 *
 * @throws Problem
 */
export async function answerUpload(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: UploadOptions,
): Promise<void> {
  const outgoing = new Outgoing(request, response, options);
  const body = openPieces(request);
  const message = outgoing.message({ values, query, headers: headersOf(request, body) });
  const answer = outgoing.isWrong ? undefined : await send(request, response, options, outgoing, message, body);
  if (outgoing.isWrong) {
    // The backend has the last word on what is wrong, without the body.
    await send(request, response, options, outgoing, message, undefined);
    throw outgoing.wrong();
  }
  await answerMessage(request, response, options, answer as Answer);
}

/** The headers that may be fields. */
function headersOf({ headers }: IncomingMessage, { isForm }: Pieces): IncomingHttpHeaders {
  if (!isForm) return headers;
  const { 'content-length': _ofTheForm, ...others } = headers;
  return others;
}

/** Streams a message and a body to a backend. @returns its answer; undefined if the body turned out to be wrong */
function send(
  request: IncomingMessage,
  response: ServerResponse,
  { backend, binding, rawBody, idle }: UploadOptions,
  outgoing: Outgoing,
  message: Buffer,
  body: Pieces | undefined,
): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    let metadata: Metadata | undefined;
    let isOpen = true;
    let isWhole = body === undefined;
    // Only a body of which it is known how long it will be can be put elsewhere. It waits to hear where it is to go.
    const size = body === undefined || body.isForm ? 0 : Number(request.headers['content-length'] ?? 0);
    let isPaused = size > 0;
    // A client that waits to be asked for its body has nothing to send before.
    let isAsked = request.headers.expect === undefined;
    let put: HandedOver | undefined;
    let isPut = false;
    if (size > 0) outgoing.sent[handOverKeys.offer] = 'put';

    const upstream = backend.streams.makeClientStreamRequest(
      binding.rpcPath,
      asIs,
      asIs,
      outgoing.metadata,
      { deadline: outgoing.deadline },
      (error: ServiceError | null, bytes?: Buffer) => {
        close(() =>
          error === null
            ? resolve({ message: bytes as Buffer, headers: fromMetadata(metadata), trailers: {} })
            : reject(outgoing.refusal(error)),
        );
      },
    );
    const close = (then: () => void) => {
      if (!isOpen) return;
      isOpen = false;
      clearTimeout(timer);
      clearTimeout(late);
      put?.destroy();
      body?.stop();
      request.off('data', onProgress).off('close', onCut);
      response.off('close', onGone);
      then();
    };
    const abandon = (then: () => void) => {
      close(() => {
        cut(upstream);
        then();
      });
    };
    const fail = (problem: Problem) => abandon(() => reject(problem));

    const onProgress = () => timer.refresh();
    const onGone = () => fail(incomplete());
    const onCut = () => {
      if (!request.readableEnded) fail(incomplete());
    };
    const timer = setTimeout(() => {
      if (isWhole) return;
      // The backend sees to its own pace, nobody to that of another place.
      if (put !== undefined && (isPaused || isPut)) putFailed();
      else if (isAsked && !isPaused) fail(tooSlow());
      else timer.refresh();
    }, idle);
    // By itself grpc-js would cancel it, with an end that looks like that of the body.
    const late = setTimeout(
      () => {
        if (!isWhole) fail(new Problem(504, 'DEADLINE_EXCEEDED', 'The request took longer than it may'));
      },
      Math.min(outgoing.deadline - Date.now() - deadlineMargin, longestTimer),
    );
    const goOn = () => {
      if (!isOpen) return;
      isPaused = false;
      timer.refresh();
      body?.resume();
    };

    upstream.on('metadata', (received: Metadata) => {
      metadata = received;
      if (isWhole || !isOpen) return;
      const [location] = received.get(handOverKeys.location);
      if (typeof location === 'string') putTo(location);
      else if (size > 0) start(streaming());
      askForBody(response);
      isAsked = true;
      timer.refresh();
    });
    upstream.on('status', ({ metadata: trailers }) => noteCaller(response, trailers.get(callerKey)[0]));
    upstream.on('drain', goOn);
    // The callback hears of it, too.
    upstream.on('error', () => {});
    response.on('close', onGone);
    upstream.write(message);
    if (body === undefined) {
      upstream.end();
      return;
    }

    request.on('close', onCut);
    if (size === 0) start(streaming());

    function start(to: Pick<Sink, 'piece' | 'end'>): void {
      isPaused = false;
      body!.start({
        ...to,
        wrong(description) {
          abandon(() => {
            try {
              outgoing.fail(rawBody.bytes.name, partName, description);
              resolve(undefined);
            } catch (error) {
              reject(error as Problem);
            }
          });
        },
        fail,
      });
      request.on('data', onProgress);
    }

    function streaming(): Pick<Sink, 'piece' | 'end'> {
      return {
        piece(bytes) {
          if (!isOpen) return true;
          isAsked = true;
          for (let at = 0; at < bytes.length; at += maxPiece) {
            const message = bytesMessage(rawBody.bytes, bytes.subarray(at, at + maxPiece));
            isPaused = !upstream.write(message, () => release(message));
          }
          release(bytes);
          return !isPaused;
        },
        end() {
          if (!isOpen) return;
          isWhole = true;
          upstream.end();
        },
      };
    }

    function putTo(location: string): void {
      isPaused = true;
      const to = handOver(location, size, {
        onReady() {
          start({
            piece: (bytes) => !(isPaused = isOpen && !to.write(bytes)),
            end() {
              isPut = true;
              timer.refresh();
              to.end();
            },
          });
          timer.refresh();
        },
        onDrain: goOn,
        onTaken() {
          isWhole = true;
          upstream.end();
        },
        onRefused() {
          put = undefined;
          start(streaming());
        },
        onFailed: putFailed,
      });
      put = to;
    }

    /** What was sent there is lost. The backend says what that means. */
    function putFailed(): void {
      if (!isOpen) return;
      put?.destroy();
      body?.stop();
      isWhole = true;
      upstream.write(bytesMessage(rawBody.bytes, new Uint8Array()));
      upstream.end();
    }
  });
}
