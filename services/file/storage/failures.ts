import { Answered, NotTried } from '#lib/breaker.ts';
import { HubError } from '#lib/errors.ts';

/** The error for a store that is unavailable, full or too slow; it asks to retry after two seconds. A HubError is returned as it is. */
export function unavailable(cause: unknown): HubError {
  if (cause instanceof HubError) return cause;
  return new HubError('UNAVAILABLE', 'STORE_UNAVAILABLE', 'The file store is not available at the moment', {
    retryAfter: 2,
    cause,
  });
}

/** An operator has to mend something first. */
const refusedRetryAfter = 30;

/**
 * The error for a store that refuses a request, or whose answer is none of an S3's. A HubError is returned as it is.
 *
 * @param message for callers, where they should learn more than that the store is unavailable
 */
export function refused(
  cause: unknown,
  message = 'The file store does not do what the file service asks for: its log says why',
): HubError {
  if (cause instanceof HubError) return cause;
  return new Answered('UNAVAILABLE', 'STORE_UNAVAILABLE', message, { retryAfter: refusedRetryAfter, cause });
}

/** Like `unavailable`, for a request that never left this process: it failed before or while the connection was made. */
export function unsent(cause: unknown): NotTried {
  const { kind, reason, message, retryAfter, cause: why } = unavailable(cause);
  return new NotTried(kind, reason, message, { retryAfter, cause: why });
}

/** The error for an upload that doesn't exist any more. */
export function uploadClosed(): HubError {
  return new HubError('ABORTED', 'UPLOAD_CLOSED', 'The upload takes no parts any more');
}

export function contentMissing(): HubError {
  return new HubError('NOT_FOUND', 'CONTENT_MISSING', 'The content of the file is not there');
}

/** Keys become file names and paths of URLs. @throws TypeError for an invalid one, which is a bug of the caller */
export function checkKey(key: string): void {
  if (!/^[A-Za-z0-9-]{1,64}$/.test(key)) throw new TypeError(`${JSON.stringify(key)} is no key`);
}

/** The error for a part that should be there; the next look finds it missing. */
export function partMissing(key: string, number: number): HubError {
  return new Answered('UNAVAILABLE', 'STORE_UNAVAILABLE', `Part ${number} of ${key} is not there`, { retryAfter: 2 });
}
