import type { IncomingMessage } from 'node:http';
import type { Readable } from 'node:stream';
import busboy from 'busboy';
import { mediaType, refuseCompressed } from './body.ts';
import { Problem } from './problem.ts';

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
  /** Begins to read. */
  start(sink: Sink): void;
  resume(): void;
  /** Reads no more, and leaves what is still to come to others. */
  stop(): void;
}

/** The part of a form that holds the bytes. */
export const partName = 'file';
/** The parts of a form beyond which none is looked at, and bytes of what isn't a file. */
const limits = { parts: 1_000, fieldSize: 1_024 };

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
  let form: busboy.Busboy;
  try {
    form = busboy({ headers: request.headers, limits });
  } catch {
    throw malformed('The Content-Type of the form names no boundary');
  }
  let part: Readable | undefined;
  return {
    isForm: true,
    start(sink) {
      form.on('file', (name: string | undefined, stream) => {
        // The form tells of it, too.
        stream.on('error', () => {});
        if (name !== partName) {
          stream.resume();
        } else if (part === undefined) {
          part = stream;
          stream.on('data', (bytes: Buffer) => {
            if (!sink.piece(bytes)) stream.pause();
          });
        } else {
          sink.wrong('must be given once');
        }
      });
      form.on('field', (name: string | undefined) => {
        if (name === partName) sink.wrong('must be a file, with a filename');
      });
      form.on('error', () => sink.fail(malformed('The body is not a whole and valid form')));
      // Only now is it known that nothing follows that would be wrong.
      form.on('finish', () => (part === undefined ? sink.wrong('is required') : sink.end()));
      request.pipe(form);
    },
    resume: () => part?.resume(),
    stop() {
      request.unpipe(form).pause();
    },
  };
}
