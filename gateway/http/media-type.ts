import type { IncomingMessage } from 'node:http';

/** Whether a body is a form. */
export function isForm({ headers }: IncomingMessage): boolean {
  return mediaType(headers['content-type']) === 'application/x-www-form-urlencoded';
}

/** Whether a content type is JSON, of whatever charset. */
export function isJson(contentType: string | undefined): boolean {
  return /^application\/([\w.-]+\+)?json$/.test(mediaType(contentType));
}

/** A content type in lower case, without its parameters. */
export function mediaType(contentType: string | undefined): string {
  return contentType?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

/** Whether a client that accepts this wants server-sent events. */
export function acceptsEvents(accept: string | undefined): boolean {
  return accept !== undefined && /\btext\/event-stream\b/i.test(accept);
}
