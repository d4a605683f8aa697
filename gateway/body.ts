import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Problem } from './problem.ts';

/**
 * Reads a request's body whole.
 *
 * @throws Problem 413 if it has more than `limit` bytes; the rest of it is then not waited for
 * @throws Problem 415 if it is compressed
 */
export async function readBody(request: IncomingMessage, response: ServerResponse, limit: number): Promise<Buffer> {
  const tooLarge = () => new Problem(413, 'PAYLOAD_TOO_LARGE', `The body must not have more than ${limit} bytes`);
  const { 'content-length': length, 'content-encoding': encoding, expect } = request.headers;
  if (length === undefined && request.headers['transfer-encoding'] === undefined) return Buffer.alloc(0);
  if (Number(length) > limit) throw tooLarge();
  if (encoding !== undefined && encoding.toLowerCase() !== 'identity') {
    throw new Problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'The body must not be compressed', {
      headers: { 'Accept-Encoding': 'identity' },
    });
  }
  if (expect !== undefined) response.writeContinue();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const stop = () => request.off('data', onData).off('end', onEnd).off('close', onClose);
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      if (size <= limit) {
        chunks.push(chunk);
        return;
      }
      stop();
      reject(tooLarge());
    };
    const onEnd = () => {
      stop();
      resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size));
    };
    const onClose = () => reject(new Problem(400, 'INCOMPLETE_BODY', 'The body ended before its time'));
    request.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}

/**
 * The JSON of a body. Whole numbers that a double can't hold are bigints.
 *
 * @throws Problem 415 if the content type is not JSON in UTF-8, 400 `MALFORMED_JSON` if the body is not JSON
 */
export function parseJson(body: Buffer, contentType: string | undefined): unknown {
  requireJson(contentType);
  if (!isUtf8(body)) throw new Problem(400, 'MALFORMED_JSON', 'The body is not valid UTF-8');
  const text = body.toString();
  try {
    // Only a long run of digits can be a number that JSON.parse would round.
    return /\d{16}/.test(text) ? JSON.parse(text, keepLongNumbers) : JSON.parse(text);
  } catch (error) {
    if (error instanceof RangeError) throw new Problem(400, 'MALFORMED_JSON', 'The body is nested too deeply');
    throw new Problem(400, 'MALFORMED_JSON', `The body is not valid JSON${place(error)}`);
  }
}

function keepLongNumbers(_key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  const { source = '' } = context ?? {};
  // No field holds a longer one.
  return /^-?\d{1,40}$/.test(source) ? BigInt(source) : value;
}

/** Where the JSON breaks off; never a part of it, since it may hold a password. */
function place(error: unknown): string {
  const [, at] = /at position (\d+)/.exec(String(error)) ?? [];
  return at === undefined ? '' : ` at position ${at}`;
}

function requireJson(contentType: string | undefined): void {
  if (contentType === undefined || contentType === 'application/json') return;
  const [type = '', ...parameters] = contentType
    .toLowerCase()
    .split(';')
    .map((part) => part.trim());
  const fail = (detail: string) =>
    new Problem(415, 'UNSUPPORTED_MEDIA_TYPE', detail, { headers: { Accept: 'application/json' } });
  if (!/^application\/([\w.-]+\+)?json$/.test(type)) {
    throw fail(`Send JSON, with the header Content-Type: application/json; this is ${type || 'of no type'}`);
  }
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))?.slice('charset='.length);
  if (charset !== undefined && !/^"?utf-?8"?$/.test(charset)) throw fail('Send JSON in UTF-8');
}
