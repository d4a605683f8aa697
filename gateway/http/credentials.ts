import type { IncomingHttpHeaders } from 'node:http';

/** What a request shows of who makes it: one of the two at most. */
export interface Credentials {
  /** The Authorization header as it is. */
  authorization?: string | undefined;
  apiKey?: string | undefined;
}

/**
 * The credential of a request that counts: a bearer token beats an API key, and the key beats an Authorization of another kind,
 * which may be for a proxy in between.
 */
export function credentialsOf({ authorization, 'x-api-key': apiKey }: IncomingHttpHeaders): Credentials {
  if (apiKey === undefined || (authorization !== undefined && /^bearer\b/i.test(authorization)))
    return { authorization };
  // Node joins what comes several times.
  return { apiKey: String(apiKey) };
}
