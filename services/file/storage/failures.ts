import { Answered, NotTried } from '#lib/breaker.ts';
import { HubError } from '#lib/errors.ts';

/** The store is away, full or too slow: try again in two seconds. What is a HubError already stays as it is. */
export function unavailable(cause: unknown): HubError {
  if (cause instanceof HubError) return cause;
  return new HubError('UNAVAILABLE', 'STORE_UNAVAILABLE', 'The file store is not available at the moment', {
    retryAfter: 2,
    cause,
  });
}

/** Seconds: the operator of the store has to do something first. */
const refusedPause = 30;

/**
 * The store is there and doesn't do what was asked for: it refuses, or gives an answer that is none of an S3's. What is a HubError already
 * stays as it is.
 *
 * @param message for people, where more than the log should say what to do
 */
export function refused(
  cause: unknown,
  message = 'The file store does not do what the file service asks for: its log says why',
): HubError {
  if (cause instanceof HubError) return cause;
  return new Answered('UNAVAILABLE', 'STORE_UNAVAILABLE', message, { retryAfter: refusedPause, cause });
}

/** Like `unavailable`, for a request that never left this process: it failed before or while the connection was made. */
export function unsent(cause: unknown): NotTried {
  const { kind, reason, message, retryAfter, cause: why } = unavailable(cause);
  return new NotTried(kind, reason, message, { retryAfter, cause: why });
}

/** There is no such upload, or not any more. */
export function uploadClosed(): HubError {
  return new HubError('ABORTED', 'UPLOAD_CLOSED', 'The upload takes no parts any more');
}

export function contentMissing(): HubError {
  return new HubError('NOT_FOUND', 'CONTENT_MISSING', 'The content of the file is not there');
}

/** Keys become file names and paths of URLs. @throws TypeError for one that the port doesn't allow: a bug of the caller */
export function checkKey(key: string): void {
  if (!/^[A-Za-z0-9-]{1,64}$/.test(key)) throw new TypeError(`${JSON.stringify(key)} is no key`);
}

/** A part that the store had listed a moment ago is not there: once it is looked for again, it counts as missing. */
export function partMissing(key: string, number: number): HubError {
  return new Answered('UNAVAILABLE', 'STORE_UNAVAILABLE', `Part ${number} of ${key} is not there`, { retryAfter: 2 });
}
