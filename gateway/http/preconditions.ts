import type { IncomingHttpHeaders } from 'node:http';
import { Problem } from './problem.ts';

/** The entity tags that something has at the moment: one for each of its content codings (RFC 9110, 8.8.3). */
export interface EntityTags {
  /** What stands between the quotes. */
  opaque: readonly string[];
  /** Whether they are weak: what has the same one is not the same to the last byte. */
  isWeak: boolean;
}

/** Whether the request has conditions that are about an entity tag. */
export function hasPreconditions({ 'if-match': ifMatch, 'if-none-match': ifNoneMatch }: IncomingHttpHeaders): boolean {
  return ifMatch !== undefined || ifNoneMatch !== undefined;
}

/**
 * Judges the conditions of a request in the order of RFC 9110, 13.2.2. Those about times are ignored, as nothing here tells when it was
 * last modified (13.1.3, 13.1.4).
 *
 * @param tags of what is there; undefined if it has none
 * @returns whether a client that asks for it has it already: it is answered with 304
 * @throws Problem 412
 */
export function judge(method: string, headers: IncomingHttpHeaders, tags: EntityTags | undefined): boolean {
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = headers;
  // Weak ones never match here (8.8.3.2).
  if (ifMatch !== undefined && !names(ifMatch, tags, true)) throw failed('If-Match does not name what is there now');
  if (ifNoneMatch === undefined || !names(ifNoneMatch, tags, false)) return false;
  if (method === 'GET' || method === 'HEAD') return true;
  throw failed('If-None-Match names what is there now');
}

function failed(detail: string): Problem {
  return new Problem(412, 'PRECONDITION_FAILED', detail);
}

function names(header: string, tags: EntityTags | undefined, isStrong: boolean): boolean {
  if (header.trim() === '*') return true;
  if (tags === undefined || (isStrong && tags.isWeak)) return false;
  for (const [, weak, opaque] of header.matchAll(/(W\/)?"([^"]*)"/g)) {
    if (tags.opaque.includes(opaque as string) && !(isStrong && weak !== undefined)) return true;
  }
  return false;
}
