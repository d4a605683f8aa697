/*
 * The URLs that backends name for bodies, such as those of an object store: where to put or to get a body directly.
 */

/** How long a connection to such a place may take. */
export const connectTimeoutMs = 1_000;
/** How long its first answer may take: `100 Continue`, or the head of a download. */
export const askTimeoutMs = 5_000;
/** How long an origin is avoided that could not be reached. */
const avoidMs = 30_000;

/** Until when an origin is avoided, in milliseconds since the start of the process. */
const unreachable = new Map<string, number>();

/** Where a body is put to or read from. */
export interface Place {
  url: URL;
  protocol: 'http:' | 'https:';
}

/** Where a URL leads; undefined if it is no URL of HTTP, or if its origin is avoided. */
export function placeOf(location: string): Place | undefined {
  const url = URL.canParse(location) ? new URL(location) : undefined;
  const protocol = url?.protocol;
  if (url === undefined || (protocol !== 'http:' && protocol !== 'https:') || isAvoided(url.origin)) return undefined;
  return { url, protocol };
}

/** Avoids the origin of a URL for a while. */
export function avoid({ url }: Place): void {
  unreachable.set(url.origin, performance.now() + avoidMs);
}

export function isAvoided(origin: string): boolean {
  const until = unreachable.get(origin);
  if (until === undefined) return false;
  if (performance.now() < until) return true;
  unreachable.delete(origin);
  return false;
}
