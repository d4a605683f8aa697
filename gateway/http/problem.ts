import { STATUS_CODES, type OutgoingHttpHeaders } from 'node:http';
import { status } from '@grpc/grpc-js';

/** What is wrong with a field. */
export interface WrongField {
  /** Its path, as the client wrote it. */
  field: string;
  description: string;
  /** Which rule isn't met, for programs; undefined if nobody said. */
  rule: string | undefined;
}

export interface ProblemOptions {
  /** All that is wrong with fields. */
  fields?: readonly WrongField[] | undefined;
  /** What an envelope calls it, if it has a name of its own there. */
  envelopeCode?: string | undefined;
  /** Whole seconds until it is worth trying again. */
  retryAfter?: number;
  headers?: OutgoingHttpHeaders;
  /** More members of the body. */
  extensions?: Readonly<Record<string, unknown>>;
  cause?: unknown;
}

/** A request that is answered with an error, by itself as RFC 9457 has it. */
export class Problem extends Error {
  readonly status: number;
  /** Stable UPPER_SNAKE name of what went wrong. */
  readonly code: string;
  readonly envelopeCode: string | undefined;
  readonly fields: readonly WrongField[] | undefined;
  readonly retryAfter: number | undefined;
  readonly #headers: OutgoingHttpHeaders;
  /** More members of the body. */
  readonly extensions: Readonly<Record<string, unknown>> | undefined;

  /** @param detail a sentence for people; it is shown to them as it is */
  constructor(httpStatus: number, code: string, detail: string, options: ProblemOptions = {}) {
    super(detail, { cause: options.cause });
    this.name = 'Problem';
    this.status = httpStatus;
    this.code = code;
    this.envelopeCode = options.envelopeCode;
    this.fields = options.fields;
    this.retryAfter = options.retryAfter;
    this.#headers = options.headers ?? {};
    this.extensions = options.extensions;
  }

  get headers(): OutgoingHttpHeaders {
    const headers: OutgoingHttpHeaders = { 'Content-Type': 'application/problem+json', ...this.#headers };
    if (this.status === 401) headers['WWW-Authenticate'] ??= 'Bearer';
    if (this.retryAfter !== undefined) headers['Retry-After'] = String(this.retryAfter);
    return headers;
  }

  /** The answer's body. @param more members of it, beside the usual ones */
  body(requestId: string | undefined, more: Readonly<Record<string, unknown>> = {}): string {
    return JSON.stringify({
      type: `urn:error:${this.code.toLowerCase().replaceAll('_', '-')}`,
      title: STATUS_CODES[this.status] ?? titles[this.status] ?? 'Error',
      status: this.status,
      detail: this.message,
      error_code: this.code,
      request_id: requestId,
      field_errors: this.fields && byField(this.fields),
      retry_after: this.retryAfter,
      ...this.extensions,
      ...more,
    });
  }
}

/** What is wrong with each field. */
function byField(fields: readonly WrongField[]): Record<string, string[]> {
  const groups = Map.groupBy(fields, ({ field }) => field);
  return Object.fromEntries([...groups].map(([field, all]) => [field, all.map(({ description }) => description)]));
}

/** How problems are told. */
export interface ProblemForm {
  headersOf(problem: Problem): OutgoingHttpHeaders;
  bodyOf(problem: Problem, requestId: string | undefined): string;
}

/** As `application/problem+json` (RFC 9457). */
export const problemJson: ProblemForm = {
  headersOf: (problem) => problem.headers,
  bodyOf: (problem, requestId) => problem.body(requestId),
};

const titles: Record<number, string> = { 499: 'Client Closed Request' };

/** The HTTP status of each gRPC status, as grpc-gateway has it. */
const httpStatuses: Record<number, number> = {
  [status.CANCELLED]: 499,
  [status.UNKNOWN]: 500,
  [status.INVALID_ARGUMENT]: 400,
  [status.DEADLINE_EXCEEDED]: 504,
  [status.NOT_FOUND]: 404,
  [status.ALREADY_EXISTS]: 409,
  [status.PERMISSION_DENIED]: 403,
  [status.RESOURCE_EXHAUSTED]: 429,
  [status.FAILED_PRECONDITION]: 400,
  [status.ABORTED]: 409,
  [status.OUT_OF_RANGE]: 400,
  [status.UNIMPLEMENTED]: 501,
  [status.INTERNAL]: 500,
  [status.UNAVAILABLE]: 503,
  [status.DATA_LOSS]: 500,
  [status.UNAUTHENTICATED]: 401,
};

/** The HTTP status that goes with the number of a gRPC status. */
export function httpStatusOf(code: number): number {
  return httpStatuses[code] ?? 500;
}
