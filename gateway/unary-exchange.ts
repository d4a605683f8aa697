import { constants, type ClientHttp2Stream, type IncomingHttpHeaders } from 'node:http2';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { longestTimer } from '#lib/deadline.ts';

/** What a server answered. */
export interface UnaryAnswer {
  message: Buffer;
  /** Its metadata, as HTTP/2 has it. */
  headers: IncomingHttpHeaders;
  trailers: IncomingHttpHeaders;
}

const { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR, NGHTTP2_REFUSED_STREAM } = constants;
/** Of a message: whether it is compressed, and its length. */
export const prefixLength = 5;

/** One call: sends nothing itself, and gathers what comes back. */
export class Exchange {
  readonly #stream: ClientHttp2Stream;
  readonly #maxAnswer: number;
  readonly #resolve: (answer: UnaryAnswer) => void;
  readonly #reject: (error: ServiceError) => void;
  #headers: IncomingHttpHeaders | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  #pieces: Buffer[] = [];
  #size = 0;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(
    stream: ClientHttp2Stream,
    maxAnswer: number,
    resolve: (answer: UnaryAnswer) => void,
    reject: (error: ServiceError) => void,
  ) {
    this.#stream = stream;
    this.#maxAnswer = maxAnswer;
    this.#resolve = resolve;
    this.#reject = reject;
    stream.on('response', (headers) => (this.#headers = headers));
    stream.on('trailers', (trailers) => (this.#trailers = trailers));
    stream.on('data', (piece: Buffer) => this.#take(piece));
    stream.on('end', () => {
      if (this.#trailers !== undefined || this.#headers?.['grpc-status'] !== undefined) this.#finish();
    });
    stream.on('close', () => this.#finish());
    // What it is about is told by `close`, with a code.
    stream.on('error', () => {});
  }

  endBy(deadline: number): void {
    const left = Math.max(0, deadline - Date.now());
    if (left > longestTimer) return;
    this.#timer = setTimeout(() => this.fail(status.DEADLINE_EXCEEDED, 'Deadline exceeded'), left);
  }

  fail(code: status, details: string, trailers: IncomingHttpHeaders = {}): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#pieces = [];
    if (!this.#stream.closed) this.#stream.close(NGHTTP2_CANCEL);
    const headers = this.#trailers === undefined ? {} : (this.#headers ?? {});
    this.#reject(failure(code, details, headers, trailers));
  }

  #take(piece: Buffer): void {
    this.#size += piece.length;
    if (this.#size > this.#maxAnswer + prefixLength) {
      this.fail(status.RESOURCE_EXHAUSTED, `Received message larger than max (${this.#size} vs ${this.#maxAnswer})`);
    } else if (!this.#isOver) {
      this.#pieces.push(piece);
    }
  }

  #finish(): void {
    if (this.#isOver) return;
    const headers = this.#headers;
    const ending = this.#trailers ?? headers;
    if (headers === undefined || ending?.['grpc-status'] === undefined) {
      this.#fail(headers);
      return;
    }
    const code = Number(ending['grpc-status']);
    if (code !== 0) {
      this.fail(Number.isInteger(code) ? code : status.UNKNOWN, textOf(ending['grpc-message']), ending);
      return;
    }
    const body = this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces, this.#size);
    if (body.length < prefixLength || body.readUInt32BE(1) !== body.length - prefixLength) {
      this.fail(status.UNIMPLEMENTED, 'The server answered with no message, or with several');
    } else if (body[0] !== 0) {
      this.fail(status.INTERNAL, 'The server compressed its answer without having been asked for it');
    } else {
      this.#isOver = true;
      clearTimeout(this.#timer);
      this.#resolve({ message: body.subarray(prefixLength), headers, trailers: this.#trailers ?? {} });
    }
  }

  /** It has no status of gRPC's. */
  #fail(headers: IncomingHttpHeaders | undefined): void {
    const { rstCode } = this.#stream;
    const httpStatus = Number(headers?.[':status'] ?? 200);
    if (rstCode === NGHTTP2_REFUSED_STREAM) this.fail(status.UNAVAILABLE, 'Stream refused by server');
    else if (rstCode !== undefined && rstCode !== NGHTTP2_NO_ERROR && !this.#stream.session?.destroyed) {
      // Nobody here cancelled it: the server gave it up, or the connection went.
      const code = rstCode === NGHTTP2_CANCEL ? status.UNAVAILABLE : status.INTERNAL;
      this.fail(code, `Received RST_STREAM with code ${rstCode}`);
    } else if (httpStatus !== 200) {
      this.fail(httpStatuses[httpStatus] ?? status.UNKNOWN, `Received HTTP status code ${httpStatus}`);
    } else {
      this.fail(status.UNAVAILABLE, 'Connection dropped');
    }
  }
}

/** What HTTP says for gRPC, where nobody does for it. */
const httpStatuses: Record<number, status> = {
  400: status.INTERNAL,
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.UNIMPLEMENTED,
  429: status.UNAVAILABLE,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.UNAVAILABLE,
};

function textOf(encoded: string | string[] | undefined): string {
  if (encoded === undefined) return '';
  const text = String(encoded);
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** As grpc-js's client throws it. */
export function failure(
  code: status,
  details: string,
  headers: IncomingHttpHeaders = {},
  trailers: IncomingHttpHeaders = {},
): ServiceError {
  const metadata = Metadata.fromHttp2Headers({ ...headers, ...trailers });
  return Object.assign(new Error(`${code} ${status[code] ?? 'UNKNOWN'}: ${details}`), {
    code,
    details,
    metadata,
    headers,
    trailers,
  });
}
