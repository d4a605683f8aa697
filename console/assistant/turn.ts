import type { Answer, Approval, ChatResponse, HistoryMessage, ToolCall } from '#client/assistant';

/** A part of an answer: some text, or the call of a tool. */
export type Piece = { kind: 'text'; text: string } | { kind: 'call'; call: ShownCall };

export interface ShownCall extends ToolCall {
  /** Whether its result has not come yet. */
  isRunning: boolean;
}

/** An answer under way. */
export interface Turn {
  /** Its id in the history; undefined until it has begun. */
  id: number | undefined;
  /** The id of the answer in whose place it comes. */
  replaces: number | undefined;
  pieces: Piece[];
  /** The tool calls that wait for the user. */
  approvals: Approval[];
  /** The number of its last event that has come. */
  seen: number;
  /** Whether nothing comes because the connection is lost. */
  isLost: boolean;
  /** Whether the user has decided, or wants it to end, and the hub has not answered that. */
  isAsked: boolean;
}

/** What is known of an answer beyond its history, because it was followed here. */
export interface Followed {
  /** In the order in which they came: the history has the text and the calls apart. */
  pieces: readonly Piece[];
  finish_reason?: Answer['finish_reason'];
  /** Why it has failed. */
  error?: unknown;
}

/** @param known what is known of it already */
export function newTurn(known: Partial<Turn>): Turn {
  return {
    id: undefined,
    replaces: undefined,
    pieces: [],
    approvals: [],
    seen: 0,
    isLost: false,
    isAsked: false,
    ...known,
  };
}

/** Takes note of what an event says of an answer, other than its end. */
export function takeNote(turn: Turn, event: ChatResponse): void {
  const { pieces } = turn;
  switch (event.type) {
    case 'start':
      // All of it is told, and may have been told before.
      turn.pieces = [];
      turn.approvals = [];
      turn.id = event.data.message_id;
      break;
    case 'text': {
      const last = pieces.at(-1);
      if (last?.kind === 'text') last.text += event.data.delta;
      else pieces.push({ kind: 'text', text: event.data.delta });
      break;
    }
    case 'tool_call':
      turn.approvals = turn.approvals.filter(({ id }) => id !== event.data.id);
      turn.isAsked = false;
      pieces.push({
        kind: 'call',
        call: { ...event.data, result: null, is_error: false, duration_ms: 0, isRunning: true },
      });
      break;
    case 'tool_result': {
      const { data } = event;
      turn.pieces = pieces.map((piece) =>
        piece.kind === 'call' && piece.call.id === data.id
          ? { kind: 'call', call: { ...piece.call, ...data, isRunning: false } }
          : piece,
      );
      break;
    }
    case 'approval':
      turn.approvals = [...turn.approvals.filter(({ id }) => id !== event.data.id), event.data];
      break;
    case 'finish':
      if (event.data.approvals.length > 0) turn.approvals = event.data.approvals;
      break;
  }
  turn.seen = event.id;
}

/** The parts of an answer in the history, which does not say what came between what: the calls stand before the text. */
export function piecesOf({ content, tool_calls, status }: HistoryMessage, followed?: Followed): readonly Piece[] {
  const pieces = followed?.pieces ?? [];
  const said = pieces.map((piece) => (piece.kind === 'text' ? piece.text : '')).join('');
  const shown = new Map(tool_calls.map((call) => [call.id, { ...call, isRunning: isRunning(call, status) }]));
  const isSame = said === content && pieces.filter(({ kind }) => kind === 'call').length === shown.size;
  if (isSame) {
    return pieces.map((piece) =>
      piece.kind === 'call' ? { kind: 'call', call: shown.get(piece.call.id) ?? piece.call } : piece,
    );
  }
  const calls = [...shown.values()].map((call): Piece => ({ kind: 'call', call }));
  return content === '' ? calls : [...calls, { kind: 'text', text: content }];
}

function isRunning({ result, is_error }: ToolCall, status: HistoryMessage['status']): boolean {
  return status === 'streaming' && result === null && !is_error;
}
