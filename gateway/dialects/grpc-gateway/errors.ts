import { status, type ServiceError } from '@grpc/grpc-js';
import type { IncomingHttpHeaders } from 'node:http';
import { Status } from '#gen/google/rpc/status.ts';
import { httpStatusOf, Problem, problemJson, type ProblemForm } from '../../http/problem.ts';
import { Reading } from '../../json/reading.ts';
import type { ResponseJson } from '../../json/response-json.ts';
import { hubErrorOf, wrongFields } from '../errors.ts';
import { headersOf } from './metadata.ts';

/** The status of gRPC for a request that is refused here, by that of HTTP. */
const ownCodes: Record<number, status> = {
  401: status.UNAUTHENTICATED,
  403: status.PERMISSION_DENIED,
  404: status.NOT_FOUND,
  408: status.DEADLINE_EXCEEDED,
  413: status.RESOURCE_EXHAUSTED,
  429: status.RESOURCE_EXHAUSTED,
  431: status.RESOURCE_EXHAUSTED,
  500: status.INTERNAL,
  501: status.UNIMPLEMENTED,
  502: status.UNAVAILABLE,
  503: status.UNAVAILABLE,
  504: status.DEADLINE_EXCEEDED,
};

/** Problems with the members of grpc-gateway's errors: `code`, a status of gRPC, `message` and `details`. */
export const grpcGatewayProblem: ProblemForm = {
  headersOf: (problem) => problemJson.headersOf(problem),
  bodyOf(problem, requestId) {
    const { message, extensions } = problem;
    const code = ownCodes[problem.status] ?? status.INVALID_ARGUMENT;
    return problem.body(requestId, { code, message, details: [], ...extensions });
  },
};

/**
 * The answer when a backend refused a call. What it says is meant for its clients, who alone know what it means, so it is passed on as
 * it is.
 */
export function problemOf(error: ServiceError & { headers?: IncomingHttpHeaders }, responses: ResponseJson): Problem {
  const failure = hubErrorOf(error);
  const httpStatus = httpStatusOf(error.code);
  const { code, details: message } = error;
  const headers = headersOf(error.headers ?? {});
  if (httpStatus === 401) headers['WWW-Authenticate'] = message.replace(/[^\t -~]/g, ' ');
  return new Problem(httpStatus, failure.reason, message, {
    fields: failure.fields.length > 0 ? wrongFields(failure.fields, new Reading()) : undefined,
    headers,
    extensions: { code, message, details: detailsOf(error, responses) },
    cause: error,
  });
}

function detailsOf({ metadata }: ServiceError, responses: ResponseJson): unknown[] {
  const [encoded] = metadata.get('grpc-status-details-bin');
  if (!(encoded instanceof Buffer)) return [];
  try {
    return Status.decode(encoded).details.map(({ typeUrl, value }) => responses.any(typeUrl, value));
  } catch {
    return [];
  }
}
