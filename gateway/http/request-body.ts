import type { IncomingMessage, ServerResponse } from 'node:http';
import { RateFloor, type RateFloorOptions } from '#lib/rate-floor.ts';
import type { Admission } from './admission.ts';
import { askForBody, bodyIsRead } from './lingering-close.ts';
import { Problem } from './problem.ts';

/**
 * Reads a request's body whole.
 *
 * @throws Problem 413 if it has more bytes than it may, 408 if it comes too slowly, 429 or 503 if there is no place for it; the
 *   rest of it is then not waited for
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  { bodyLimit: limit, bodyTimeout, floor, admission }: BodyLimits,
): Promise<Buffer> {
  const tooLarge = () => new Problem(413, 'PAYLOAD_TOO_LARGE', `The body must not have more than ${limit} bytes`);
  const { 'content-length': length } = request.headers;
  if (length === undefined && request.headers['transfer-encoding'] === undefined) return Buffer.alloc(0);
  if (Number(length) > limit) throw tooLarge();
  askForBody(response);
  // Most bodies come in one packet with the head of their request. Node has such a body before the next tick, but marks the request
  // complete only after it.
  await new Promise((resolve) => process.nextTick(resolve));
  if (request.readableLength === Number(length)) {
    const body = (request.read() as Buffer | null) ?? Buffer.alloc(0);
    bodyIsRead(request);
    return body;
  }
  if (request.destroyed) throw incomplete();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let place: ReturnType<Admission['body']> | undefined;
    const stop = () => {
      clearTimeout(timer);
      rateFloor.stop();
      place?.end();
      request.off('data', onData).off('end', onEnd).off('close', onClose);
    };
    const fail = (problem: Problem) => {
      stop();
      reject(problem);
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      rateFloor.count(chunk.length);
      if (size > limit) return fail(tooLarge());
      chunks.push(chunk);
      tryTo(() => place?.grow(size));
    };
    const tryTo = (take: () => void) => {
      try {
        take();
      } catch (error) {
        fail(error as Problem);
      }
    };
    const onEnd = () => {
      stop();
      resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size));
    };
    const onClose = () => fail(incomplete());
    const timer = setTimeout(() => fail(tooSlow()), bodyTimeout);
    const rateFloor = new RateFloor(floor, () => fail(tooSlow()));
    request.on('data', onData).on('end', onEnd).on('close', onClose);
    tryTo(() => (place = admission.body(request, response)));
  });
}

/** @throws Problem 415 if the body of a request is compressed */
export function refuseCompressed({ headers }: IncomingMessage): void {
  const encoding = headers['content-encoding'];
  if (encoding === undefined || encoding.toLowerCase() === 'identity') return;
  throw new Problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'The body must not be compressed', {
    headers: { 'Accept-Encoding': 'identity' },
  });
}

/** The body doesn't come, or not as fast as it must. */
export function tooSlow(): Problem {
  return new Problem(408, 'REQUEST_TIMEOUT', 'The request took too long to arrive', {
    headers: { Connection: 'close' },
  });
}

/** The client has gone before the end of the body. */
export function incomplete(): Problem {
  return new Problem(400, 'INCOMPLETE_BODY', 'The body ended before its time');
}

/** What a body with JSON may be. */
export interface BodyLimits {
  /** Bytes that it may have. */
  bodyLimit: number;
  /** Milliseconds in which it has to arrive. */
  bodyTimeout: number;
  /** How fast it has to come. */
  floor: RateFloorOptions;
  admission: Admission;
}
