import {
  FinishReason as WireFinishReason,
  MessageStatus as WireMessageStatus,
  Role as WireRole,
  type Answer,
  type Approval,
  type Conversation as WireConversation,
  type HistoryMessage,
  type ToolCall,
  type Usage,
} from '#gen/chat4all/assistant/v1/assistant.ts';
import { callsIn, endedCall, textOf, type FinishReason, type StoredCall } from './conversation.ts';
import type { Conversation, Message, MessageWithSiblings } from './conversations-store.ts';

const roles = { user: WireRole.ROLE_USER, assistant: WireRole.ROLE_ASSISTANT };

const statuses = {
  completed: WireMessageStatus.MESSAGE_STATUS_COMPLETED,
  stopped: WireMessageStatus.MESSAGE_STATUS_STOPPED,
  failed: WireMessageStatus.MESSAGE_STATUS_FAILED,
  streaming: WireMessageStatus.MESSAGE_STATUS_STREAMING,
};

const finishReasons = {
  stop: WireFinishReason.FINISH_REASON_STOP,
  length: WireFinishReason.FINISH_REASON_LENGTH,
  max_steps: WireFinishReason.FINISH_REASON_MAX_STEPS,
  stopped: WireFinishReason.FINISH_REASON_STOPPED,
  approval: WireFinishReason.FINISH_REASON_APPROVAL,
};

export function conversationMessage(conversation: Conversation): WireConversation {
  return { ...conversation, messageCount: BigInt(conversation.messageCount) };
}

export function toolCallMessage({ id, server, name, arguments: given, outcome }: StoredCall): ToolCall {
  return {
    id,
    server,
    name,
    arguments: given,
    result: outcome?.result ?? null,
    isError: outcome?.isError ?? false,
    durationMs: BigInt(outcome?.durationMs ?? 0),
  };
}

export function approvalMessage({ id, server, name, arguments: given, approval }: StoredCall): Approval {
  return { approvalId: approval?.id ?? '', id, server, name, arguments: given };
}

function usageMessage({ inputTokens, outputTokens }: { inputTokens: number; outputTokens: number }): Usage {
  return {
    inputTokens: BigInt(inputTokens),
    outputTokens: BigInt(outputTokens),
    totalTokens: BigInt(inputTokens + outputTokens),
  };
}

/** An answer that has ended, or that waits for the user. */
export function answerMessage(
  { id, conversationId, steps, model, usage }: Pick<Message, 'id' | 'conversationId' | 'steps' | 'model' | 'usage'>,
  finishReason: FinishReason | 'approval',
  waitingFor: readonly StoredCall[] = [],
): Answer {
  return {
    conversationId,
    response: textOf(steps),
    toolCalls: callsIn(steps).map((call) => toolCallMessage(endedCall(call))),
    messageId: id,
    model: model ?? '',
    usage: usageMessage(usage ?? { inputTokens: 0, outputTokens: 0 }),
    finishReason: finishReasons[finishReason],
    approvals: waitingFor.map(approvalMessage),
  };
}

export function historyMessage(message: MessageWithSiblings): HistoryMessage {
  return { ...withoutSiblings(message), siblings: message.siblings.map(withoutSiblings) };
}

function withoutSiblings({
  id,
  conversationId,
  numId,
  role,
  content,
  createdAt,
  status,
  ...more
}: Message): HistoryMessage {
  return {
    id,
    conversationId,
    userId: numId,
    role: roles[role],
    content: status === 'streaming' ? content || textOf(more.steps) : content,
    createdAt,
    status: statuses[status],
    toolCalls: callsIn(more.steps).map((call) => toolCallMessage(status === 'streaming' ? call : endedCall(call))),
    usage: more.usage === undefined ? undefined : usageMessage(more.usage),
    model: more.model ?? '',
    siblings: [],
  };
}
