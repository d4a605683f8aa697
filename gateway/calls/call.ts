import type { IncomingHttpHeaders, IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { status, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { callerKey, encodeViolations } from '#lib/rpc/status.ts';
import { answerBody, answerNothing } from '../http/send-answer.ts';
import type { Backend } from '../grpc/backends.ts';
import type { Binding } from '../rules/bindings.ts';
import type { Dialect } from '../dialects/dialect.ts';
import type { Envelope } from './envelope.ts';
import { canonicalHeader } from '../http/headers.ts';
import { requestIdIn } from '../http/request-details.ts';
import { answeredBody } from './http-body.ts';
import { requireFits } from '../dialects/allow-list.ts';
import { toMetadata, type CallMetadata } from '../grpc/metadata.ts';
import { fromReading } from '../dialects/errors.ts';
import type { Problem, ProblemForm } from '../http/problem.ts';
import { answerLookup, isLookup } from '../http/conditional-get.ts';
import { Reading } from '../json/reading.ts';
import type { RequestParts } from '../dialects/transcoder.ts';

/** What a call over HTTP needs. */
export interface CallOptions {
  backend: Backend;
  binding: Binding;
  dialect: Dialect;
  /** How problems are told. */
  form: ProblemForm;
  /** What answers come in; undefined if they come as they are. */
  envelope: Envelope | undefined;
  /** Milliseconds that the call may take. */
  timeout: number;
}

/** What a backend answered. */
export interface Answer {
  message: Buffer;
  /** Its metadata, as HTTP/2 has it. */
  headers: IncomingHttpHeaders;
  trailers: IncomingHttpHeaders;
}

/** So many of the wrong fields that were found here are reported to a backend: they have to fit into a header. */
const maxReportedViolations = 30;

/** The (de)serializer for grpc-js: messages are encoded and decoded elsewhere. */
export const asIs = (bytes: Buffer) => bytes;

/**
 * A request over HTTP on its way to a backend.
 *
 * If some of its fields could not be read it still goes there, provided that the server knows about that: with
 * `x-field-violations-bin` (a google.rpc.BadRequest), upon which it answers INVALID_ARGUMENT with these and its own
 * violations and never runs its handler. So a caller without a token hears of that first, and else of all wrong fields
 * at once.
 */
export class Outgoing {
  readonly sent: CallMetadata;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  readonly #options: CallOptions;
  readonly #reading: Reading;
  #unreadable: Problem | undefined;

  /** @throws Problem 400 or 401 if a header can't be passed on, 431 if they are more than the backend takes */
  constructor(request: IncomingMessage, response: ServerResponse, options: CallOptions) {
    const { backend, dialect, timeout } = options;
    this.sent = dialect.metadataOf(request, response);
    requireFits(this.sent, backend.unary.maxHeaderListSize);
    this.deadline = Date.now() + dialect.timeoutOf(request.headers, timeout);
    this.#options = options;
    this.#reading = new Reading(options.binding.knownFieldsOnly);
  }

  /**
   * The request message.
   *
   * @throws Problem if it has wrong fields of which the backend must not be told
   */
  message(parts: RequestParts): Buffer {
    const { binding, dialect } = this.#options;
    const message = dialect.transcoder.request(binding, parts, this.#reading);
    this.#tell();
    return Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  }

  /** The next message of a stream. @throws Problem if it is wrong */
  next(json: unknown): Buffer {
    const { binding, dialect } = this.#options;
    const reading = new Reading(binding.knownFieldsOnly);
    const message = dialect.transcoder.streamed(binding, json, reading);
    if (reading.violations.length > 0) throw fromReading(reading);
    return Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  }

  /**
   * Notes that the body is no JSON at all: the backend has the first word on who may have what is asked for.
   *
   * @throws Problem if it must not be told
   */
  unreadable(problem: Problem): void {
    this.#unreadable = problem;
    this.#reading.fail({ field: '', sent: '' }, 'must be a body of JSON', 'format');
  }

  /** Notes one more wrong field, which the client called `sent`. @throws Problem like `message` */
  fail(field: string, sent: string, description: string): void {
    this.#reading.fail({ field, sent }, description);
    this.#tell();
  }

  #tell(): void {
    if (!this.isWrong) return;
    if (!this.#options.binding.reportsViolations) throw fromReading(this.#reading);
    const told = this.#reading.violations.slice(0, maxReportedViolations);
    this.sent['x-field-violations-bin'] = Buffer.from(encodeViolations(told)).toString('base64');
  }

  /** Its metadata, for a stream. */
  get metadata(): Metadata {
    return toMetadata(this.sent);
  }

  /** Whether the request asks for server-sent events. */
  get asksForEvents(): boolean {
    return this.#reading.asksForEvents;
  }

  /** Whether fields are known to be wrong. */
  get isWrong(): boolean {
    return this.#reading.violations.length > 0;
  }

  /** The answer to a request with wrong fields that the backend let pass. */
  wrong(): Problem {
    return this.#unreadable ?? fromReading(this.#reading);
  }

  /** What to answer when the backend refused. */
  refusal(error: ServiceError): Problem {
    if (this.#unreadable !== undefined && error.code === status.INVALID_ARGUMENT) return this.#unreadable;
    return this.#options.dialect.problemOf(error, this.#reading, this.#options.binding);
  }
}

/** Answers with the message that a backend answered. */
export function answerMessage(
  request: IncomingMessage,
  response: ServerResponse,
  options: CallOptions,
  { message, headers: received, trailers }: Answer,
): Promise<void> | void {
  const { binding, dialect } = options;
  const headers = dialect.headersOf(received);
  const { successStatus } = binding;
  if (successStatus === 204) return answerNothing(response, headers);
  const body = answeredBody(binding, message);
  const { answers } = dialect;
  headers['Content-Type'] = body === undefined ? 'application/json' : answers.bodyType(binding, body.contentType);
  const { content, lasting } = contentOf(options, message, requestIdIn(response), body);
  const wanted = trailersFor(request, trailers);
  const isPlain = wanted === undefined && successStatus === 200 && answers.hasEntityTags;
  if (isPlain && isLookup(response)) return answerLookup(response, content, headers, lasting);
  return answerBody(response, successStatus, content, headers, wanted);
}

/**
 * What a message is answered with.
 *
 * @returns `lasting` where it is in an envelope: what of it is the same whenever it is asked for
 */
export function contentOf(
  { binding, dialect, envelope }: CallOptions,
  message: Buffer,
  requestId: string | undefined,
  body = answeredBody(binding, message),
): { content: string | Uint8Array; lasting?: string | undefined } {
  if (body !== undefined) return { content: body.data };
  const told = envelope?.success(binding, message, requestId);
  if (told !== undefined) return { content: told.json, lasting: told.lasting };
  return { content: dialect.transcoder.response(binding, message) };
}

/** The trailers of a backend for a client that says that it takes such. */
export function trailersFor(request: IncomingMessage, received: IncomingHttpHeaders): OutgoingHttpHeaders | undefined {
  const { te } = request.headers;
  if (te === undefined || !/trailers/i.test(String(te))) return undefined;
  const trailers: OutgoingHttpHeaders = {};
  for (const [key, value] of Object.entries(received)) {
    if (!key.startsWith(':') && !statusKeys.has(key)) trailers[canonicalHeader(`grpc-trailer-${key}`)] = value;
  }
  return trailers;
}

/** Of these the answer itself is made. */
const statusKeys = new Set(['grpc-status', 'grpc-message', 'grpc-status-details-bin', 'x-request-id', callerKey]);
