import type { Logger } from '#lib/log.ts';
import { counter, durationHistogram } from '#lib/metrics.ts';
import type { Observation } from './agent.ts';

const modelTime = durationHistogram('assistant_model_duration_seconds', 'Calls of the model', ['outcome']);
const toolTime = durationHistogram('assistant_tool_duration_seconds', 'Calls of tools', ['outcome']);
const tokensUsed = counter('assistant_tokens_total', 'Tokens that the model has read and written', {
  direction: ['input', 'output'],
});
for (const histogram of [modelTime, toolTime]) for (const outcome of ['success', 'error']) histogram.zero({ outcome });
export const turnsEnded = counter('assistant_turns_total', 'Answers, by how they ended', {
  outcome: ['stop', 'length', 'max_steps', 'waiting', 'stopped', 'failed', 'lost'],
});

/**
 * Writes and counts a call of the model or of a tool, by the names of OpenTelemetry's semantic conventions for generative AI. Nothing
 * of what was said is in it.
 *
 * @param conversationId undefined for completions, which have none
 */
export function observed(observation: Observation, log: Logger, conversationId?: bigint): void {
  const { durationMs, error } = observation;
  const common = {
    ...(conversationId === undefined ? {} : { 'gen_ai.conversation.id': String(conversationId) }),
    durationMs: Math.round(durationMs * 10) / 10,
    ...(error === undefined ? {} : { 'error.type': errorType(error) }),
  };
  if (observation.kind === 'model') {
    modelTime.observe({ outcome: error === undefined ? 'success' : 'error' }, durationMs / 1_000);
    tokensUsed.inc({ direction: 'input' }, observation.inputTokens);
    tokensUsed.inc({ direction: 'output' }, observation.outputTokens);
    const { model, inputTokens, outputTokens, finishReason, firstAfterMs } = observation;
    log.info(
      {
        'gen_ai.operation.name': 'chat',
        'gen_ai.request.model': model,
        'gen_ai.usage.input_tokens': inputTokens,
        'gen_ai.usage.output_tokens': outputTokens,
        'gen_ai.response.finish_reasons': finishReason === undefined ? [] : [finishReason],
        ...(firstAfterMs === undefined ? {} : { firstAfterMs: Math.round(firstAfterMs * 10) / 10 }),
        ...common,
      },
      'chat',
    );
    return;
  }
  const { server, name, callId, isError } = observation;
  toolTime.observe({ outcome: error === undefined && !isError ? 'success' : 'error' }, durationMs / 1_000);
  log.info(
    {
      'gen_ai.operation.name': 'execute_tool',
      'gen_ai.tool.name': `${server}__${name}`,
      'gen_ai.tool.call.id': callId,
      isError,
      ...common,
    },
    'execute_tool',
  );
}

function errorType(error: unknown): string {
  if (error instanceof Error && 'reason' in error && typeof error.reason === 'string') return error.reason;
  return error instanceof Error ? error.name : 'unknown';
}
