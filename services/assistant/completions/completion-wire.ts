import type { HubError } from '#lib/errors.ts';
import type { TokenUsage, ToolRequest } from '../provider/provider.ts';

/** The members that a completion and all its chunks share. */
export interface CompletionHead {
  id: string;
  /** Seconds since the epoch. */
  created: number;
  model: string;
}

export type WireFinishReason = 'stop' | 'length' | 'tool_calls';

/** A whole completion. */
export interface CompletionBody {
  text: string;
  toolRequests: readonly ToolRequest[];
  finishReason: WireFinishReason;
  usage: TokenUsage;
}

export function completionJson(head: CompletionHead, { text, toolRequests, finishReason, usage }: CompletionBody) {
  const message = {
    role: 'assistant',
    content: text === '' && toolRequests.length > 0 ? null : text,
    refusal: null,
    annotations: [],
    ...(toolRequests.length > 0 ? { tool_calls: toolRequests.map(wireToolCall) } : {}),
  };
  return {
    ...head,
    object: 'chat.completion',
    choices: [{ index: 0, message, logprobs: null, finish_reason: finishReason }],
    usage: wireUsage(usage),
  };
}

/** A chunk of a stream. If the client wants `usage`, it is null in all chunks but the last; otherwise it is left out. */
export function chunkJson(
  head: CompletionHead,
  delta: object,
  { finishReason = null, includeUsage }: { finishReason?: WireFinishReason | null; includeUsage: boolean },
) {
  return {
    ...head,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }],
    ...(includeUsage ? { usage: null } : {}),
  };
}

export function usageChunkJson(head: CompletionHead, usage: TokenUsage) {
  return { ...head, object: 'chat.completion.chunk', choices: [], usage: wireUsage(usage) };
}

export function toolCallsDelta(toolRequests: readonly ToolRequest[]) {
  return { tool_calls: toolRequests.map((request, index) => ({ index, ...wireToolCall(request) })) };
}

/** An error in the middle of a stream, after the HTTP status was sent. */
export function errorJson({ message, reason }: Pick<HubError, 'message' | 'reason'>) {
  return { error: { message, type: 'server_error', param: null, code: reason.toLowerCase() } };
}

export function modelJson(model: string) {
  return { id: model, object: 'model', created: 0, owned_by: 'chat4all' };
}

function wireToolCall({ id, name, arguments: given }: ToolRequest) {
  return { id, type: 'function', function: { name, arguments: given } };
}

function wireUsage({ inputTokens, outputTokens }: TokenUsage) {
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
  };
}
