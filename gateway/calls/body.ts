import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { RateFloor, type RateFloorOptions } from '#lib/rate-floor.ts';
import type { Admission } from '../http/admission.ts';
import type { Binding } from '../rules/bindings.ts';
import { httpBody } from './http-body.ts';
import { firstValue, membersIn, mostValues, outlineOf } from '../json/json-values.ts';
import { Problem } from '../http/problem.ts';
import { isOwnForm } from '../json/request-json.ts';
import { askForBody } from '../http/lingering-close.ts';

/**
 * Reads a request's body whole.
 *
 * @throws Problem 413 if it has more bytes than it may, 408 if it comes too slowly, 429 or 503 if there is no place for it; the
 *   rest of it is then not waited for
 */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  { bodyLimit: limit, bodyTimeout, floor, admission }: BodyLimits,
): Promise<Buffer> {
  const tooLarge = () => new Problem(413, 'PAYLOAD_TOO_LARGE', `The body must not have more than ${limit} bytes`);
  const { 'content-length': length } = request.headers;
  if (length === undefined && request.headers['transfer-encoding'] === undefined) return Buffer.alloc(0);
  if (Number(length) > limit) throw tooLarge();
  askForBody(response);
  // Most bodies come in one packet with the head of their request, and are there as soon as that has been read.
  await new Promise((resolve) => process.nextTick(resolve));
  if (request.complete) {
    if (request.readableLength > limit) throw tooLarge();
    return (request.read() as Buffer | null) ?? Buffer.alloc(0);
  }
  if (request.destroyed) throw incomplete();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    let place: ReturnType<Admission['body']> | undefined;
    const stop = () => {
      clearTimeout(timer);
      pace.stop();
      place?.end();
      request.off('data', onData).off('end', onEnd).off('close', onClose);
    };
    const fail = (problem: Problem) => {
      stop();
      reject(problem);
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      pace.count(chunk.length);
      if (size > limit) return fail(tooLarge());
      chunks.push(chunk);
      tryTo(() => place?.grow(size));
    };
    const tryTo = (take: () => void) => {
      try {
        take();
      } catch (error) {
        fail(error as Problem);
      }
    };
    const onEnd = () => {
      stop();
      resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks, size));
    };
    const onClose = () => fail(incomplete());
    const timer = setTimeout(() => fail(tooSlow()), bodyTimeout);
    const pace = new RateFloor(floor, () => fail(tooSlow()));
    request.on('data', onData).on('end', onEnd).on('close', onClose);
    tryTo(() => (place = admission.body(request, response)));
  });
}

/** @throws Problem 415 if the body of a request is compressed */
export function refuseCompressed({ headers }: IncomingMessage): void {
  const encoding = headers['content-encoding'];
  if (encoding === undefined || encoding.toLowerCase() === 'identity') return;
  throw new Problem(415, 'UNSUPPORTED_MEDIA_TYPE', 'The body must not be compressed', {
    headers: { 'Accept-Encoding': 'identity' },
  });
}

/** The body doesn't come, or not as fast as it must. */
export function tooSlow(): Problem {
  return new Problem(408, 'REQUEST_TIMEOUT', 'The request took too long to arrive', {
    headers: { Connection: 'close' },
  });
}

/** The client has gone before the end of the body. */
export function incomplete(): Problem {
  return new Problem(400, 'INCOMPLETE_BODY', 'The body ended before its time');
}

/** What a body with JSON may be. */
export interface BodyLimits {
  /** Bytes that it may have. */
  bodyLimit: number;
  /** Milliseconds in which it has to arrive. */
  bodyTimeout: number;
  /** Whether it is read as grpc-gateway does: whatever its type, the first value in it, in which no member is there twice. */
  isStrict: boolean;
  /** How fast it has to come. */
  floor: RateFloorOptions;
  admission: Admission;
}

/** The JSON in a request's body; undefined if it has none, or if the RPC takes none. */
export async function readJson(
  request: IncomingMessage,
  response: ServerResponse,
  options: BodyLimits & { binding: Binding },
): Promise<{ value: unknown } | undefined> {
  const { binding, isStrict } = options;
  if (binding.body === 'none') return undefined;
  if (!isStrict) refuseCompressed(request);
  const body = await readBody(request, response, options);
  const contentType = request.headers['content-type'];
  if (!isStrict && isHttpBody(binding)) {
    const data = body.toString('base64');
    return { value: { content_type: contentType ?? 'application/octet-stream', data } };
  }
  const json = isStrict ? firstValue(body) : body;
  if (json === undefined || json.length === 0) return undefined;
  const value = parseJson(json, contentType, isStrict);
  if (binding.body === 'all' && isOwnForm(binding.input) && !isObject(value)) {
    throw new Problem(400, 'MALFORMED_JSON', 'The body must be a JSON object');
  }
  return { value };
}

/** Whether a body is a form. */
export function isForm({ headers }: IncomingMessage): boolean {
  return mediaType(headers['content-type']) === 'application/x-www-form-urlencoded';
}

/** The query of a request that takes no JSON; where a form counts as a part of it, with that. */
export async function readQuery(
  request: IncomingMessage,
  response: ServerResponse,
  query: string,
  options: BodyLimits & { binding: Binding },
): Promise<string> {
  const { binding, isStrict } = options;
  if (!isStrict || binding.body !== 'none' || !isForm(request) || !/^(POST|PUT|PATCH)$/.test(String(request.method))) {
    return query;
  }
  const form = await readBody(request, response, options);
  return [form.toString(), query].filter((part) => part !== '').join('&');
}

/** Whether a body is taken as it is, whatever its type. */
function isHttpBody({ body, input }: Binding): boolean {
  if (body === 'all') return input.typeName === httpBody;
  return typeof body === 'object' && body.value.kind === 'message' && body.value.message.typeName === httpBody;
}

function isObject(json: unknown): boolean {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

/** How deep JSON may nest: as deep as Go's encoding/json lets it. What is made of it has limits of its own. */
const deepest = 10_000;
/**
 * The JSON of a body. Whole numbers that a double can't hold are bigints.
 *
 * @throws Problem 415 if the content type is not JSON in UTF-8, 400 `MALFORMED_JSON` if the body is not JSON, 413 if it holds too
 *   many values
 */
export function parseJson(body: Buffer, contentType: string | undefined, isStrict = false): unknown {
  if (!isStrict) requireJson(contentType);
  if (!isUtf8(body)) throw new Problem(400, 'MALFORMED_JSON', 'The body is not valid UTF-8');
  const { depth, members, values, hasLongNumber } = outlineOf(body);
  if (depth > deepest) throw new Problem(400, 'MALFORMED_JSON', nestedTooDeeply);
  if (values > mostValues) {
    throw new Problem(413, 'PAYLOAD_TOO_LARGE', `The body must not hold more than ${mostValues} values`);
  }
  const value = parsed(body.toString(), hasLongNumber);
  // JSON.parse keeps the last member of those that have the same name.
  if (isStrict && membersIn(value) !== members) {
    throw new Problem(400, 'MALFORMED_JSON', 'The body has an object in which a member is given twice');
  }
  return value;
}

const nestedTooDeeply = 'The body is nested too deeply';

function parsed(text: string, hasLongNumber: boolean): unknown {
  try {
    return hasLongNumber ? JSON.parse(text, keepLongNumbers) : JSON.parse(text);
  } catch (error) {
    // With a function beside it, it goes down by calling itself.
    if (error instanceof RangeError) throw new Problem(400, 'MALFORMED_JSON', nestedTooDeeply);
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

/** Whether a content type is JSON, of whatever charset. */
export function isJson(contentType: string | undefined): boolean {
  return /^application\/([\w.-]+\+)?json$/.test(mediaType(contentType));
}

/** A content type in lower case, without its parameters. */
export function mediaType(contentType: string | undefined): string {
  return contentType?.split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

function requireJson(contentType: string | undefined): void {
  if (contentType === undefined || contentType === 'application/json') return;
  const fail = (detail: string) =>
    new Problem(415, 'UNSUPPORTED_MEDIA_TYPE', detail, { headers: { Accept: 'application/json' } });
  if (!isJson(contentType)) {
    const type = mediaType(contentType) || 'of no type';
    throw fail(`Send JSON, with the header Content-Type: application/json; this is ${type}`);
  }
  const parameters = contentType.toLowerCase().split(';').slice(1);
  const charset = parameters.map((parameter) => parameter.trim()).find((parameter) => parameter.startsWith('charset='));
  if (charset !== undefined && !/^charset="?utf-?8"?$/.test(charset)) throw fail('Send JSON in UTF-8');
}
