import type { Request, Response } from 'express';
import type { Metadata, ServiceError } from '@grpc/grpc-js';
import { parseJson, readBody } from './body.ts';
import { answerMessage, asIs, Outgoing, type Answer, type CallOptions } from './call.ts';
import { Problem } from './problem.ts';

/** What a unary call over HTTP needs. */
export interface UnaryOptions extends CallOptions {
  /** Bytes that a body may have. */
  bodyLimit: number;
  /** Milliseconds in which a body has to arrive. */
  bodyTimeout: number;
  /** Whether the backend may be asked twice, if the first answer was lost. */
  isRepeatable: boolean;
}

/**
 * Answers a request with what a unary RPC answers.
 *
 * @throws Problem
 */
export async function answerUnary(
  request: Request,
  response: Response,
  values: readonly string[],
  query: string,
  options: UnaryOptions,
): Promise<void> {
  const outgoing = new Outgoing(request, response, options);
  const json = await readJson(request, response, options);
  const message = outgoing.message({ values, query, json });
  const { backend, isRepeatable } = options;
  const { deadline } = outgoing;
  const isGone = () => response.destroyed;
  const attempt = () => call(options, outgoing, message, response);
  const answer = await backend.calls.call(attempt, { isRepeatable, deadline, isGone }).catch((error: ServiceError) => {
    throw outgoing.refusal(error);
  });
  if (outgoing.isWrong) throw outgoing.wrong();
  await answerMessage(response, options, answer);
}

/** The JSON in a request's body; undefined if it has none, or if the RPC takes none. */
async function readJson(
  request: Request,
  response: Response,
  { binding, bodyLimit, bodyTimeout }: UnaryOptions,
): Promise<{ value: unknown } | undefined> {
  if (binding.body === 'none') return undefined;
  const body = await readBody(request, response, bodyLimit, bodyTimeout);
  if (body.length === 0) return undefined;
  const value = parseJson(body, request.headers['content-type']);
  if (binding.body === 'all' && !isObject(value)) {
    throw new Problem(400, 'MALFORMED_JSON', 'The body must be a JSON object');
  }
  return { value };
}

function isObject(json: unknown): boolean {
  return typeof json === 'object' && json !== null && !Array.isArray(json);
}

/** Calls a backend; the call is cancelled when the client goes away. */
function call(
  { backend, binding }: UnaryOptions,
  outgoing: Outgoing,
  message: Buffer,
  response: Response,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let metadata: Metadata | undefined;
    const upstream = backend.client.makeUnaryRequest(
      binding.rpcPath,
      asIs,
      asIs,
      message,
      outgoing.metadata,
      { deadline: outgoing.deadline },
      (error: ServiceError | null, bytes?: Buffer) => {
        response.off('close', cancel);
        if (error !== null) reject(error);
        else resolve({ bytes: bytes as Buffer, metadata });
      },
    );
    const cancel = () => upstream.cancel();
    response.on('close', cancel);
    upstream.on('metadata', (received: Metadata) => {
      metadata = received;
    });
  });
}
