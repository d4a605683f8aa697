/**
 * A turn is the answer of the assistant to one message of its user.
 *
 * - `calling`: the model is being called
 * - `acting`: tools that it has asked for are being called, one after the other
 * - `waiting`: the next of them waits for the user. No process owns the turn then
 * - `completed`, `stopped`, `failed`: its ends
 */
export type TurnState = 'calling' | 'acting' | 'waiting' | 'completed' | 'stopped' | 'failed';

/** What happens to a turn. */
export type TurnEvent =
  /** The model has finished, and asks for no tool. */
  | 'answered'
  /** The model has asked for tools. */
  | 'asked'
  /** A tool has an outcome, and another one is to be called. */
  | 'acted'
  /** The user has to be asked before the next tool is called. */
  | 'held'
  /** The user has approved the tool call, or refused it. */
  | 'decided'
  /** All tools have an outcome, and the model is to read them. */
  | 'told'
  /** All tools have an outcome, but the model may not be called again. */
  | 'stepsUsed'
  /** The turn has worked for as long as it may. */
  | 'timeUp'
  /** The model's provider has given no answer. */
  | 'providerFailed'
  /** The user wants it to end. */
  | 'stop'
  /** The process that works on it has died. */
  | 'ownerLost'
  /** The user has not decided for too long. */
  | 'forgotten';

/** That nothing comes of it, or that it can't happen. */
type NoState = 'ignored' | 'impossible';

/** What becomes of a turn in each state by each event. */
export const transitions: Readonly<Record<TurnState, Readonly<Record<TurnEvent, TurnState | NoState>>>> = {
  calling: {
    answered: 'completed',
    asked: 'acting',
    acted: 'impossible',
    held: 'impossible',
    decided: 'ignored',
    told: 'impossible',
    stepsUsed: 'impossible',
    timeUp: 'completed',
    providerFailed: 'failed',
    stop: 'stopped',
    ownerLost: 'failed',
    forgotten: 'impossible',
  },
  acting: {
    answered: 'impossible',
    asked: 'impossible',
    acted: 'acting',
    held: 'waiting',
    decided: 'ignored',
    told: 'calling',
    stepsUsed: 'completed',
    timeUp: 'completed',
    providerFailed: 'impossible',
    stop: 'stopped',
    ownerLost: 'failed',
    forgotten: 'impossible',
  },
  waiting: {
    answered: 'impossible',
    asked: 'impossible',
    acted: 'impossible',
    held: 'impossible',
    decided: 'acting',
    told: 'impossible',
    stepsUsed: 'impossible',
    timeUp: 'impossible',
    providerFailed: 'impossible',
    stop: 'stopped',
    ownerLost: 'ignored',
    forgotten: 'stopped',
  },
  completed: ended(),
  stopped: ended(),
  failed: ended(),
};

/** What reaches a turn that has ended comes from outside, and too late. */
function ended() {
  return {
    answered: 'impossible',
    asked: 'impossible',
    acted: 'impossible',
    held: 'impossible',
    decided: 'ignored',
    told: 'impossible',
    stepsUsed: 'impossible',
    timeUp: 'impossible',
    providerFailed: 'impossible',
    stop: 'ignored',
    ownerLost: 'ignored',
    forgotten: 'ignored',
  } as const;
}

/** @returns the state after an event; the same one if nothing comes of it */
export function after(state: TurnState, event: TurnEvent): TurnState {
  const next = transitions[state][event];
  if (next === 'impossible') throw new Error(`A turn that is ${state} can't be ${event}`);
  return next === 'ignored' ? state : next;
}
