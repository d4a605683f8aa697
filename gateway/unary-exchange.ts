import type { IncomingHttpHeaders } from 'node:http2';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import { longestTimer } from '#lib/deadline.ts';
import { errorCodes } from './http2/frames.ts';
import type { Loss, Receiver } from './http2/request.ts';

/** What a server answered. */
export interface UnaryAnswer {
  message: Buffer;
  /** Its metadata, as HTTP/2 has it. */
  headers: IncomingHttpHeaders;
  trailers: IncomingHttpHeaders;
}

/** Of a message: whether it is compressed, and its length. */
export const prefixLength = 5;

/** One call: gathers what comes back, and makes an answer or an error of it. */
export class Exchange implements Receiver {
  readonly #maxAnswer: number;
  readonly #resolve: (answer: UnaryAnswer) => void;
  readonly #reject: (error: ServiceError) => void;
  #headers: IncomingHttpHeaders | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  #pieces: Buffer[] = [];
  #size = 0;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  /** Tells the server that nobody waits any more; what was sent sets it. */
  cancel: () => void = () => {};

  constructor(maxAnswer: number, resolve: (answer: UnaryAnswer) => void, reject: (error: ServiceError) => void) {
    this.#maxAnswer = maxAnswer;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  endBy(deadline: number): void {
    const left = Math.max(0, deadline - Date.now());
    if (left > longestTimer) return;
    this.#timer = setTimeout(() => this.fail(status.DEADLINE_EXCEEDED, 'Deadline exceeded'), left);
  }

  fields(fields: IncomingHttpHeaders): void {
    if (this.#headers === undefined) this.#headers = fields;
    else this.#trailers = fields;
  }

  data(piece: Buffer): void {
    this.#size += piece.length;
    if (this.#size > this.#maxAnswer + prefixLength) {
      this.fail(status.RESOURCE_EXHAUSTED, `Received message larger than max (${this.#size} vs ${this.#maxAnswer})`);
    } else if (!this.#isOver) {
      this.#pieces.push(piece);
    }
  }

  end(): void {
    if (!this.#isOver && !this.#finish()) this.#failWithout();
  }

  lost(loss: Loss): void {
    if (this.#isOver || this.#finish()) return;
    if (loss.kind === 'refused') this.fail(status.UNAVAILABLE, 'Stream refused by server');
    else if (loss.kind === 'gone' || loss.code === errorCodes.none) this.#failWithout();
    else {
      // Nobody here cancelled it: the server gave it up.
      const code = loss.code === errorCodes.cancel ? status.UNAVAILABLE : status.INTERNAL;
      this.fail(code, `Received RST_STREAM with code ${loss.code}`);
    }
  }

  fail(code: status, details: string, trailers: IncomingHttpHeaders = {}): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#pieces = [];
    this.cancel();
    const headers = this.#trailers === undefined ? {} : (this.#headers ?? {});
    this.#reject(failure(code, details, headers, trailers));
  }

  /** @returns false if there is no status of gRPC's */
  #finish(): boolean {
    const headers = this.#headers;
    const ending = this.#trailers ?? headers;
    if (headers === undefined || ending?.['grpc-status'] === undefined) return false;
    const code = Number(ending['grpc-status']);
    if (code !== 0) {
      this.fail(Number.isInteger(code) ? code : status.UNKNOWN, textOf(ending['grpc-message']), ending);
      return true;
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
    return true;
  }

  /** Nobody says why for gRPC, but HTTP may. */
  #failWithout(): void {
    const httpStatus = Number(this.#headers?.[':status'] ?? 200);
    if (httpStatus === 200) this.fail(status.UNAVAILABLE, 'Connection dropped');
    else this.fail(httpStatuses[httpStatus] ?? status.UNKNOWN, `Received HTTP status code ${httpStatus}`);
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
