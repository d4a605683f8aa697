import { validateHeaderValue, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http';
import { create as contentDisposition } from 'content-disposition';
import type { HeaderField } from '../rules/stream-bindings.ts';
import { judge } from '../http/preconditions.ts';
import type { Json } from '../json/scalars.ts';

/** How the answer to a download begins. */
export interface DownloadHead {
  status: number;
  headers: OutgoingHttpHeaders;
  /** Bytes of the body; undefined if it isn't known. */
  length: number | undefined;
}

/**
 * The status and the headers that a backend's first message makes.
 *
 * @param success the HTTP status of a success
 * @param fields the fields of that message
 * @param method of the request
 * @param asked its headers
 * @throws Problem 412
 */
export function downloadHead(
  success: number,
  responseHeaders: readonly HeaderField[],
  fields: Readonly<Record<string, Json>>,
  method: string,
  asked: IncomingHttpHeaders,
): DownloadHead {
  const headers: OutgoingHttpHeaders = {
    'content-type': 'application/octet-stream',
    // It is for those who may have it, and they ask each time.
    'cache-control': 'private, no-cache',
  };
  for (const { header, field } of responseHeaders) {
    const text = textOf(fields[field.name], field.implicit);
    const value = text === undefined ? undefined : headerValue(header, text);
    if (value !== undefined) headers[header] = value;
  }
  const { etag, 'content-range': range, 'content-length': length } = headers;
  const tags = typeof etag === 'string' ? { opaque: [etag.slice(1, -1)], isWeak: false } : undefined;
  if (judge(method, asked, tags)) {
    return { status: 304, headers: { etag, 'cache-control': headers['cache-control'] }, length: 0 };
  }
  return {
    status: range === undefined ? success : 206,
    headers,
    length: length === undefined ? undefined : Number(length),
  };
}

/** What a field says; undefined if it is empty. */
function textOf(json: Json, hasNoPresence: boolean): string | undefined {
  if (json === null || json === undefined || json === '') return undefined;
  if (hasNoPresence && (json === 0 || json === false)) return undefined;
  return typeof json === 'string' ? json : JSON.stringify(json);
}

const mediaTypePattern = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+( *; *[\x20-\x7e]*)?$/;

/** The value of a header; undefined if none can be made of the text. */
function headerValue(header: string, text: string): string | undefined {
  switch (header) {
    case 'content-disposition':
      return contentDisposition(safeFilename(text));
    case 'content-type':
      return mediaTypePattern.test(text) ? text : undefined;
    case 'content-length':
      return /^\d{1,15}$/.test(text) ? text : undefined;
    case 'etag':
      return /^[\x21\x23-\x7e]+$/.test(text) ? `"${text}"` : undefined;
    default:
      try {
        validateHeaderValue(header, text);
        return text;
      } catch {
        return undefined;
      }
  }
}

/** The last segment of a name that may look like a path, without characters that have no place in one. */
export function safeFilename(name: string): string {
  const last = name
    .toWellFormed()
    .split(/[/\\]/)
    .map((segment) => segment.replace(unsafe, '').trim())
    .findLast((segment) => segment !== '');
  // These are folders wherever they are saved.
  return last === undefined || /^\.{1,2}$/.test(last) ? 'download' : last;
}

/** Control characters, and those that make a text read in another order than it is written. */
const unsafe = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu;
