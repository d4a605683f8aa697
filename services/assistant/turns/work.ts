import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { HubError, isTransient } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { textOf, withText, type FinishReason } from '../conversations/conversation.ts';
import type { Conversations } from '../conversations/conversations-store.ts';
import { providerFailure } from '../provider/failure.ts';
import type { Provider } from '../provider/provider.ts';
import type { Toolbox, ToolCaller, ToolSet } from '../toolbox/toolbox.ts';
import { unlessAborted } from '#lib/deadline.ts';
import { Interruption, runAgent, type AgentEnd, type Progress } from './agent.ts';
import type { Bill } from './billing.ts';
import type { LiveTurn } from './live-turn.ts';
import { promptMessages, systemMessage } from './prompt.ts';
import { observed, turnsEnded } from './traces.ts';
import { after } from './turn.ts';
import type { OwnedTurn } from './turn-beginnings-store.ts';
import type { TurnsStore } from './turns-store.ts';
import {
  agentEvent,
  answerLost,
  approvalEvent,
  encoded,
  waitingEvent,
  lastEvent,
  startEvent,
  storedError,
  type EventOf,
} from './wire.ts';

/** The user whose message is answered. */
export interface Asker extends ToolCaller {
  username: string;
}

export interface WorkOptions {
  store: TurnsStore;
  conversations: Conversations;
  provider: Provider;
  toolbox: Toolbox;
  log: Logger;
  /** How often the model is called for one answer. */
  maxSteps: number;
  /** Milliseconds that one answer may take. */
  turnLimit: number;
  /** Tokens that the model is shown. */
  contextTokens: number;
}

/** How long the lease on a turn lasts, in milliseconds. */
export const lease = 5_000;

/** This process does not own the turn any more: its lease ran out, or the conversation was deleted. */
export class TurnTaken extends Error {
  override name = 'TurnTaken';
}

/** The process is shutting down. */
export class Stopping extends Error {
  override name = 'Stopping';
}

/** The work on one turn, from where it is to where it ends or waits. */
export class Work {
  readonly #options: WorkOptions;
  readonly #owner: string;
  readonly #live: LiveTurn;
  readonly #turn: OwnedTurn;
  readonly #asker: Asker;
  readonly #began = performance.now();
  /** The text of all steps until now. */
  #said: string;
  /** The last event that is being kept; those before it are kept before it. */
  #keeping: Promise<void> = Promise.resolve();

  constructor(options: WorkOptions, owner: string, live: LiveTurn, turn: OwnedTurn, asker: Asker) {
    this.#options = options;
    this.#owner = owner;
    this.#live = live;
    this.#turn = turn;
    this.#asker = asker;
    this.#said = textOf(turn.progress.steps);
  }

  /** Doesn't throw: whatever happens is an end of the turn. */
  async run(bill: Bill): Promise<void> {
    const { turnLimit } = this.#options;
    const turn = this.#turn;
    const left = Math.max(0, turnLimit - turn.activeMs);
    const timer = setTimeout(() => this.#live.control.abort(new Interruption('timeUp')), left).unref();
    let progress: Progress = turn.progress;
    let outcome = 'failed';
    try {
      if (turn.nextEvent === 1) this.#tell(startEvent(turn));
      const end = await this.#answer((latest) => (progress = latest));
      progress = end;
      outcome = end.state === 'completed' ? end.finishReason : end.state;
      await this.#settle(end);
    } catch (error) {
      outcome = await this.#fail(error, progress);
    } finally {
      clearTimeout(timer);
      turnsEnded.inc({ outcome });
      this.#log(outcome, progress);
      await bill.settle({
        tokens: progress.inputTokens + progress.outputTokens - turn.progress.inputTokens - turn.progress.outputTokens,
        status: outcome === 'failed' ? 'error' : 'success',
        duration: this.#took(),
      });
    }
  }

  async #answer(note: (progress: Progress) => void): Promise<AgentEnd> {
    const { provider, toolbox, conversations, maxSteps, contextTokens, store } = this.#options;
    const { messageId, conversationId, questionId, question, approveTools, progress } = this.#turn;
    const { signal } = this.#live.control;
    let toolSet: ToolSet;
    try {
      toolSet = await unlessAborted(signal, toolbox.open(this.#asker, signal), (late) => late.close());
    } catch (error) {
      const reason: unknown = signal.reason;
      if (!signal.aborted || !(reason instanceof Interruption)) throw error;
      const state = after(progress.state, reason.event);
      return state === 'stopped'
        ? { ...progress, state }
        : { ...progress, state: 'completed', finishReason: 'max_steps' };
    }
    try {
      const messages = await promptMessages(
        systemMessage(this.#asker.username),
        conversations.exchangesBefore(conversationId, questionId),
        question,
        contextTokens,
      );
      return await runAgent({
        provider,
        toolSet,
        messages,
        progress,
        maxSteps,
        approveTools,
        callId: (step, index) => `call_${messageId}_${step + 1}_${index + 1}`,
        signal,
        emit: (event) => this.#tell(agentEvent(event)),
        save: async (latest) => {
          note(latest);
          if (!(await store.save(messageId, this.#owner, latest))) throw new TurnTaken();
        },
        observe: (observation) => observed(observation, this.#options.log, conversationId),
      });
    } finally {
      toolSet.close().catch((error: unknown) => this.#options.log.warn({ err: error }, 'Tools could not be closed'));
    }
  }

  /** Shows an event, and keeps it for those who follow elsewhere, or later. */
  #tell(event: EventOf): void {
    const { store, log } = this.#options;
    const number = this.#live.next;
    this.#live.show({ id: BigInt(number), event });
    if (event.$case === 'text') this.#said += event.value.delta;
    this.#keeping = store.append(encoded(this.#turn.messageId, number, event)).catch((error: unknown) => {
      log.warn({ err: error, answer: String(this.#turn.messageId) }, 'An event of an answer could not be kept');
    });
  }

  async #settle(end: AgentEnd): Promise<void> {
    const { store, provider } = this.#options;
    const { messageId, conversationId, activeMs } = this.#turn;
    const { steps, inputTokens, outputTokens } = end;
    const answer = {
      id: messageId,
      conversationId,
      steps,
      model: provider.model,
      usage: { inputTokens, outputTokens },
    };
    const number = this.#live.next;

    if (end.state === 'waiting') {
      const events = [approvalEvent(end.waitingFor), waitingEvent(answer, end.waitingFor)];
      const worked = Math.round(activeMs + this.#took());
      await this.#persist(() =>
        store.hold(
          messageId,
          this.#owner,
          end,
          worked,
          events.map((event, index) => encoded(messageId, number + index, event)),
        ),
      );
      for (const event of events) this.#live.show({ id: BigInt(this.#live.next), event });
      return;
    }

    const error = end.state === 'failed' ? storedError(providerFailure(end.error)) : undefined;
    const finishReason: FinishReason | undefined =
      end.state === 'completed' ? end.finishReason : end.state === 'stopped' ? 'stopped' : undefined;
    const last = lastEvent({ ...answer, state: end.state, finishReason, error });
    const ending = {
      messageId,
      owner: this.#owner,
      state: end.state,
      progress: end,
      content: textOf(steps),
      model: provider.model,
      finishReason,
      error,
    };
    await this.#persist(() => store.end(ending, encoded(messageId, number, last)));
    this.#live.show({ id: BigInt(number), event: last });
  }

  /** Keeps the end of a turn, as soon as the database takes it, as long as the turn may still be this process's. */
  async #persist(keep: () => Promise<boolean>): Promise<void> {
    const giveUp = Date.now() + lease;
    // Whoever sees the end has to find all that came before.
    await this.#keeping;
    for (let pause = 50; ; pause = Math.min(1_000, pause * 2)) {
      try {
        if (!(await keep())) throw new TurnTaken();
        return;
      } catch (error) {
        if (!isTransient(error) || Date.now() > giveUp) throw error;
        await sleep(pause);
      }
    }
  }

  /** @returns what has become of the turn */
  async #fail(error: unknown, progress: Progress): Promise<string> {
    const { log, store, provider } = this.#options;
    const { messageId, conversationId } = this.#turn;
    if (error instanceof TurnTaken) {
      await this.#showEndOfOthers();
      return 'taken';
    }
    let failure: HubError;
    if (error instanceof HubError) failure = error;
    else if (error instanceof Stopping) failure = answerLost();
    else {
      log.error({ err: error, answer: String(messageId) }, 'An answer has failed');
      failure = new HubError('INTERNAL', 'INTERNAL', 'Something went wrong on our side');
    }
    const stored = storedError(failure);
    const steps = withText(progress.steps, this.#said);
    const number = this.#live.next;
    const answer = {
      id: messageId,
      conversationId,
      steps,
      model: provider.model,
      usage: { inputTokens: progress.inputTokens, outputTokens: progress.outputTokens },
      finishReason: undefined,
      error: stored,
    };
    const last = lastEvent({ ...answer, state: 'failed' });
    const ending = {
      messageId,
      owner: this.#owner,
      state: 'failed' as const,
      progress: { ...progress, steps },
      content: textOf(steps),
      model: provider.model,
      finishReason: undefined,
      error: stored,
    };
    try {
      await this.#persist(() => store.end(ending, encoded(messageId, number, last)));
    } catch (unkept) {
      // Then another process ends it, once it is out of this one's hands.
      log.warn({ err: unkept, answer: String(messageId) }, 'The end of an answer could not be kept');
    }
    this.#live.show({ id: BigInt(number), event: last });
    return 'failed';
  }

  /** Somebody else has ended the turn, or deleted it: who follows it here is told how. */
  async #showEndOfOthers(): Promise<void> {
    const { store } = this.#options;
    const kept = await store.read(this.#turn.messageId, this.#live.next - 1).catch(() => undefined);
    const last = kept?.events.at(-1);
    if (last !== undefined) return this.#live.show(ChatResponse.decode(last.event));
    const { messageId: id, conversationId } = this.#turn;
    const error = storedError(answerLost());
    const answer = { id, conversationId, steps: [], model: '', usage: undefined, finishReason: undefined, error };
    this.#live.show({ id: BigInt(this.#live.next), event: lastEvent({ ...answer, state: 'failed' }) });
  }

  #took(): number {
    return performance.now() - this.#began;
  }

  #log(outcome: string, { steps, inputTokens, outputTokens }: Progress): void {
    this.#options.log.info(
      {
        'gen_ai.operation.name': 'invoke_agent',
        'gen_ai.agent.name': 'assistant',
        'gen_ai.conversation.id': String(this.#turn.conversationId),
        'gen_ai.request.model': this.#options.provider.model,
        'gen_ai.usage.input_tokens': inputTokens,
        'gen_ai.usage.output_tokens': outputTokens,
        answer: String(this.#turn.messageId),
        by: this.#asker.userId,
        steps: steps.length,
        outcome,
        durationMs: Math.round(this.#took() * 10) / 10,
      },
      'invoke_agent',
    );
  }
}
