import type { IncomingHttpHeaders } from 'node:http2';
import { Metadata, status } from '@grpc/grpc-js';
import { maxTimerMs } from '#lib/deadline.ts';
import { deadlineExceeded, isLost, isOfGateway, type CallError, type Delivery } from '#lib/rpc/delivery.ts';
import { statusIn } from '#lib/rpc/status.ts';
import { errorCodes } from './http2/frames.ts';
import type { Loss, Receiver } from './http2/request.ts';

/** The prefix of a message (gRPC over HTTP/2, Length-Prefixed-Message): whether it is compressed, and its length. */
export const prefixLength = 5;

/** A call: knows how it ends, with a status of the server's or without one. */
export abstract class Exchange implements Receiver {
  #headers: IncomingHttpHeaders | undefined;
  #trailers: IncomingHttpHeaders | undefined;
  /** The last of the two: it has the `grpc-status`. */
  #ending: IncomingHttpHeaders | undefined;
  /** Milliseconds since the epoch. */
  #deadline = Infinity;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;
  /** Cancels the request on the connection; set once it is sent. */
  cancel: () => void = () => {};

  /** A piece of the response, unless the call is over. */
  protected abstract take(piece: Buffer): void;
  /** The server says that all is well. Calls `finish`, or `fail` if something is missing. */
  protected abstract succeed(headers: IncomingHttpHeaders, trailers: IncomingHttpHeaders): void;
  protected abstract failed(error: CallError): void;
  /** The header fields of the answer have come, and more is to follow. */
  protected begun?(headers: IncomingHttpHeaders): void;

  endBy(deadline: number): void {
    this.#deadline = deadline;
    const left = Math.max(0, deadline - Date.now());
    if (left <= maxTimerMs) this.#timer = setTimeout(() => this.#late(), left);
  }

  #late(): void {
    const { code, details, delivery } = deadlineExceeded;
    this.fail(code, details, delivery);
  }

  fields(fields: IncomingHttpHeaders, isLast: boolean): void {
    const isHead = this.#headers === undefined;
    if (isHead) this.#headers = fields;
    else this.#trailers = fields;
    if (isLast) this.#ending = fields;
    else if (isHead && !this.#isOver) this.begun?.(fields);
  }

  data(piece: Buffer): void {
    if (!this.#isOver) this.take(piece);
  }

  end(): void {
    if (this.#isOver) return;
    const ending = this.#ending;
    if (ending?.['grpc-status'] === undefined) this.#failWithout(status.INTERNAL, 'Call ended without gRPC status');
    else if (ending['grpc-status'] === '0') this.#succeed();
    else {
      const { code, message } = statusIn(ending);
      if (code === status.OK) this.#succeed();
      else this.fail(code, message, 'answered', ending);
    }
  }

  lost(loss: Loss): void {
    if (this.#isOver) return;
    switch (loss.kind) {
      case 'unsent':
        return this.fail(status.UNAVAILABLE, 'The connection was lost before the call was sent', 'never sent');
      case 'refused': {
        // A server that has begun to answer has processed the call, whatever it says later.
        const delivery = this.#headers === undefined ? 'refused unprocessed' : 'maybe processed';
        return this.fail(status.UNAVAILABLE, 'Stream refused by server', delivery);
      }
      case 'malformed':
        return this.fail(status.INTERNAL, 'The answer breaks the rules of HTTP/2, or has too many fields', 'answered');
      case 'gone':
        return this.#failWithout(status.UNAVAILABLE, 'Connection dropped');
      case 'reset': {
        const details = `Received RST_STREAM with code ${loss.code}`;
        const unwanted = unwantedCalls[loss.code];
        if (unwanted !== undefined) return this.fail(unwanted, details, 'answered');
        // We did not cancel it, so the server did.
        const isOfServer = loss.code === errorCodes.none || loss.code === errorCodes.cancel;
        return this.#failWithout(isOfServer ? status.UNAVAILABLE : status.INTERNAL, details);
      }
    }
  }

  fail(code: status, details: string, delivery: Delivery, trailers: IncomingHttpHeaders = {}): void {
    if (this.#isOver) return;
    if (isLost({ delivery }) && Date.now() >= this.#deadline) return this.#late();
    this.finish();
    this.cancel();
    const headers = this.#trailers === undefined ? {} : (this.#headers ?? {});
    this.failed(failure(code, details, delivery, headers, trailers));
  }

  /** Nothing more is to come. */
  protected finish(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  protected get isOver(): boolean {
    return this.#isOver;
  }

  /** A message was announced that is longer than it may be. */
  protected tooLong(length: number, most: number): void {
    const details = `Received message larger than max (${length} vs ${most})`;
    this.fail(status.RESOURCE_EXHAUSTED, details, 'too large');
  }

  protected compressed(): void {
    this.fail(status.INTERNAL, 'The server compressed its answer without having been asked for it', 'answered');
  }

  #succeed(): void {
    this.succeed(this.#headers ?? {}, this.#trailers ?? {});
  }

  /** Fails a call without `grpc-status`: with the HTTP status, if that is not 200. */
  #failWithout(code: status, details: string): void {
    const httpStatus = Number(this.#headers?.[':status'] ?? 200);
    if (httpStatus === 200) return this.fail(code, details, 'maybe processed');
    const delivery = isOfGateway(httpStatus) ? 'maybe processed' : 'answered';
    return this.fail(httpStatuses[httpStatus] ?? status.UNKNOWN, `Received HTTP status code ${httpStatus}`, delivery);
  }
}

/** Error codes of RST_STREAM by which the server rejects a call, and the gRPC status for each (gRPC over HTTP/2, Errors). */
const unwantedCalls: Record<number, status> = {
  [errorCodes.enhanceYourCalm]: status.RESOURCE_EXHAUSTED,
  [errorCodes.inadequateSecurity]: status.PERMISSION_DENIED,
};

/** The gRPC status for an HTTP status, where there is no `grpc-status` (HTTP to gRPC Status Code Mapping). */
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

/** An error as the client of grpc-js throws it. */
export function failure(
  code: status,
  details: string,
  delivery: Delivery,
  headers: IncomingHttpHeaders = {},
  trailers: IncomingHttpHeaders = {},
): CallError {
  const metadata = Metadata.fromHttp2Headers({ ...headers, ...trailers });
  return Object.assign(new Error(`${code} ${status[code] ?? 'UNKNOWN'}: ${details}`), {
    code,
    details,
    delivery,
    metadata,
    headers,
    trailers,
  });
}
