import { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { HubError, type ErrorKind } from '#lib/errors.ts';
import { toStatusMessage } from '#lib/rpc/status.ts';
import type { StoredCall, StoredError } from '../conversations/conversation.ts';
import type { Message } from '../conversations/conversations-store.ts';
import { answerMessage, approvalMessage, toolCallMessage } from '../conversations/wire.ts';
import type { AgentEvent } from './agent.ts';
import type { StoredEvent } from './turn-events-store.ts';
import { encode } from '#lib/encode.ts';

export type EventOf = NonNullable<ChatResponse['event']>;

export function startEvent(turn: { conversationId: bigint; messageId: bigint }): EventOf {
  return { $case: 'start', value: { conversationId: turn.conversationId, messageId: turn.messageId } };
}

export function agentEvent(event: AgentEvent): EventOf {
  if (event.kind === 'text') return { $case: 'text', value: { delta: event.delta } };
  const { id, server, name, arguments: given, result, isError, durationMs } = toolCallMessage(event.call);
  if (event.kind === 'toolCall') return { $case: 'toolCall', value: { id, server, name, arguments: given } };
  return { $case: 'toolResult', value: { id, result: result as unknown, isError, durationMs } };
}

export function approvalEvent(call: StoredCall): EventOf {
  return { $case: 'approval', value: approvalMessage(call) };
}

type Ended = Pick<Message, 'id' | 'conversationId' | 'steps' | 'model' | 'usage' | 'finishReason' | 'error'> & {
  state: 'completed' | 'stopped' | 'failed';
};

/** The last event of an answer. */
export function lastEvent(answer: Ended): EventOf {
  switch (answer.state) {
    case 'completed':
      return { $case: 'finish', value: answerMessage(answer, answer.finishReason ?? 'stop') };
    case 'stopped':
      return { $case: 'stopped', value: answerMessage(answer, 'stopped') };
    case 'failed':
      return { $case: 'error', value: toStatusMessage(failureOf(answer.error)) };
  }
}

/** The event after which an answer waits for the user. */
export function waitingEvent(answer: Omit<Ended, 'state' | 'finishReason' | 'error'>, call: StoredCall): EventOf {
  return { $case: 'finish', value: answerMessage(answer, 'approval', [call]) };
}

/** An event as it is kept. */
export function encoded(messageId: bigint, number: number, event: EventOf): StoredEvent {
  return { messageId, number, event: encode(ChatResponse, { id: BigInt(number), event }) };
}

/** Whether an event says that the answer waits for the user. */
export function isPause({ event }: ChatResponse): boolean {
  return event?.$case === 'finish' && event.value.approvals.length > 0;
}

export function isLast({ event }: ChatResponse): boolean {
  return event?.$case === 'finish' || event?.$case === 'stopped' || event?.$case === 'error';
}

/** What is kept of an error. */
export function storedError({ kind, reason, message, retryAfter }: HubError): StoredError {
  return { kind, reason, message, ...(retryAfter === undefined ? {} : { retryAfter }) };
}

function failureOf(error: StoredError | undefined): HubError {
  if (error === undefined) return answerLost();
  const { kind, reason, message, retryAfter } = error;
  return new HubError(kind as ErrorKind, reason, message, retryAfter === undefined ? {} : { retryAfter });
}

/** Why a turn has failed whose process has died. */
export function answerLost(): HubError {
  return new HubError('UNAVAILABLE', 'ANSWER_LOST', 'The answer was cut off: the process that made it has ended', {
    retryAfter: 1,
  });
}
