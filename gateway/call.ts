import type { Request, Response } from 'express';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { encodeViolations } from '#lib/rpc/status.ts';
import { answerJson, answerNothing, requestIdIn } from './answer.ts';
import type { Backend } from './backends.ts';
import type { Binding } from './bindings.ts';
import { headersOf, metadataOf, timeoutOf } from './headers.ts';
import { fromBackend, fromReading, type Problem } from './problem.ts';
import { answerLookup, isLookup } from './representation.ts';
import { Reading } from './request-json.ts';
import type { Sent, Transcoder } from './transcode.ts';

/** What a call over HTTP needs. */
export interface CallOptions {
  backend: Backend;
  binding: Binding;
  transcoder: Transcoder;
  /** Milliseconds that the call may take. */
  timeout: number;
}

/** What a backend answered. */
export interface Answer {
  bytes: Buffer;
  metadata: Metadata | undefined;
}

/** Of the wrong fields that were found here, as many are told to a backend as fit into a header. */
const maxToldViolations = 30;

/** Messages are encoded and decoded elsewhere. */
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
  readonly metadata: Metadata;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  readonly #options: CallOptions;
  readonly #reading = new Reading();

  /** @throws Problem 400 or 401 if a header can't be passed on */
  constructor(request: Request, response: Response, options: CallOptions) {
    this.metadata = metadataOf(request, requestIdIn(response));
    this.deadline = Date.now() + timeoutOf(request.headers, options.timeout);
    this.#options = options;
  }

  /**
   * The request message.
   *
   * @throws Problem if it has wrong fields of which the backend must not be told
   */
  message(sent: Sent): Buffer {
    const { binding, transcoder } = this.#options;
    const message = transcoder.request(binding, sent, this.#reading);
    this.#tell();
    return Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  }

  /** Notes one more wrong field, which the client called `sent`. @throws Problem like `message` */
  fail(field: string, sent: string, description: string): void {
    this.#reading.fail({ field, sent }, description);
    this.#tell();
  }

  #tell(): void {
    if (!this.isWrong) return;
    if (!this.#options.binding.reportsViolations) throw fromReading(this.#reading);
    const told = this.#reading.violations.slice(0, maxToldViolations);
    this.metadata.set('x-field-violations-bin', Buffer.from(encodeViolations(told)));
  }

  /** Whether fields are known to be wrong. */
  get isWrong(): boolean {
    return this.#reading.violations.length > 0;
  }

  /** The answer to a request with wrong fields that the backend let pass. */
  wrong(): Problem {
    return fromReading(this.#reading);
  }

  /** What to answer when the backend refused. */
  refusal(error: ServiceError): Problem {
    return fromBackend(error, this.#reading, this.#options.binding.errorStatuses);
  }
}

/** Answers with the message that a backend answered. */
export function answerMessage(
  response: Response,
  { binding, transcoder }: CallOptions,
  { bytes, metadata }: Answer,
): Promise<void> | void {
  const headers = metadata === undefined ? {} : headersOf(metadata);
  const { successStatus } = binding;
  if (successStatus === 204) return answerNothing(response, headers);
  const json = transcoder.response(binding, bytes);
  if (successStatus === 200 && isLookup(response)) return answerLookup(response, json, headers);
  return answerJson(response, successStatus, json, headers);
}
