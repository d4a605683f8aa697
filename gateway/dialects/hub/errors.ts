import type { ServiceError } from '@grpc/grpc-js';
import { asLost } from '#lib/rpc/reach.ts';
import { httpStatusOf, Problem } from '../../http/problem.ts';
import type { Reading } from '../../json/reading.ts';
import { hubErrorOf, wrongFields, type ErrorForms } from '../errors.ts';

/** Said in place of a text that may be about our inside. */
const brokenText = 'Something went wrong on our side';
/** Said in place of the text of an error that may have been made here, by gRPC, and then names addresses. */
const transportTexts: Record<string, string> = {
  UNAVAILABLE: 'The service is not available at the moment: try again a little later',
  DEADLINE_EXCEEDED: 'The answer took too long',
  CANCELLED: 'The call was cancelled',
  UNIMPLEMENTED: 'This is not implemented',
};

/** What to answer when a backend refused a call. */
export function problemOf(given: ServiceError, reading: Reading, { errorStatuses, errorCodes }: ErrorForms): Problem {
  const error = asLost(given);
  if (error.delivery === 'too large') {
    return new Problem(502, 'ANSWER_TOO_LARGE', 'The answer is larger than can be passed on: ask for less at once', {
      cause: error,
    });
  }
  const failure = hubErrorOf(error);
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
