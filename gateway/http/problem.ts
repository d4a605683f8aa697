import { STATUS_CODES, type OutgoingHttpHeaders } from 'node:http';
import { Metadata, status, type ServiceError } from '@grpc/grpc-js';
import type { FieldViolation, HubError } from '#lib/errors.ts';
import { asLost } from '#lib/rpc/reach.ts';
import { fromServiceError } from '#lib/rpc/status.ts';
import type { Binding } from '../rules/bindings.ts';
import { Reading } from '../json/reading.ts';

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

/** Said in place of a text that may be about our inside. */
const brokenText = 'Something went wrong on our side';
/** Said in place of the text of an error that may have been made here, by gRPC, and then names addresses. */
const transportTexts: Record<string, string> = {
  UNAVAILABLE: 'The service is not available at the moment: try again a little later',
  DEADLINE_EXCEEDED: 'The answer took too long',
  CANCELLED: 'The call was cancelled',
  UNIMPLEMENTED: 'This is not implemented',
};

/** What errors of an RPC are over HTTP, by their reason: as in `Binding`. */
export type ErrorForms = Pick<Binding, 'errorStatuses' | 'errorCodes'>;

/** What to answer when a backend refused a call. */
export function fromBackend(given: ServiceError, reading: Reading, { errorStatuses, errorCodes }: ErrorForms): Problem {
  const error = asLost(given);
  if (error.delivery === 'too large') {
    return new Problem(502, 'ANSWER_TOO_LARGE', 'The answer is larger than can be passed on: ask for less at once', {
      cause: error,
    });
  }
  const failure = understood(error);
  const httpStatus = errorStatuses.get(failure.reason) ?? httpStatusOf(error.code);
  const envelopeCode = errorCodes?.get(failure.reason);
  if (httpStatus === 500) return new Problem(500, failure.reason, brokenText, { envelopeCode, cause: error });
  // Without a reason of its own the error may come from gRPC rather than from the service.
  const isBare = failure.reason === failure.kind;
  let detail = (isBare ? transportTexts[failure.reason] : undefined) ?? (failure.message || brokenText);
  // The hub's contract has it so; an envelope says no more than the service.
  const isPlain = errorCodes === undefined;
  if (httpStatus === 403 && isPlain && !/^access denied/i.test(detail)) detail = `Access denied: ${detail}`;
  const waits = httpStatus === 429 || httpStatus === 503 || failure.retryAfter !== undefined;
  return new Problem(httpStatus, failure.reason, detail, {
    fields: failure.fields.length > 0 ? wrongFields(failure.fields, reading) : undefined,
    envelopeCode,
    retryAfter: waits ? Math.max(1, Math.ceil(failure.retryAfter ?? 1)) : undefined,
    cause: error,
  });
}

/**
 * The same for a server of others: what it says is meant for its clients, and only they know what it means.
 *
 * @param details what it says beyond that, as JSON
 */
export function fromForeign(error: ServiceError, headers: OutgoingHttpHeaders, details: unknown[]): Problem {
  const failure = understood(error);
  const httpStatus = httpStatuses[error.code] ?? 500;
  const { code, details: message } = error;
  if (httpStatus === 401) headers['WWW-Authenticate'] = message.replace(/[^\t -~]/g, ' ');
  return new Problem(httpStatus, failure.reason, message, {
    fields: failure.fields.length > 0 ? wrongFields(failure.fields, new Reading()) : undefined,
    headers,
    extensions: { code, message, details },
    cause: error,
  });
}

function understood(error: ServiceError): HubError {
  try {
    return fromServiceError(error);
  } catch {
    // Its details are no google.rpc.Status: what is left is its code and its text.
    error.metadata = new Metadata();
    return fromServiceError(error);
  }
}

/** The answer to a request that is wrong in ways that were found while it was read. */
export function fromReading(reading: Reading): Problem {
  const fields = wrongFields([], reading);
  const names = new Set(fields.map(({ field }) => field));
  const message = `Some fields are not valid: ${[...names].join(', ')}`;
  return new Problem(400, 'INVALID_ARGUMENT', message, { fields });
}

/**
 * All wrong fields by the path that the client wrote: those found while the request was read, and those that the backend
 * found. What the backend says of a field that could not be read, or of a part of it, is only a consequence.
 */
function wrongFields(found: readonly FieldViolation[], reading: Reading): WrongField[] {
  const wrong = new Map<string, WrongField>();
  const add = (field: string, description: string, rule: string | undefined) => {
    const key = JSON.stringify([field, description]);
    if (!wrong.has(key)) wrong.set(key, { field, description, rule });
  };
  for (const { sent, description, rule } of reading.violations) add(sent, description, rule);
  const unread = new Set(reading.violations.map((violation) => violation.field));
  for (const { field, description, rule } of found) {
    if (!isWithin(field, unread)) add(reading.asSent(field), description, rule);
  }
  return [...wrong.values()];
}

function isWithin(field: string, unread: ReadonlySet<string>): boolean {
  if (unread.size === 0) return false;
  for (
    let end = field.length;
    end > 0;
    end = Math.max(field.lastIndexOf('.', end - 1), field.lastIndexOf('[', end - 1))
  ) {
    if (unread.has(field.slice(0, end))) return true;
  }
  return false;
}
