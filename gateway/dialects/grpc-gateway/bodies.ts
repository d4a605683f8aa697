import { isForm } from '../../http/media-type.ts';
import { Problem } from '../../http/problem.ts';
import { beginsWithBracket, firstValue, membersIn } from '../../json/json-values.ts';
import type { BodyReader } from '../dialect.ts';
import { parseJson, requireObject } from '../json-body.ts';

/** Reads bodies as grpc-gateway does: whatever its type, the first value in it, in which no member is there twice. */
export const grpcGatewayBodies: BodyReader = {
  check() {},
  json(body, _contentType, binding) {
    // Most bodies are an object, which need not be gone over twice to find its end.
    const json = beginsWithBracket(body) ? body : firstValue(body);
    if (json === undefined || json.length === 0) return undefined;
    const value = parseOnce(json);
    requireObject(value, binding);
    return { value };
  },
  streamedValue: parseOnce,
  isQuery: (request) => isForm(request) && /^(POST|PUT|PATCH)$/.test(String(request.method)),
};

function parseOnce(json: Buffer): unknown {
  const { value, members } = parseJson(json, false);
  // JSON.parse keeps the last member of those that have the same name.
  if (membersIn(value) === members) return value;
  throw new Problem(400, 'MALFORMED_JSON', 'The body has an object in which a member is given twice');
}
