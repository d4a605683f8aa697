import { HubError, TimedOut } from './errors.ts';

/** SQLSTATE classes and codes after which the same statement may work a little later (PostgreSQL, appendix A). */
const transientStates = /^(08...|53...|57P..|57014|55P03|40001|40P01|25P03)$/;
const transientErrnos = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
]);
const transientMessages =
  /Connection terminated|connection timeout|timeout expired|timeout exceeded|Query read timeout|not queryable/i;

/** The reason of the HubError for a database that is unavailable. */
export const awayReason = 'DATABASE_UNAVAILABLE';

/** @throws HubError UNAVAILABLE if PostgreSQL is unavailable, restarting or too busy; else what `work` throws */
export async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw isAway(error) ? unavailable(error) : error;
  }
}

/** Whether an error of pg says that PostgreSQL is unavailable, restarting or too busy. */
export function isAway(error: unknown): boolean {
  if (!(error instanceof Error) || error instanceof HubError) return false;
  const code = (error as { code?: unknown }).code;
  if (typeof code === 'string') return transientStates.test(code) || transientErrnos.has(code);
  return transientMessages.test(error.message);
}

/** SQLSTATE query_canceled: the statement ran into its `statement_timeout`. */
const endedAtLimit = '57014';

export function unavailable(cause: unknown): HubError {
  const Kind = (cause as { code?: unknown }).code === endedAtLimit ? TimedOut : HubError;
  return new Kind('UNAVAILABLE', awayReason, 'The database is not available at the moment', { retryAfter: 1, cause });
}
