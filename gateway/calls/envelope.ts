import type { OutgoingHttpHeaders } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { Registry } from '@bufbuild/protobuf';
import type { Binding } from '../rules/bindings.ts';
import { type JsonForm, ResponseJson } from '../json/response-json.ts';
import type { Problem, ProblemForm } from '../http/problem.ts';
import type { Json } from '../json/scalars.ts';

/*
 * Answers in an envelope (chat4all.options.v1.ANSWER_STYLE_ENVELOPE): `data` and `error`, of which one is null, and `meta`.
 */

/** The message that becomes `meta.pagination`, wherever it is a field of an answer. */
export const paginationType = 'chat4all.paging.v1.Pagination';

/** The codes of all that no service has a code for, by HTTP status. */
const codes: Readonly<Record<number, string>> = {
  400: 'VALIDATION_ERROR',
  401: 'UNAUTHORIZED',
  403: 'FORBIDDEN',
  404: 'NOT_FOUND',
  405: 'METHOD_NOT_ALLOWED',
  408: 'REQUEST_TIMEOUT',
  409: 'CONFLICT',
  413: 'PAYLOAD_TOO_LARGE',
  414: 'URI_TOO_LONG',
  415: 'UNSUPPORTED_MEDIA_TYPE',
  416: 'RANGE_NOT_SATISFIABLE',
  417: 'EXPECTATION_FAILED',
  429: 'RATE_LIMITED',
  431: 'HEADERS_TOO_LARGE',
  499: 'CANCELLED',
  500: 'INTERNAL_ERROR',
  501: 'NOT_IMPLEMENTED',
  502: 'BAD_GATEWAY',
  503: 'UNAVAILABLE',
  504: 'TIMEOUT',
};
/** Reasons that say more than their status, in any service: log in again, rather than log in. */
const kept: ReadonlySet<string> = new Set(['TOKEN_EXPIRED']);

/**
 * The code under which an envelope tells an error.
 *
 * @param reason that of google.rpc.ErrorInfo, or the code of a problem
 * @param own the code that the service has for it
 */
export function envelopeCode(status: number, reason: string, own?: string): string {
  if (own !== undefined) return own;
  if (kept.has(reason)) return reason;
  const title = STATUS_CODES[status] ?? 'Error';
  return codes[status] ?? title.toUpperCase().replaceAll(/[^A-Z]+/g, '_');
}

/** The rule that a field doesn't meet of which nothing more is known. */
const anyRule = 'invalid';

/** Problems in an envelope. */
export const envelopedProblem: ProblemForm = {
  headersOf(problem): OutgoingHttpHeaders {
    const headers: OutgoingHttpHeaders = { ...problem.headers, 'Content-Type': 'application/json' };
    if (problem.status === 503) headers['Retry-After'] ??= '1';
    return headers;
  },
  bodyOf({ status, code, envelopeCode: own, message, fields = [] }: Problem, requestId) {
    const details = fields.map(({ field, description, rule = anyRule }) => ({ field, message: description, rule }));
    const error = { code: envelopeCode(status, code, own), message, details };
    return JSON.stringify({ data: null, error, meta: { request_id: requestId } });
  },
};

/** A success in an envelope. */
export interface Enveloped {
  json: string;
  /** What of it is the same whenever it is asked for. */
  lasting: string;
}

/** Puts what RPCs answer into envelopes. */
export class Envelope {
  readonly #responses: ResponseJson;

  constructor(registry: Registry, form: JsonForm) {
    this.#responses = new ResponseJson(registry, { ...form, unset: 'left out' });
  }

  /** The envelope around a response message, or around the field of it that is answered. */
  success({ output, responseBody }: Binding, bytes: Uint8Array, requestId: string | undefined): Enveloped {
    const whole = this.#responses.message(output, bytes) as Record<string, Json>;
    let pagination = '';
    for (const field of output.fields) {
      if (field.value.kind !== 'message' || field.value.message.typeName !== paginationType) continue;
      const found = whole[field.name];
      delete whole[field.name];
      if (field.shape === 'single' && found !== undefined) pagination = `,"pagination":${JSON.stringify(found)}`;
    }
    const data = JSON.stringify(responseBody === undefined ? whole : (whole[responseBody.name] ?? {}));
    const id = JSON.stringify(requestId);
    return {
      json: `{"data":${data},"error":null,"meta":{"request_id":${id}${pagination}}}`,
      lasting: data + pagination,
    };
  }
}
