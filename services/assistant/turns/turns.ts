import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { v4 as uuid } from 'uuid';
import { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { withTracedContext } from '#lib/tracing.ts';
import { waitAtMost } from '#lib/deadline.ts';
import { HubError } from '#lib/errors.ts';
import { repeat } from '#lib/loop.ts';
import { gauge } from '#lib/metrics.ts';
import { fromStatusMessage } from '#lib/rpc/status.ts';
import { textOf, withText, type Step } from '../conversations/conversation.ts';
import type { Message } from '../conversations/conversations-store.ts';
import { Interruption } from './agent.ts';
import type { Bill, Billing } from './billing.ts';
import { LiveTurn } from './live-turn.ts';
import { storableText } from './tool-arguments.ts';
import { turnsEnded } from './traces.ts';
import { after, type TurnEvent } from './turn.ts';
import { LostTurn, type OwnedTurn } from './turn-beginnings-store.ts';
import { lostEventsGap } from './turns-store.ts';
import { answerLost, encoded, isLast, isPause, lastEvent, storedError } from './wire.ts';
import { lease, Stopping, TurnTaken, Work, type Asker, type WorkOptions } from './work.ts';

export interface ChatWish {
  conversationId: bigint | undefined;
  message: string;
  approveTools: boolean;
  /** Empty without one. */
  idempotencyKey: string;
}

export interface TurnsOptions extends WorkOptions {
  billing: Billing;
}

/** Where to follow an answer from. */
export interface Following {
  messageId: bigint;
  /** The number of the event before. */
  after: number;
}

export type Turns = ReturnType<typeof openTurns>;

const renewEvery = 500;
const sweepEvery = 1_000;
const cleanEvery = 60_000;
/** Milliseconds between two reads of the events that another process writes. */
const readEvery = 150;
/** How long somebody who stops an answer waits for its end. */
const stopPatience = lease + 3_000;

const turnsRunning = gauge('assistant_turns_running', 'Answers that this process works on');

/** The answers of the assistant: begins them, works on them whether somebody listens or not, and lets them be followed and ended. */
export function openTurns(options: TurnsOptions) {
  const { store, log } = options;
  const owner = uuid();
  const live = new Map<bigint, LiveTurn>();

  /** Works on a turn in the background. */
  function work(turn: OwnedTurn, asker: Asker, bill: Bill): Following {
    const worked = new LiveTurn(turn);
    live.set(turn.messageId, worked);
    turnsRunning.inc();
    const context = { requestId: asker.requestId, client: asker.userId };
    const run = () => new Work(options, owner, worked, turn, asker).run(bill);
    void withTracedContext(context, 'assistant turn', {}, run).finally(() => {
      live.delete(turn.messageId);
      turnsRunning.dec();
      worked.close();
    });
    return { messageId: turn.messageId, after: turn.nextEvent - 1 };
  }

  /** Begins a turn, once one that is lost is out of its way. */
  async function begin<T>(asker: Asker, attempt: () => Promise<T>): Promise<[begun: T, bill: Bill]> {
    const bill = await options.billing.reserve(asker);
    try {
      try {
        return [await attempt(), bill];
      } catch (error) {
        if (!(error instanceof LostTurn)) throw error;
        await endLost(error.messageId);
        return [await attempt(), bill];
      }
    } catch (error) {
      await bill.settle({ tokens: 0, status: undefined, duration: 0 });
      if (error instanceof LostTurn) throw answerLost();
      throw error;
    }
  }

  /** Ends a turn that nobody works on. */
  async function endUnowned(messageId: bigint, event: Extract<TurnEvent, 'stop' | 'forgotten' | 'ownerLost'>) {
    const from = event === 'ownerLost' ? 'lost' : 'waiting';
    const isEnded = await store.endUnowned(messageId, from, (message, events) => {
      const state = after(from === 'lost' ? 'acting' : 'waiting', event) as 'stopped' | 'failed';
      const steps = from === 'lost' ? stepsFrom(message, events) : message.steps;
      const { inputTokens, outputTokens } = message.usage ?? { inputTokens: 0, outputTokens: 0 };
      const error = state === 'failed' ? storedError(answerLost()) : undefined;
      const model = message.model ?? options.provider.model;
      const number = (events.at(-1)?.number ?? 0) + (from === 'lost' ? lostEventsGap : 1);
      const last = lastEvent({ ...message, state, steps, model, error });
      return {
        ending: {
          state,
          progress: { state, steps, inputTokens, outputTokens },
          content: textOf(steps),
          model,
          finishReason: state === 'stopped' ? ('stopped' as const) : undefined,
          error,
        },
        last: encoded(messageId, number, last),
      };
    });
    if (isEnded) turnsEnded.inc({ outcome: from === 'lost' ? 'lost' : 'stopped' });
    return isEnded;
  }

  async function endLost(messageId: bigint): Promise<void> {
    if (await endUnowned(messageId, 'ownerLost'))
      log.warn(
        { answer: String(messageId) },
        'The process that made an answer has died: the answer is marked as failed',
      );
  }

  const renewal = repeat('The watch over answers under way', log, async () => {
    const watched = [...live.values()];
    if (watched.length === 0) return renewEvery;
    const renewed = await store.renew(
      owner,
      watched.map(({ messageId }) => messageId),
    );
    const own = new Map(renewed.map((each) => [each.messageId, each]));
    for (const turn of watched) {
      const found = own.get(turn.messageId);
      if (found === undefined) turn.control.abort(new TurnTaken());
      else if (found.isStopAsked) turn.control.abort(new Interruption('stop'));
    }
    return renewEvery;
  });

  const sweep = repeat('Ending answers whose process has died', log, async () => {
    for (const messageId of await store.lost()) await endLost(messageId);
    return sweepEvery;
  });

  const cleaning = repeat('Forgetting what is known of old answers', log, async () => {
    for (const messageId of await store.forgotten()) await endUnowned(messageId, 'forgotten');
    return (await store.clean()) ? 0 : cleanEvery;
  });

  /** What there is of a turn that another process works on, or that has ended. */
  async function* read(messageId: bigint, from: number, signal: AbortSignal): AsyncGenerator<ChatResponse> {
    for (let at = from; !signal.aborted;) {
      const { state, events, isCut } = await store.read(messageId, at);
      const isWaiting = state === 'waiting';
      for (const [index, { number, event }] of events.entries()) {
        at = number;
        const response = ChatResponse.decode(event);
        // It said that the answer waits, which it did then.
        const isPast = !isWaiting || isCut || index < events.length - 1;
        if (!isPast || !isPause(response)) yield response;
      }
      if (isCut) continue;
      if (state === undefined || isWaiting || state === 'completed' || state === 'stopped' || state === 'failed')
        return;
      const here = live.get(messageId);
      if (here !== undefined) return yield* here.follow(at, signal);
      await sleep(readEvery, undefined, { signal }).catch(() => {});
    }
  }

  /** The events of an answer behind a number, until it ends or waits for the user. */
  async function* follow({ messageId, after: from }: Following, signal: AbortSignal): AsyncGenerator<ChatResponse> {
    const here = live.get(messageId);
    if (here !== undefined && from + 1 >= here.first) yield* here.follow(from, signal);
    else yield* read(messageId, from, signal);
  }

  return {
    /** Begins to answer a message, or finds the answer that its idempotency key was given before. */
    async chat(wish: ChatWish, asker: Asker): Promise<Following> {
      const { conversationId, approveTools, idempotencyKey: key } = wish;
      const message = storableText(wish.message);
      const fingerprint = createHash('sha256')
        .update(JSON.stringify([String(conversationId ?? ''), message, approveTools]))
        .digest('base64url');
      const idempotency = key === '' ? undefined : { key: storableText(key), fingerprint };
      const { userId, numId } = asker;
      const [begun, bill] = await begin(asker, () =>
        store.begin({ userId, numId, owner, conversationId, message, approveTools, idempotency }),
      );
      if ('turn' in begun) return work(begun.turn, asker, bill);
      await bill.settle({ tokens: 0, status: undefined, duration: 0 });
      return { messageId: begun.known, after: 0 };
    },

    /** Begins to answer the last message of the user anew. */
    async regenerate(conversationId: bigint, approveTools: boolean, asker: Asker): Promise<Following> {
      const { userId, numId } = asker;
      const [turn, bill] = await begin(asker, () =>
        store.regenerate({ userId, numId, owner, approveTools }, conversationId),
      );
      return work(turn, asker, bill);
    },

    /** Goes on with an answer after the user has decided about a tool call. */
    async decide(conversationId: bigint, approvalId: string, isApproved: boolean, asker: Asker): Promise<Following> {
      const { userId } = asker;
      const [turn, bill] = await begin(asker, () =>
        store.decide({ userId, owner }, conversationId, approvalId, isApproved),
      );
      return work(turn, asker, bill);
    },

    follow,

    /**
     * Where to follow the answer under way in a conversation, for whoever has seen its events up to one; or the one that has just ended,
     * for whoever has not seen its end. Undefined if there is nothing to follow.
     */
    async resume(conversationId: bigint, lastSeen: number): Promise<Following | undefined> {
      const open = await store.findOpen(conversationId);
      if (open !== undefined) {
        const here = live.get(open.messageId);
        // An event that this answer doesn't have yet is from another answer.
        const isOther = here !== undefined && lastSeen >= here.next;
        if (isOther) return { messageId: open.messageId, after: 0 };
        if (here !== undefined || lastSeen === 0) return { messageId: open.messageId, after: lastSeen };
        const { events } = await store.read(open.messageId, lastSeen - 1);
        return { messageId: open.messageId, after: events[0]?.number === lastSeen ? lastSeen : 0 };
      }
      if (lastSeen === 0) return undefined;
      const messageId = await store.findEnded(conversationId);
      if (messageId === undefined) return undefined;
      const { events } = await store.read(messageId, lastSeen);
      return events.length === 0 ? undefined : { messageId, after: lastSeen };
    },

    /**
     * Waits until an answer ends, or waits for the user.
     *
     * @returns its last event
     * @throws HubError of an answer that has failed
     */
    async outcome(following: Following, signal: AbortSignal): Promise<ChatResponse> {
      let last: ChatResponse | undefined;
      for await (const event of follow(following, signal)) last = event;
      if (last?.event === undefined || !isLast(last)) {
        signal.throwIfAborted();
        last = await kept(following.messageId);
      }
      if (last.event?.$case === 'error') throw fromStatusMessage(last.event.value);
      return last;
    },

    /** Ends the answer under way in a conversation. @returns whether there was one, and this has ended it */
    async stop(conversationId: bigint): Promise<boolean> {
      const giveUp = Date.now() + stopPatience;
      for (let asked: bigint | undefined; ;) {
        const open = await store.findOpen(conversationId);
        if (open === undefined || (asked !== undefined && open.messageId !== asked)) {
          const message = asked === undefined ? undefined : await store.findMessage(asked);
          return message?.status === 'stopped';
        }
        if (open.state === 'waiting' && (await endUnowned(open.messageId, 'stop'))) return true;
        const here = live.get(open.messageId);
        if (here !== undefined) {
          here.control.abort(new Interruption('stop'));
          await waitAtMost(stopPatience, here.over);
        } else if (asked === undefined) {
          await store.askStop(open.messageId);
        }
        asked = open.messageId;
        if (Date.now() > giveUp)
          throw new HubError('DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED', 'The answer does not end');
        await sleep(20);
      }
    },

    /** Ends what this process works on, which is then failed. */
    async close(): Promise<void> {
      const working = [...live.values()];
      for (const turn of working) turn.control.abort(new Stopping());
      await Promise.all([renewal.stop(), sweep.stop(), cleaning.stop(), ...working.map((turn) => turn.over)]);
    },
  };

  /** The last event of an answer whose events are not kept any more. */
  async function kept(messageId: bigint): Promise<ChatResponse> {
    const message = await store.findMessage(messageId);
    if (message === undefined || message.status === 'streaming') throw answerLost();
    return { id: 1n, event: lastEvent({ ...message, state: message.status }) };
  }
}

/** What was said until a process died: what it kept itself, and behind that what its events say. */
function stepsFrom(message: Message, events: readonly { event: Buffer }[]): readonly Step[] {
  const said = events
    .map(({ event }) => ChatResponse.decode(event).event)
    .map((event) => (event?.$case === 'text' ? event.value.delta : ''))
    .join('');
  return withText(message.steps, said);
}
