import { refuseCompressed } from '../../http/request-body.ts';
import { isJson, mediaType } from '../../http/media-type.ts';
import { Problem } from '../../http/problem.ts';
import type { BodyReader } from '../dialect.ts';
import { parseJson, requireObject } from '../json-body.ts';
import { httpBody, type Binding } from '../../rules/bindings.ts';

/** Reads bodies as the hub's API has it: of JSON, in UTF-8, uncompressed; a google.api.HttpBody of any type. */
export const hubBodies: BodyReader = {
  check: refuseCompressed,
  json(body, contentType, binding) {
    if (isHttpBody(binding)) {
      const data = body.toString('base64');
      return { value: { content_type: contentType ?? 'application/octet-stream', data } };
    }
    if (body.length === 0) return undefined;
    requireJson(contentType);
    const { value } = parseJson(body);
    requireObject(value, binding);
    return { value };
  },
  streamedValue: (value) => parseJson(value).value,
  isQuery: () => false,
};

/** Whether a body is taken as it is, whatever its type. */
function isHttpBody({ body, input }: Binding): boolean {
  if (body === 'all') return input.typeName === httpBody;
  return typeof body === 'object' && body.value.kind === 'message' && body.value.message.typeName === httpBody;
}

/** @throws Problem 415 if a content type is not JSON in UTF-8 */
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
