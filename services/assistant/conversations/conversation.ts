import { HubError } from '#lib/errors.ts';

export type Role = 'user' | 'assistant';
/** What has become of a message. */
export type MessageStatus = 'completed' | 'stopped' | 'failed' | 'streaming';
/** Why an answer is as long as it is. */
export type FinishReason = 'stop' | 'length' | 'max_steps' | 'stopped';

/** A tool that the model has asked for, and what came of it. */
export interface StoredCall {
  /** Ours: unique among all calls, and the same each time that this one is made. */
  id: string;
  /** The id that the model gave it. */
  requestId: string;
  /** The tool's name as the model wrote it. */
  toolName: string;
  /** What the model wrote as arguments. */
  rawArguments: string;
  server: string;
  name: string;
  /** Any JSON. */
  arguments: Record<string, unknown>;
  /** Undefined as long as it has not answered. */
  outcome?: { result: unknown; isError: boolean; durationMs: number };
  /** Whether it was begun: a tool with an effect may have had it. */
  isBegun?: boolean;
  /** Whether all who follow the answer were told of its outcome. */
  isTold?: boolean;
  /** Where the user is asked before it. */
  approval?: { id: string; isApproved?: boolean };
}

/** A call of the model within an answer: what it said, and the tools that it asked for. */
export interface Step {
  text: string;
  calls: readonly StoredCall[];
}

/** Why an answer has failed, as its caller was told. */
export interface StoredError {
  kind: string;
  reason: string;
  message: string;
  /** Seconds. */
  retryAfter?: number;
}

/** Characters of a title, as of a conversation that nobody has named. */
export const maxTitleLength = 200;
const maxDerivedTitleLength = 80;

/** The title of a conversation that nobody has named: the beginning of its first message, on one line, cut between words. */
export function titleOf(message: string): string {
  const line = message.trim().replaceAll(/\s+/gu, ' ');
  const characters = Array.from(line);
  if (characters.length <= maxDerivedTitleLength) return line;
  const beginning = characters.slice(0, maxDerivedTitleLength - 1).join('');
  const lastSpace = beginning.lastIndexOf(' ');
  return `${lastSpace > beginning.length / 2 ? beginning.slice(0, lastSpace) : beginning}…`;
}

export function conversationNotFound(): HubError {
  return new HubError('NOT_FOUND', 'CONVERSATION_NOT_FOUND', 'There is no such conversation');
}

/** What is said in all steps, in order. */
export function textOf(steps: readonly Step[]): string {
  return steps.map(({ text }) => text).join('');
}

/** The calls whose tools were told to work, or were refused. */
export function callsIn(steps: readonly Step[]): StoredCall[] {
  return steps
    .flatMap(({ calls }) => calls)
    .filter(({ isBegun, outcome }) => isBegun === true || outcome !== undefined);
}

/** A call of an answer that has ended: one whose tool had not answered by then was cut off, which is no success. */
export function endedCall(call: StoredCall): StoredCall & Required<Pick<StoredCall, 'outcome'>> {
  const result =
    call.isBegun === true
      ? 'Cut off: the answer ended before the tool had answered. What was to be done may have been done'
      : 'Not called: the answer ended before';
  return { ...call, outcome: call.outcome ?? { result, isError: true, durationMs: 0 } };
}

/** Steps, and behind them what was said since they were kept. */
export function withText(steps: readonly Step[], said: string): readonly Step[] {
  const { length } = textOf(steps);
  return said.length <= length ? steps : [...steps, { text: said.slice(length), calls: [] }];
}
