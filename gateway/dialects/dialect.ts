import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { ServiceError } from '@grpc/grpc-js';
import type { CallMetadata } from '../grpc/metadata.ts';
import type { Problem, ProblemForm } from '../http/problem.ts';
import type { Reading } from '../json/reading.ts';
import type { JsonForm } from '../json/response-json.ts';
import type { Binding } from '../rules/bindings.ts';
import type { ErrorForms } from './errors.ts';
import type { Transcoder } from './transcoder.ts';

/** How the gateway speaks, to clients as to backends: that of the hub's API, and that of grpc-gateway's runtime. */
export interface Dialect {
  /** The form of the JSON that is answered. */
  json: JsonForm;
  transcoder: Transcoder;
  bodies: BodyReader;
  answers: AnswerForm;
  /** The metadata of a call. @throws Problem if a header can't be passed on */
  metadataOf(request: IncomingMessage, response: ServerResponse): CallMetadata;
  /** Milliseconds that a call may take, `maxMs` at most. @throws Problem if the timeout header is malformed */
  timeoutOf(headers: IncomingHttpHeaders, maxMs: number): number;
  /** The headers under which a backend's metadata is answered. */
  headersOf(metadata: IncomingHttpHeaders): OutgoingHttpHeaders;
  /** The answer to a request whose call the backend ended with an error. */
  problemOf(error: ServiceError, reading: Reading, forms: ErrorForms): Problem;
}

/** How the bodies of requests are read. */
export interface BodyReader {
  /** Looks at a request before its body is read. @throws Problem if such a body is not taken */
  check(request: IncomingMessage): void;
  /** The JSON that a whole body holds; undefined if there is none. @throws Problem if it can't be read */
  json(body: Buffer, contentType: string | undefined, binding: Binding): { value: unknown } | undefined;
  /** One value of a body that is a stream of JSON values. @throws Problem if it can't be read */
  streamedValue(value: Buffer): unknown;
  /** Whether the body of a request for which the RPC takes none is a form that counts as part of the query. */
  isQuery(request: IncomingMessage): boolean;
}

/** How successes are answered, and errors in the middle of a stream. */
export interface AnswerForm {
  /** Whether a lookup is answered with an entity tag, and the conditions of requests are heeded (RFC 9110, 13). */
  hasEntityTags: boolean;
  /** The Content-Type of an answer that is a google.api.HttpBody of that type. */
  bodyType(binding: Binding, type: string): string;
  /** A google.api.HttpBody of a stream as it is sent. */
  streamedBody(data: Uint8Array): Uint8Array;
  /** The Content-Type of a stream that ended without a message, if it would have been `type`; undefined if it has none. */
  emptyStreamType(type: string): string | undefined;
  /** Whether an error is told behind bodies that were streamed. Otherwise the connection is closed. */
  tellsErrorsBehindBodies: boolean;
  /** The form of problems: of all that have no route, and of those in the middle of a stream. */
  problemForm: ProblemForm;
}
