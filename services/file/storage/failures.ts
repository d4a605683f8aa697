import { NotTried } from '#lib/breaker.ts';
import { HubError } from '#lib/errors.ts';

/** The store is away, full or too slow: try again in two seconds. What is a HubError already stays as it is. */
export function unavailable(cause: unknown): HubError {
  if (cause instanceof HubError) return cause;
  return new HubError('UNAVAILABLE', 'STORE_UNAVAILABLE', 'The file store is not available at the moment', {
    retryAfter: 2,
    cause,
  });
}

/** The same of what never left this process: there was no connection yet, or it failed in what comes before. */
export function unsent(cause: unknown): NotTried {
  const { kind, reason, message, retryAfter } = unavailable(cause);
  return new NotTried(kind, reason, message, { retryAfter, cause });
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

/** A part that the caller had said is there is not. */
export function partMissing(key: string, number: number): Error {
  return new Error(`Part ${number} of ${key} is not there`);
}
