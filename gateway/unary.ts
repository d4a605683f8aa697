import type { Request, Response } from 'express';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { encodeViolations } from '#lib/rpc/status.ts';
import { answerJson, answerNothing, requestIdIn } from './answer.ts';
import type { Backend } from './backends.ts';
import { parseJson, readBody } from './body.ts';
import { headersOf, metadataOf, timeoutOf } from './headers.ts';
import { fromBackend, fromReading, Problem } from './problem.ts';
import { Reading } from './request-json.ts';
import type { Binding, Transcoder } from './transcode.ts';

/** What a unary call over HTTP needs. */
export interface UnaryOptions {
  backend: Backend;
  binding: Binding;
  transcoder: Transcoder;
  /** Milliseconds that a call may take. */
  timeout: number;
  /** Bytes that a body may have. */
  bodyLimit: number;
}

/** Of the wrong fields that were found here, as many are told to a backend as fit into a header. */
const maxToldViolations = 30;

/**
 * Answers a request with what a unary RPC answers.
 *
 * A request of which some fields could not be read still goes to the backend, if its server knows about that: with
 * `x-field-violations-bin` (a google.rpc.BadRequest), upon which it answers INVALID_ARGUMENT with these and its own
 * violations and never runs its handler. So a caller without a token hears of that first, and else of all wrong fields
 * at once.
 *
 * @throws Problem
 */
export async function answerUnary(
  request: Request,
  response: Response,
  values: readonly string[],
  query: string,
  { backend, binding, transcoder, timeout, bodyLimit }: UnaryOptions,
): Promise<void> {
  const metadata = metadataOf(request.headers, requestIdIn(response), request.ip);
  const deadline = Date.now() + timeoutOf(request.headers, timeout);
  let json: { value: unknown } | undefined;
  if (binding.body !== 'none') {
    const body = await readBody(request, response, bodyLimit);
    if (body.length > 0) json = { value: parseJson(body, request.headers['content-type']) };
    if (binding.body === 'all' && json !== undefined && !isObject(json.value)) {
      throw new Problem(400, 'MALFORMED_JSON', 'The body must be a JSON object');
    }
  }

  const reading = new Reading();
  const message = transcoder.request(binding, json, query, values, reading);
  if (reading.violations.length > 0) {
    if (!binding.reportsViolations) throw fromReading(reading);
    const told = reading.violations.slice(0, maxToldViolations);
    metadata.set('x-field-violations-bin', Buffer.from(encodeViolations(told)));
  }
  const answer = await call(backend, binding.rpcPath, message, metadata, deadline, response, reading);
  if (reading.violations.length > 0) throw fromReading(reading);

  const headers = answer.metadata === undefined ? {} : headersOf(answer.metadata);
  if (binding.successStatus === 204) answerNothing(response, headers);
  else answerJson(response, binding.successStatus, transcoder.response(binding, answer.bytes), headers);
}

function isObject(json: unknown): boolean {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

const asIs = (bytes: Buffer) => bytes;

interface Answer {
  bytes: Buffer;
  metadata: Metadata | undefined;
}

/** Calls a backend; the call is cancelled when the client goes away. */
function call(
  backend: Backend,
  path: string,
  message: Uint8Array,
  metadata: Metadata,
  deadline: number,
  response: Response,
  reading: Reading,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let headers: Metadata | undefined;
    const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
    const upstream = backend.client.makeUnaryRequest(
      path,
      asIs,
      asIs,
      bytes,
      metadata,
      { deadline },
      (error: ServiceError | null, answer?: Buffer) => {
        response.off('close', cancel);
        if (error !== null) reject(fromBackend(error, reading));
        else resolve({ bytes: answer as Buffer, metadata: headers });
      },
    );
    const cancel = () => upstream.cancel();
    response.on('close', cancel);
    upstream.on('metadata', (received: Metadata) => {
      headers = received;
    });
  });
}
