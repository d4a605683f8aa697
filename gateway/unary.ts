import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServiceError } from '@grpc/grpc-js';
import { callerKey } from '#lib/rpc/status.ts';
import { readJson, readQuery, type BodyLimits } from './body.ts';
import { answerMessage, Outgoing, type CallOptions } from './call.ts';
import { noteCaller } from './headers.ts';
import type { UnaryAnswer } from './unary-exchange.ts';

/** What a unary call over HTTP needs. */
export interface UnaryOptions extends CallOptions, BodyLimits {
  /** Whether the backend may be asked twice, if the first answer was lost. */
  isRepeatable: boolean;
}

/**
 * Answers a request with what a unary RPC answers.
 *
 * @throws Problem
 */
export async function answerUnary(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  query: string,
  options: UnaryOptions,
): Promise<void> {
  const outgoing = new Outgoing(request, response, options);
  const json = await readJson(request, response, options);
  const message = outgoing.message({ values, query: await readQuery(request, response, query, options), json });
  const { backend, isRepeatable, admission } = options;
  admission.call(request, response);
  const { deadline } = outgoing;
  const isGone = () => response.destroyed;
  const attempt = () => call(options, outgoing, message, response);
  const answer = await backend.calls.call(attempt, { isRepeatable, deadline, isGone }).catch((error: ServiceError) => {
    noteCaller(response, error.metadata?.get(callerKey)[0]);
    throw outgoing.refusal(error);
  });
  noteCaller(response, answer.trailers[callerKey]);
  if (outgoing.isWrong) throw outgoing.wrong();
  await answerMessage(request, response, options, answer);
}

/** Calls a backend; the call is cancelled when the client goes away. */
async function call(
  { backend, binding }: UnaryOptions,
  { sent, deadline }: Outgoing,
  message: Buffer,
  response: ServerResponse,
): Promise<UnaryAnswer> {
  let cancel = () => {};
  const onClose = () => cancel();
  response.on('close', onClose);
  try {
    return await backend.unary.call(binding.rpcPath, sent, message, deadline, (ofCall) => (cancel = ofCall));
  } finally {
    response.off('close', onClose);
  }
}
