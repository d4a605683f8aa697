import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import type { Metadata } from '@grpc/grpc-js';
import { parseDigest } from '#lib/digest.ts';
import type { HubError } from '#lib/errors.ts';
import { RateFloor, type RateFloorOptions } from '#lib/rate-floor.ts';
import { bytesMessage, handOverKeys, release } from '#lib/rpc/raw-body.ts';
import type { RawBody } from '../rules/stream-bindings.ts';
import { openPieces, partName, type Pieces, type Sink } from './body-pieces.ts';
import { incomplete, tooSlow } from '../http/request-body.ts';
import { answerMessage, Outgoing, type Answer, type CallOptions } from './call.ts';
import { openClientStream } from './client-stream.ts';
import { openDirectUpload, type DirectUpload } from './direct-upload.ts';
import type { Problem } from '../http/problem.ts';
import { askForBody, waitsForBody } from '../http/lingering-close.ts';

/** What an upload needs. */
export interface UploadOptions extends CallOptions {
  rawBody: RawBody;
  /** How fast the body has to come, and for how many milliseconds another place that takes it may take nothing. */
  floor: RateFloorOptions;
}

/** Bytes that a message carries at most. */
const maxPiece = 1024 * 1024;

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
  expectDigest(request, body, options, outgoing);
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
  const { 'content-length': _length, 'content-digest': _digest, ...others } = headers;
  return others;
}

/** Of a form the digest is that of all of it (RFC 9530, 2), of which the backend knows nothing. */
function expectDigest(
  { headers }: IncomingMessage,
  body: Pieces,
  { binding }: UploadOptions,
  outgoing: Outgoing,
): void {
  const given = headers[digestHeader];
  if (body.expect === undefined || given === undefined) return;
  try {
    const digest = parseDigest(String(given));
    if (digest !== undefined) body.expect(digest);
  } catch (error) {
    const field = binding.requestHeaders.find(({ header }) => header === digestHeader)?.field.name ?? digestHeader;
    for (const { description } of (error as HubError).fields) outgoing.fail(field, digestHeader, description);
  }
}

const digestHeader = 'content-digest';

/** Streams a message and a body to a backend. @returns its answer; undefined if the body turned out to be wrong */
function send(
  request: IncomingMessage,
  response: ServerResponse,
  options: UploadOptions,
  outgoing: Outgoing,
  message: Buffer,
  body: Pieces | undefined,
): Promise<Answer | undefined> {
  const { rawBody } = options;
  return new Promise((resolve, reject) => {
    let isOpen = true;
    let isWhole = body === undefined;
    // Only a body of known length can be uploaded directly. It waits until the backend says where it is to go.
    const size = body === undefined || body.isForm ? 0 : Number(request.headers['content-length'] ?? 0);
    let isPaused = size > 0;
    // A client that expects 100 Continue sends nothing before.
    let isAsked = !waitsForBody(request);
    let put: DirectUpload | undefined;
    let isPut = false;
    if (size > 0) outgoing.sent[handOverKeys.offer] = 'put';

    const { upstream, answer } = openClientStream(response, options, outgoing);
    const close = (then: () => void) => {
      if (!isOpen) return;
      isOpen = false;
      floor.stop();
      clearTimeout(timer);
      put?.destroy();
      body?.stop();
      request.off('data', onProgress).off('close', onCut);
      response.off('close', onGone);
      then();
    };
    const abandon = (then: () => void) => {
      close(() => {
        upstream.cancel();
        then();
      });
    };
    const fail = (problem: Problem) => abandon(() => reject(problem));
    answer.then(
      (answered) => close(() => resolve(answered)),
      (error: Problem) => close(() => reject(error)),
    );

    const floor = new RateFloor(options.floor, () => fail(tooSlow()));
    /** The rate floor applies only while the client may send, and has something left to send. */
    const watch = () => {
      if (isAsked && !isPaused && !isWhole && !isPut) floor.resume();
      else floor.pause();
    };
    watch();
    const onProgress = (bytes: Buffer) => {
      floor.count(bytes.length);
      timer?.refresh();
    };
    const onGone = () => fail(incomplete());
    const onCut = () => {
      if (!request.readableEnded) fail(incomplete());
    };
    /** Runs during a direct upload, whose rate nobody else watches. */
    let timer: NodeJS.Timeout | undefined;
    const onSilence = () => {
      if (isPaused || isPut) putFailed();
      else timer?.refresh();
    };
    const goOn = () => {
      if (!isOpen) return;
      isPaused = false;
      watch();
      timer?.refresh();
      body?.resume();
    };

    upstream.on('metadata', (received: Metadata) => {
      if (isWhole || !isOpen) return;
      const [location] = received.get(handOverKeys.location);
      if (typeof location === 'string') putTo(location);
      else if (size > 0) start(streaming());
      askForBody(response);
      isAsked = true;
      watch();
    });
    upstream.on('drain', goOn);
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
      watch();
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
          watch();
          return !isPaused;
        },
        end() {
          if (!isOpen) return;
          isWhole = true;
          watch();
          upstream.end();
        },
      };
    }

    function putTo(location: string): void {
      isPaused = true;
      timer = setTimeout(onSilence, options.floor.window);
      const to = openDirectUpload(location, size, {
        onReady() {
          start({
            piece(bytes) {
              isPaused = isOpen && !to.write(bytes);
              watch();
              return !isPaused;
            },
            end() {
              isPut = true;
              watch();
              timer?.refresh();
              to.end();
            },
          });
          timer?.refresh();
        },
        onDrain: goOn,
        onTaken() {
          isWhole = true;
          upstream.end();
        },
        onRefused() {
          put = undefined;
          clearTimeout(timer);
          start(streaming());
        },
        onFailed: putFailed,
      });
      put = to;
    }

    /** The direct upload has failed. The backend says what that means. */
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
