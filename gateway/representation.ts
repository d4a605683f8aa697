import { hash } from 'node:crypto';
import type { OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { sendWhole } from './unread.ts';

const compress = promisify(gzip);
/** Bytes from which on compression pays: fewer fit into a packet or two anyway. */
const worthCompressing = 2_048;
/** On the text of lists it wins as much as any, for half of the time. */
const level = 3;

/** Whether the request wants what it may have already: such an answer says how to ask for it again. */
export function isLookup({ req: { method } }: ServerResponse): boolean {
  return method === 'GET' || method === 'HEAD';
}

const text = /^(text\/|application\/(json|openapi\+json)\b)/;

/**
 * Answers a GET or HEAD with what was asked for, JSON by default: only with an entity tag if the client has it already, and
 * compressed if it is a long text and the client understands gzip. Whether the caller may have it was asked before.
 *
 * Compression tells who can watch the length of many answers about what is in them next to a text of his own choosing (BREACH).
 * For that he must make the victim's browser send the requests; without cookies it doesn't, since the token is no part of them.
 */
export async function answerLookup(
  response: ServerResponse,
  content: string | Uint8Array,
  headers: OutgoingHttpHeaders = {},
): Promise<void> {
  const { req: request } = response;
  const etag = `W/"${hash('sha1', content, 'base64url')}"`;
  headers['ETag'] = etag;
  // It is for those who may have it, and they ask each time.
  headers['Cache-Control'] ??= 'private, no-cache';
  const type = (headers['Content-Type'] as string | undefined) ?? 'application/json';
  const length = Buffer.byteLength(content);
  const isLong = length >= worthCompressing && text.test(type);
  if (isLong) response.appendHeader('Vary', 'Accept-Encoding');
  if (isKnown(etag, request.headers['if-none-match'])) {
    delete headers['Content-Type'];
    if (!response.headersSent && !response.destroyed) sendWhole(response, 304, headers);
    return;
  }
  headers['Content-Type'] = type;
  let body: string | Uint8Array | undefined = content;
  if (isLong && takesGzip(request.headers['accept-encoding'])) {
    headers['Content-Encoding'] = 'gzip';
    // How long it would be is not worth finding out for its own sake.
    body = request.method === 'HEAD' ? undefined : await compress(content, { level });
    if (body !== undefined) headers['Content-Length'] = body.length;
  } else {
    headers['Content-Length'] = length;
  }
  if (!response.headersSent && !response.destroyed) sendWhole(response, 200, headers, body);
}

/** Whether If-None-Match names this entity tag; it is compared weakly (RFC 9110, 13.1.2). */
export function isKnown(etag: string, ifNoneMatch: string | undefined): boolean {
  if (ifNoneMatch === undefined) return false;
  const opaque = etag.replace(/^W\//, '');
  return ifNoneMatch.trim() === '*' || (ifNoneMatch.match(/"[^"]*"/g)?.includes(opaque) ?? false);
}

/** Whether Accept-Encoding names gzip, by itself or as `*`, and not to refuse it (RFC 9110, 12.5.3). */
function takesGzip(accepted: string | undefined): boolean {
  if (accepted === undefined) return false;
  let any = false;
  for (const entry of accepted.toLowerCase().split(',')) {
    const [coding = '', ...parameters] = entry.split(';').map((part) => part.trim());
    const isWanted = !parameters.some((parameter) => /^q *= *0(\.0*)?$/.test(parameter));
    if (coding === 'gzip' || coding === 'x-gzip') return isWanted;
    if (coding === '*') any = isWanted;
  }
  return any;
}
