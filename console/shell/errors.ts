import { ConnectionError, RefusedError } from '#client';

/** What to tell somebody of a failed call. The hub's own words say what was wrong; what hides behind them is for its operator. */
export function wordsFor(error: unknown): string {
  if (error instanceof RefusedError) {
    if (error.code === 'RATE_LIMITED' || error.status === 429) {
      const wait = error.retryAfter === undefined ? 'a moment' : `${Math.ceil(error.retryAfter)} s`;
      return `That was too often. Try again in ${wait}.`;
    }
    if (error.details.length > 0) {
      return error.details.map(({ field, message }) => `${field}: ${message}`).join('. ');
    }
    // Behind the sentence stands its code, for programs.
    const sentence = error.message.replace(/ \(\d+ \w+\)$/, '');
    return sentence.endsWith('.') ? sentence : `${sentence}.`;
  }
  if (error instanceof ConnectionError) return 'The hub can’t be reached. Check the connection, then try again.';
  if (error instanceof DOMException && error.name === 'TimeoutError') return 'The hub took too long. Try again.';
  if (error instanceof Error && error.name === 'LoggedOutError') return 'Your login has ended. Log in again.';
  return 'Something went wrong here. Reload the page and try again.';
}

/** Of each field that a refusal names, what is wrong with it. */
export function fieldErrors(error: unknown): Readonly<Record<string, string>> {
  if (!(error instanceof RefusedError)) return {};
  return Object.fromEntries(error.details.map(({ field, message }) => [field, message]));
}
