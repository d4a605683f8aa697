import { createHash, type Hash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { ExpectedDigest } from '#lib/digest.ts';
import { mediaType } from '../http/media-type.ts';
import { refuseCompressed } from '../http/request-body.ts';
import { boundaryIn, Form } from '../http/multipart-form.ts';
import { Problem } from '../http/problem.ts';

/** What becomes of a body that is read piece by piece. */
export interface Sink {
  /** The next bytes. @returns false to be given no more until `resume` is called */
  piece(bytes: Buffer): boolean;
  /** All of it was there. Never called for a body that was cut off. */
  end(): void;
  /** The part of a form that holds the bytes isn't as it must be. */
  wrong(description: string): void;
  fail(problem: Problem): void;
}

/** A body that is read piece by piece. */
export interface Pieces {
  /** Whether the bytes are part of a form: then the headers of the request aren't about them. */
  isForm: boolean;
  /** Makes sure that all of the body, as it is sent, has a digest (RFC 9530): else it fails. Of a form alone. */
  expect?(digest: ExpectedDigest): void;
  /** Begins to read. */
  start(sink: Sink): void;
  resume(): void;
  /** Reads no more, and leaves what is still to come to others. */
  stop(): void;
}

/** The part of a form that holds the bytes. */
export const partName = 'file';

/**
 * The body of a request, of which nothing is read so far: all of it, or of a form the part called `file`.
 *
 * @throws Problem 415 if it is compressed, 400 `MALFORMED_FORM` if it is a form that can't be read
 */
export function openPieces(request: IncomingMessage): Pieces {
  refuseCompressed(request);
  return mediaType(request.headers['content-type']) === 'multipart/form-data' ? formOf(request) : rawOf(request);
}

function rawOf(request: IncomingMessage): Pieces {
  const listeners: Record<'data' | 'end', (bytes: Buffer) => void> = { data: () => {}, end: () => {} };
  return {
    isForm: false,
    start(sink) {
      listeners.data = (bytes) => {
        if (!sink.piece(bytes)) request.pause();
      };
      listeners.end = () => sink.end();
      request.on('data', listeners.data).on('end', listeners.end);
    },
    resume: () => request.resume(),
    stop() {
      request.off('data', listeners.data).off('end', listeners.end).pause();
    },
  };
}

function formOf(request: IncomingMessage): Pieces {
  const malformed = (detail: string) => new Problem(400, 'MALFORMED_FORM', detail);
  const boundary = boundaryIn(request.headers['content-type'] as string);
  if (boundary === undefined) throw malformed('The Content-Type of the form names no boundary');
  const listeners: Record<'data' | 'end', (bytes: Buffer) => void> = { data: () => {}, end: () => {} };
  let hash: Hash | undefined;
  let expected: ExpectedDigest | undefined;
  return {
    isForm: true,
    expect(digest) {
      expected = digest;
      hash = createHash(digest.algorithm);
    },
    start(sink) {
      let count = 0;
      let isWanted = false;
      const form = new Form(boundary, {
        part(name) {
          isWanted = name === partName;
          if (isWanted) count += 1;
          if (count > 1) sink.wrong('must be given once');
        },
        bytes(piece) {
          if (isWanted && !sink.piece(piece)) request.pause();
        },
      });
      listeners.data = (bytes) => {
        hash?.update(bytes);
        try {
          form.write(bytes);
        } catch {
          sink.fail(malformed('The body is not a valid form'));
        }
      };
      // Only now is it known that nothing follows that would be wrong.
      listeners.end = () => {
        if (!form.isWhole) sink.fail(malformed('The body is not a whole form'));
        else if (count === 0) sink.wrong('is required');
        else if (expected !== undefined && hash?.digest().equals(expected.digest) === false) sink.fail(otherDigest());
        else sink.end();
      };
      request.on('data', listeners.data).on('end', listeners.end);
    },
    resume: () => request.resume(),
    stop() {
      request.off('data', listeners.data).off('end', listeners.end).pause();
    },
  };
}

function otherDigest(): Problem {
  return new Problem(400, 'DIGEST_MISMATCH', 'The body has another digest than Content-Digest says');
}
