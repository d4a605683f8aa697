import type { ServerResponse } from 'node:http';
import type { Caller } from './callers.ts';

/** The id of the request that is being answered: its answer carries it from the start. */
export function requestIdIn(response: ServerResponse): string | undefined {
  return response.getHeader('X-Request-ID') as string | undefined;
}

/** What is noted about a request on its way, for its line in the log. */
export interface RequestDetails {
  /** The template of its route. */
  route?: string;
  /** The id of the user, if the backend found one to be calling. */
  user?: string;
  /** For whom it counts. */
  caller?: Caller;
  /** Refused since there is too much to do: then the log is spared it, too. */
  isRefused?: boolean;
}

/** Notes who is calling, as a backend of the hub says in its trailers. Others say nothing of it. */
export function recordCaller(response: ServerResponse & { locals?: RequestDetails }, caller: unknown): void {
  if (typeof caller === 'string' && response.locals !== undefined) response.locals.user = caller;
}
