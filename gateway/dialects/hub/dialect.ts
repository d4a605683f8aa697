import type { Registry } from '@bufbuild/protobuf';
import { problemJson } from '../../http/problem.ts';
import { requestIdIn } from '../../http/request-details.ts';
import type { JsonForm } from '../../json/response-json.ts';
import type { AnswerForm, Dialect } from '../dialect.ts';
import { hubBodies } from './bodies.ts';
import { problemOf } from './errors.ts';
import { headersOf, metadataOf, timeoutOf } from './metadata.ts';
import { HubTranscoder } from './transcoder.ts';

export const hubJsonForm: JsonForm = {
  fieldNames: 'name',
  enumNames: 'short',
  longs: 'number',
  unset: 'null',
  unsetOptional: 'null',
};

const answers: AnswerForm = {
  hasEntityTags: true,
  bodyType: (_binding, type) => type,
  streamedBody: (data) => data,
  emptyStreamType: (type) => type,
  tellsErrorsBehindBodies: false,
  problemForm: problemJson,
};

/** As the API of the hub is. */
export function hubDialect(registry: Registry): Dialect {
  return {
    json: hubJsonForm,
    transcoder: new HubTranscoder(registry, hubJsonForm),
    bodies: hubBodies,
    answers,
    metadataOf: (request, response) => metadataOf(request, requestIdIn(response) as string),
    timeoutOf,
    headersOf,
    problemOf,
  };
}
