import { RefusedError } from '#client';
import type { ChatResponse } from '#client/assistant';
import { LoggedOutError, pauseOrReach } from '../shell/session.ts';
import type { Turn } from './turn.ts';

/** Between two tries to reach the hub, in milliseconds. */
export const [firstPause, longestPause] = [1_000, 15_000];

/** Whether a call may succeed a moment later. */
export function isPassing(error: unknown): boolean {
  return !(error instanceof RefusedError) || error.status >= 500 || error.status === 429;
}

/** Whoever follows an answer. */
export interface Follower {
  /** Aborted when the answer is of no interest any more. */
  signal: AbortSignal;
  take(event: ChatResponse): void;
  /** The events behind those that were taken. */
  rest(): AsyncIterable<ChatResponse>;
  /**
   * Whether the answer is over, as the history says.
   *
   * @param failure why its events have ended, where that was a failure. @throws what the client throws
   */
  isOver(failure: unknown): Promise<boolean>;
  /** Called when it is known whether the connection is lost. */
  changed(): void;
}

/**
 * Follows an answer until it ends or waits for the user, however often the connection is lost.
 *
 * @throws what the client throws if nothing has come of the answer
 */
export async function follow(
  turn: Turn,
  first: AsyncIterable<ChatResponse>,
  { signal, take, rest, isOver, changed }: Follower,
): Promise<void> {
  let events = first;
  for (let pause = firstPause; ;) {
    let failure: unknown;
    const { seen } = turn;
    try {
      for await (const event of events) {
        turn.isLost = false;
        pause = firstPause;
        take(event);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (turn.id === undefined || (events === first && turn.seen === seen && !isPassing(error))) throw error;
      failure = error;
    }
    if (signal.aborted) return;
    // Whatever has become of the stream: the history says what has become of the answer.
    try {
      if (await isOver(failure)) return;
      turn.isLost = false;
    } catch (error) {
      if (!isPassing(error)) throw error;
      failure = error;
      turn.isLost = !(error instanceof LoggedOutError);
    }
    changed();
    if (failure === undefined && turn.approvals.length > 0) {
      turn.isAsked = false;
      return;
    }
    await pauseOrReach(pause);
    if (signal.aborted) return;
    pause = Math.min(2 * pause, longestPause);
    events = rest();
  }
}
