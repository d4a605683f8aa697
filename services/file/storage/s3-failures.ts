import { S3Error } from 'minio';
import { HubError } from '#lib/errors.ts';
import { refused, unavailable } from './failures.ts';
import { Refusal } from './transfer.ts';

/** Error codes of failures that are expected to pass. MinIO's own begin with XMinio: full, not ready, too few disks. */
const transientCodes =
  /^(XMinio.*|SlowDown.*|ServiceUnavailable|InternalError|RequestTimeout|TooManyRequests|OperationAborted|NoSuchBucket)$/;

/** The S3 error code of an answer; empty if there is none. */
export function codeOf(error: unknown): string {
  return error instanceof S3Error || error instanceof Refusal ? (error.code ?? '') : '';
}

/** Runs `work`, and throws what its failure means for the caller. */
export async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw meaning(error);
  }
}

/** What a failure of the store means for the caller: UNAVAILABLE `STORE_UNAVAILABLE`, unless it is a HubError already. */
export function meaning(error: unknown): HubError {
  if (error instanceof HubError) return error;
  if (error instanceof S3Error || error instanceof Refusal) {
    const code = codeOf(error);
    if (transientCodes.test(code) || (error instanceof Refusal && error.status >= 500)) return unavailable(error);
    // Only its text: the rest of S3's error answer repeats the string that was signed.
    return refused(new Error(`The S3 store refused a request: ${code} ${error.message}`.trimEnd()));
  }
  // A network error, or our own timeout.
  if (error instanceof Error && ('code' in error || error.name === 'TimeoutError')) return unavailable(error);
  // Neither minio's client nor our own reader could read the answer.
  return refused(
    new Error(`The S3 store's answer can't be read: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    }),
  );
}
