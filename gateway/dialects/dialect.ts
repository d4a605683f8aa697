import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { ServiceError } from '@grpc/grpc-js';
import { headersOf, metadataOf, requestIdIn, timeoutOf } from '../http/headers.ts';
import type { CallMetadata } from '../grpc/metadata.ts';
import { fromBackend, type ErrorForms, type Problem } from '../http/problem.ts';
import type { Reading } from '../json/reading.ts';

/** The form of JSON, where proto3 JSON leaves a choice or an API makes one of its own. */
export interface JsonForm {
  /**
   * Whether requests are read to the letter, as grpc-gateway reads them. Otherwise with the leniency of the hub's API: a
   * single value for a list, enums by short name in any case, base64 however it is padded.
   */
  strict: boolean;
  /** What names answers use: those of the proto, or those of proto3 JSON. */
  fieldNames: 'name' | 'jsonName';
  enumNames: 'short' | 'proto';
  /** 64-bit numbers in answers. */
  longs: 'number' | 'text';
  /** What becomes of a field without a value in answers. */
  unset: 'null' | 'left out';
}

/** How the gateway speaks on both of its sides. */
export interface Dialect {
  json: JsonForm;
  /** The metadata of a call. @throws Problem if a header can't be passed on */
  metadataOf(request: IncomingMessage, response: ServerResponse): CallMetadata;
  /** Milliseconds that a call may take. @throws Problem if a header says something else */
  timeoutOf(headers: IncomingHttpHeaders, longest: number): number;
  /** The headers under which a backend's metadata is answered. */
  headersOf(metadata: IncomingHttpHeaders): OutgoingHttpHeaders;
  /** What to answer when a backend refused a call. */
  refusal(error: ServiceError, reading: Reading, forms: ErrorForms): Problem;
}

/** As the API of the hub is. */
export const hubDialect: Dialect = {
  json: { strict: false, fieldNames: 'name', enumNames: 'short', longs: 'number', unset: 'null' },
  metadataOf: (request, response) => metadataOf(request, requestIdIn(response) as string),
  timeoutOf,
  headersOf,
  refusal: fromBackend,
};
