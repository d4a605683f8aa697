import { once, EventEmitter } from 'node:events';
import { v4 as uuid } from 'uuid';
import type { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { openConversations } from '../services/assistant/conversations/conversations-store.ts';
import type { Prompt, Provider, ProviderError, ProviderEvent } from '../services/assistant/provider/provider.ts';
import { database } from '../services/assistant/database.ts';
import type { Tool, Toolbox, ToolCaller, ToolOutcome } from '../services/assistant/toolbox/toolbox.ts';
import { openTurns, type Turns, type TurnsOptions } from '../services/assistant/turns/turns.ts';
import { openTurnsStore, type TurnsStore } from '../services/assistant/turns/turns-store.ts';
import type { Asker } from '../services/assistant/turns/work.ts';
import type { Harness } from './harness.ts';

/** A call of the model that waits for the test to say what comes of it. */
export interface ModelCall {
  prompt: Prompt;
  signal: AbortSignal;
  say(delta: string): void;
  /** Ends the call, with requests for tools if there are any. */
  finish(reason?: 'stop' | 'length', requests?: readonly [name: string, args: string][]): void;
  fail(error: ProviderError | Error): void;
}

/** A call of a tool that waits for the test. */
export interface DeskCall {
  name: string;
  arguments: unknown;
  callId: string;
  caller: ToolCaller;
  signal: AbortSignal;
  answer(outcome: ToolOutcome): void;
}

const pendingCall = { inputTokens: 7, outputTokens: 3 };

/** A model and tools that do what a test says, when it says so. */
export class Desk {
  readonly provider: Provider;
  readonly toolbox: Toolbox;
  /** All calls until now, and those that nobody has taken yet. */
  readonly modelCalls: ModelCall[] = [];
  readonly toolCalls: DeskCall[] = [];
  readonly #news = new EventEmitter();
  #modelsTaken = 0;
  #toolsTaken = 0;

  constructor(tools: readonly Tool[]) {
    this.#news.setMaxListeners(0);
    this.provider = {
      model: 'desk',
      complete: (prompt, signal) => this.#complete(prompt, signal),
      close: async () => {},
    };
    this.toolbox = {
      open: async (caller) => ({
        tools,
        missing: [],
        call: ({ name, arguments: given, callId }, signal) =>
          new Promise((resolve) => {
            this.toolCalls.push({ name, arguments: given, callId, caller, signal, answer: resolve });
            this.#news.emit('news');
          }),
        close: async () => {},
      }),
      others: [],
      problems: () => [],
      close: async () => {},
    } as Toolbox;
  }

  /** The next call of the model that nobody has taken. */
  async modelCall(): Promise<ModelCall> {
    while (this.modelCalls.length <= this.#modelsTaken) await once(this.#news, 'news', this.#limit());
    return this.modelCalls[this.#modelsTaken++]!;
  }

  async toolCall(): Promise<DeskCall> {
    while (this.toolCalls.length <= this.#toolsTaken) await once(this.#news, 'news', this.#limit());
    return this.toolCalls[this.#toolsTaken++]!;
  }

  #limit() {
    return { signal: AbortSignal.timeout(20_000) };
  }

  async *#complete(prompt: Prompt, signal: AbortSignal): AsyncGenerator<ProviderEvent> {
    const waiting: (ProviderEvent | Error)[] = [];
    let wake = Promise.withResolvers<void>();
    const give = (...events: (ProviderEvent | Error)[]) => {
      waiting.push(...events);
      wake.resolve();
    };
    this.modelCalls.push({
      prompt,
      signal,
      say: (delta) => give({ kind: 'text', delta }),
      finish: (reason = 'stop', requests = []) =>
        give(
          ...requests.map(([name, args]): ProviderEvent => ({
            kind: 'toolRequest',
            request: { id: `r_${uuid()}`, name, arguments: args },
          })),
          { kind: 'finish', reason: requests.length > 0 ? 'toolRequests' : reason, usage: pendingCall },
        ),
      fail: (error) => give(error),
    });
    this.#news.emit('news');
    for (;;) {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        if (next instanceof Error) throw next;
        yield next;
        if (next.kind === 'finish') return;
      }
      await wake.promise;
      wake = Promise.withResolvers();
    }
  }
}

/** A process of the assistant, as far as its turns go. */
export interface Replica {
  turns: Turns;
  store: TurnsStore;
  /** From now on nothing of it reaches the database, as if it were dead. */
  die(): void;
  close(): Promise<void>;
}

/** Opens such a process, within this one, on the database of a harness. */
export function openReplica(
  harness: Harness,
  desk: Pick<Desk, 'provider' | 'toolbox'>,
  limits: Partial<Pick<TurnsOptions, 'maxSteps' | 'turnLimit' | 'contextTokens'>> & { rateLimit?: number } = {},
): Replica {
  const { rateLimit = 1_000_000, ...more } = limits;
  const db = openDatabase(database, { url: harness.databaseUrl('assistant'), poolSize: 4, name: 'replica' });
  let isDead = false;
  const store = new Proxy(openTurnsStore(db, { lease: 5_000, rateLimit }), {
    get: (target, name) => (isDead ? () => new Promise(() => {}) : (target[name as keyof typeof target] as unknown)),
  });
  const turns = openTurns({
    store,
    conversations: openConversations(db),
    provider: desk.provider,
    toolbox: desk.toolbox,
    billing: { reserve: async () => ({ settle: async () => {} }) },
    log: openLog({ name: 'replica', format: 'json', level: 'silent' }),
    maxSteps: 8,
    turnLimit: 60_000,
    contextTokens: 32_000,
    ...more,
  });
  return {
    turns,
    store,
    die: () => void (isDead = true),
    async close() {
      const closed = turns.close();
      if (!isDead) await closed;
      await db.close();
    },
  };
}

/** Somebody who asks. */
export function newAsker(): Asker {
  return { userId: uuid(), numId: 7n, username: 'asker', requestId: uuid(), credentials: {} };
}

/** The name of an event's kind. */
export function kindOf({ event }: ChatResponse): string {
  return event?.$case ?? 'none';
}
