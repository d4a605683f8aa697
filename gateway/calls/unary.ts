import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ServiceError } from '@grpc/grpc-js';
import { callerKey } from '#lib/rpc/status.ts';
import type { BodyLimits } from '../http/request-body.ts';
import { answerMessage, contentOf, Outgoing, type CallOptions } from './call.ts';
import { recordCaller } from '../http/request-details.ts';
import { hasPreconditions, judge } from '../http/preconditions.ts';
import { entityTags } from '../http/conditional-get.ts';
import { readMessage } from './request-message.ts';
import type { UnaryAnswer } from '../grpc/unary-exchange.ts';

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
  const message = await readMessage(request, response, values, query, options, outgoing);
  const { backend, binding, isRepeatable, admission } = options;
  if (binding.isStanding) admission.standing(request, response);
  else admission.call(request, response);
  const { deadline } = outgoing;
  const isGone = () => response.destroyed;
  const attempt = () => call(options, outgoing, message, response);
  const answer = await backend.calls.call(attempt, { isRepeatable, deadline, isGone }).catch((error: ServiceError) => {
    recordCaller(response, error.metadata?.get(callerKey)[0]);
    throw outgoing.refusal(error);
  });
  recordCaller(response, answer.trailers[callerKey]);
  if (outgoing.isWrong) throw outgoing.wrong();
  await answerMessage(request, response, options, answer);
}

/**
 * Refuses a request that would change something if its conditions (RFC 9110, 13) aren't met by what a GET of the same path is answered
 * with. Where that fails there is nothing to compare with: the request is then answered as it would be without conditions (13.2.1).
 *
 * @param options of that GET
 * @throws Problem 412
 */
export async function requireConditions(
  request: IncomingMessage,
  response: ServerResponse,
  values: readonly string[],
  options: UnaryOptions,
): Promise<void> {
  if (!hasPreconditions(request.headers)) return;
  const outgoing = new Outgoing(request, response, options);
  const message = outgoing.message({ values, query: '' });
  const { deadline } = outgoing;
  const attempt = () => call(options, outgoing, message, response);
  const answer = await options.backend.calls.call(attempt, { isRepeatable: true, deadline }).catch(() => undefined);
  if (answer === undefined || outgoing.isWrong) return;
  const { content, lasting } = contentOf(options, answer.message, undefined);
  judge(request.method as string, request.headers, entityTags(content, lasting));
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
