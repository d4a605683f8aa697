import type { IncomingMessage, ServerResponse } from 'node:http';

/** Which web pages may read the answers (Fetch standard, CORS): by their origins, all of them (`*`), or none. */
export interface Cors {
  /** Sets the headers that say which pages may read an answer. */
  mark(request: IncomingMessage, response: ServerResponse): void;
  /** The headers that answer a preflight request; undefined if it is none, or if the page's origin is not allowed. */
  preflight(request: IncomingMessage, methods: readonly string[]): Record<string, string> | undefined;
}

/** Response headers that pages may read beyond the safelisted ones (Access-Control-Expose-Headers). */
const exposed = [
  'Accept-Ranges',
  'Allow',
  'Content-Disposition',
  'Content-Range',
  'ETag',
  'Mcp-Protocol-Version',
  'Mcp-Session-Id',
  'RateLimit',
  'RateLimit-Policy',
  'Retry-After',
  'WWW-Authenticate',
  'X-Request-ID',
  'X-Should-Retry',
].join(', ');
/** Seconds for which browsers may cache a preflight: the most that they accept. */
const maxAge = '7200';

/**
 * @param origins as browsers write them (`https://app.example`), or `*`. A token in a header is no credential in the sense of
 *   CORS, and others, such as cookies, are not asked for: a page only has what its user gave it.
 */
export function corsOf(origins: readonly string[]): Cors {
  if (origins.length === 0) return { mark() {}, preflight: () => undefined };
  const isOpen = origins.includes('*');
  const known = new Set(origins);
  const allowed = ({ headers: { origin } }: IncomingMessage) =>
    origin !== undefined && (isOpen || known.has(origin)) ? (isOpen ? '*' : origin) : undefined;
  return {
    mark(request, response) {
      if (!isOpen) response.setHeader('Vary', 'Origin');
      const origin = allowed(request);
      if (origin === undefined) return;
      response.setHeader('Access-Control-Allow-Origin', origin);
      response.setHeader('Access-Control-Expose-Headers', exposed);
    },
    preflight(request, methods) {
      const { 'access-control-request-method': method, 'access-control-request-headers': asked } = request.headers;
      if (request.method !== 'OPTIONS' || method === undefined || allowed(request) === undefined) return undefined;
      return {
        'Access-Control-Allow-Methods': methods.join(', '),
        ...(asked === undefined ? {} : { 'Access-Control-Allow-Headers': asked }),
        'Access-Control-Max-Age': maxAge,
        Vary: [isOpen ? '' : 'Origin, ', 'Access-Control-Request-Method, Access-Control-Request-Headers'].join(''),
      };
    },
  };
}
