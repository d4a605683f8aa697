import type { Registry } from '@bufbuild/protobuf';
import { ResponseJson, type JsonForm } from '../../json/response-json.ts';
import type { AnswerForm, Dialect } from '../dialect.ts';
import { grpcGatewayBodies } from './bodies.ts';
import { grpcGatewayProblem, problemOf } from './errors.ts';
import { headersOf, metadataOf, timeoutOf } from './metadata.ts';
import { GrpcGatewayTranscoder } from './transcoder.ts';

const lineEnd = Buffer.from('\n');

const answers: AnswerForm = {
  hasEntityTags: false,
  bodyType: ({ responseBody }, type) => (responseBody === undefined ? type : 'application/json'),
  streamedBody: (data) => Buffer.concat([data, lineEnd]),
  emptyStreamType: () => undefined,
  tellsErrorsBehindBodies: true,
  problemForm: grpcGatewayProblem,
};

/**
 * As grpc-gateway's runtime does by default, save for the body of errors: those are problems (RFC 9457), which hold the
 * members of its errors, too.
 */
export function grpcGatewayDialect(registry: Registry, enumNames: 'short' | 'proto'): Dialect {
  const json: JsonForm = {
    fieldNames: 'jsonName',
    enumNames,
    longs: 'text',
    unset: 'null',
    unsetOptional: 'left out',
  };
  const responses = new ResponseJson(registry, json);
  return {
    json,
    transcoder: new GrpcGatewayTranscoder(registry, json),
    bodies: grpcGatewayBodies,
    answers,
    metadataOf,
    timeoutOf,
    headersOf,
    problemOf: (error) => problemOf(error, responses),
  };
}
