import { signal } from '@preact/signals';
import { isRefused, RefusedError } from '#client';
import type { Answer, Approval, ChatResponse, HistoryMessage } from '#client/assistant';
import { wordsFor } from '../shell/errors.ts';
import { goTo, path, urlOf } from '../shell/router.ts';
import { client, me, pauseOrReach } from '../shell/session.ts';
import { loadNewest } from './conversations.ts';
import { firstPause, follow, isPassing, longestPause } from './following.ts';
import { addQuestion, changeQuestion, findQuestions, questions, removeQuestion, type Question } from './questions.ts';
import { newTurn, piecesOf, takeNote, type Followed, type Turn } from './turn.ts';

/** Messages that are loaded at once. */
const pageSize = 40;
/** For how long pieces of text are gathered before they are shown, in milliseconds. */
const gathering = 16;
/** Characters of an answer that are read out when it is complete. */
const saidAtOnce = 2_000;

/**
 * A conversation with the assistant, as far as it is loaded, with the answer under way. An answer goes on at the hub whether somebody follows
 * it or not, so it is followed only while it is shown; a question is sent until it is accepted, also in the background.
 */
export class Chat {
  static #count = 0;
  /** Tells it from all others of this page, also before it has an id. */
  readonly number = (Chat.#count += 1);
  /** Its id at the hub; undefined until its first question is accepted. */
  id: number | undefined;
  /** The messages that are loaded, oldest first; undefined until then. */
  rows: readonly HistoryMessage[] | undefined;
  /** Whether there are older ones. */
  hasEarlier = false;
  turn: Turn | undefined;
  /** Changes with everything above. */
  readonly version = signal(0);
  /** Changes with what the answer under way says. */
  readonly progress = signal(0);
  /** Why it could not be loaded. */
  readonly error = signal<unknown>(undefined);
  /** Why something that the user wanted could not be done. */
  readonly failure = signal<unknown>(undefined);
  /** What happens, for those who hear the page. */
  readonly said = signal('');
  readonly #followed = new Map<number, Followed>();
  #aborter = new AbortController();
  #isOpen = false;
  #isWorking = false;
  /** Counts the loads of the newest messages: one that was overtaken is of no use. */
  #asked = 0;
  #taken = 0;
  #gathering: ReturnType<typeof setTimeout> | undefined;

  constructor(id: number | undefined) {
    this.id = id;
    if (id === undefined) this.rows = [];
  }

  /** The questions that are not in the history yet. */
  get questions(): readonly Question[] {
    return questions.value.filter((each) => chats.get(nameOf(each)) === this);
  }

  /** Whether a question can be asked now. */
  get isFree(): boolean {
    void this.version.value;
    return this.turn === undefined && !this.questions.some(({ state }) => state === 'waiting');
  }

  /** What is known of an answer that was followed here. */
  followed(id: number): Followed | undefined {
    return this.#followed.get(id);
  }

  /** It is shown: it is loaded, and the answer under way is followed. */
  open(): void {
    this.#isOpen = true;
    void this.load();
    void this.work();
  }

  /** It is shown no more. */
  close(): void {
    this.#isOpen = false;
    // A question that is being sent goes on until it is accepted.
    if (this.turn === undefined || this.turn.id !== undefined) this.#leave();
  }

  /** Loads the newest messages, and follows the answer under way. */
  async load(): Promise<void> {
    if (this.id === undefined) return;
    try {
      await this.#refresh();
      this.error.value = undefined;
    } catch (error) {
      this.error.value = error;
      return;
    }
    if (!this.#isOpen) return;
    const { turn } = this;
    const last = this.rows?.at(-1);
    if (turn === undefined) {
      if (last?.role === 'assistant' && last.status === 'streaming') await this.#resume(last);
    } else if (turn.approvals.length > 0 && !turn.isAsked) {
      // It may have been decided in another tab.
      turn.isAsked = true;
      await this.#follow(turn, this.#eventsBehind(turn.seen)).catch(() => {});
    }
  }

  /** Loads the page before the oldest message. @param taking called right before what is shown changes */
  async loadEarlier(taking: () => void): Promise<void> {
    const before = this.rows?.[0];
    if (before === undefined || this.id === undefined) return;
    const page = await client.assistant.getHistory({
      user_id: me(),
      conversation_id: this.id,
      limit: pageSize,
      before_id: before.id,
    });
    // Meanwhile all may have been loaded anew.
    if (this.rows?.[0]?.id !== before.id) return;
    taking();
    this.rows = [...page, ...this.rows];
    this.hasEarlier = page.length === pageSize;
    this.version.value += 1;
  }

  /** Asks the assistant something. */
  ask(message: string, approve: boolean): void {
    const question = addQuestion({ conversation: this.id, message, approve });
    if (this.id === undefined) {
      chats.delete('new');
      chats.set(question.key, this);
      goTo(urlOf('assistant', 'new', question.key), { replace: true });
    }
    this.failure.value = undefined;
    void this.work();
  }

  /** Sends the questions that wait, one after the other: the next one once the answer to the last one has ended. */
  async work(): Promise<void> {
    if (this.#isWorking) return;
    this.#isWorking = true;
    let pause = firstPause;
    try {
      while (this.turn === undefined) {
        const next = questions.peek().find((each) => chats.get(nameOf(each)) === this && each.state === 'waiting');
        if (next === undefined) break;
        try {
          await this.#send(next);
          pause = firstPause;
        } catch (error) {
          this.#endTurn();
          if (isRefused(error, 'TURN_IN_PROGRESS')) {
            // Asked in another tab. Where it is followed, this goes on behind it.
            await this.load();
          } else if (!isPassing(error)) {
            changeQuestion(next.key, { state: 'refused', reason: wordsFor(error) });
            continue;
          }
          changeQuestion(next.key, { reason: error instanceof RefusedError ? wordsFor(error) : '' });
          await pauseOrReach(Math.max(pause, error instanceof RefusedError ? (error.retryAfter ?? 0) * 1_000 : 0));
          pause = Math.min(2 * pause, longestPause);
        }
      }
    } finally {
      this.#isWorking = false;
    }
    if (!this.#isOpen) this.#leave();
  }

  /** Has the last question answered anew. */
  async regenerate(approve: boolean): Promise<void> {
    if (this.id === undefined || this.turn !== undefined) return;
    const last = this.rows?.at(-1);
    const turn = this.#beginTurn({ replaces: last?.role === 'assistant' ? last.id : undefined });
    const request = { user_id: me(), conversation_id: this.id, approve_tools: approve };
    try {
      await this.#follow(turn, client.assistant.regenerateAnswerEvents(request, { signal: this.#aborter.signal }));
    } catch (error) {
      this.#endTurn();
      this.failure.value = error;
      // Where only the response was lost, it is under way.
      await this.load();
    }
  }

  /** Decides about a tool call. */
  async decide({ approval_id }: Approval, approve: boolean): Promise<void> {
    const { id, turn } = this;
    if (id === undefined || turn === undefined || turn.isAsked) return;
    this.failure.value = undefined;
    turn.isAsked = true;
    this.#changed();
    const request = { user_id: me(), conversation_id: id, approval_id, approve };
    try {
      await this.#follow(turn, client.assistant.decideApprovalEvents(request, { signal: this.#aborter.signal }));
    } catch (error) {
      turn.isAsked = false;
      // Where it was decided in another tab, or where only the response was lost, the answer goes on.
      if (!isRefused(error, 'ALREADY_DECIDED')) this.failure.value = error;
      this.#changed();
      await this.#follow(turn, this.#eventsBehind(turn.seen)).catch(() => {});
    }
  }

  /** Ends the answer under way. What it has said is kept. */
  async stop(): Promise<void> {
    const { id, turn } = this;
    if (id === undefined || turn?.id === undefined || turn.isAsked) return;
    this.failure.value = undefined;
    turn.isAsked = true;
    this.#changed();
    try {
      await client.assistant.stopAnswer({ user_id: me(), conversation_id: id });
      // While an answer waits for the user, no event tells its end.
      if (this.turn === turn && turn.approvals.length > 0) await this.#endByHistory(turn, undefined);
    } catch (error) {
      this.failure.value = error;
    } finally {
      turn.isAsked = false;
      this.#changed();
    }
  }

  /** Asks a question, and follows its answer. @throws what the client throws if the answer has not begun */
  async #send(question: Question): Promise<void> {
    const { key, message, approve } = question;
    const turn = this.#beginTurn({});
    const request = {
      user_id: me(),
      ...(this.id === undefined ? {} : { conversation_id: this.id }),
      message,
      approve_tools: approve,
      idempotency_key: key,
    };
    const events = client.assistant.chatEvents(request, { signal: this.#aborter.signal });
    await this.#follow(turn, events, (conversation, answer) => {
      this.#accept(question, conversation, answer);
    });
  }

  #accept({ key }: Question, conversation: number, answer: number): void {
    if (this.id === undefined) {
      this.id = conversation;
      chats.delete(key);
      chats.set(String(conversation), this);
      changeQuestion(key, { conversation, answer, state: 'accepted' });
      if (path.peek()[0] === 'assistant' && path.peek()[2] === key) {
        goTo(urlOf('assistant', String(conversation)), { replace: true });
      }
    } else {
      changeQuestion(key, { answer, state: 'accepted' });
    }
    this.version.value += 1;
    void loadNewest();
    // The question takes its place in the history. If that fails, it does so at the end of the answer.
    this.#refresh().catch(() => {});
  }

  /** Follows an answer that had begun before. */
  async #resume(row: HistoryMessage): Promise<void> {
    const turn = this.#beginTurn({ id: row.id, pieces: [...piecesOf(row)] });
    await this.#follow(turn, this.#eventsBehind(0)).catch((error: unknown) => {
      this.#endTurn();
      this.failure.value = error;
    });
  }

  #eventsBehind(last_event_id: number): AsyncIterable<ChatResponse> {
    const request = { user_id: me(), conversation_id: this.id!, last_event_id };
    return client.assistant.streamAnswer(request, { signal: this.#aborter.signal });
  }

  /**
   * Follows an answer until it ends or waits for the user.
   *
   * @throws what the client throws if nothing has come of the answer
   */
  #follow(
    turn: Turn,
    events: AsyncIterable<ChatResponse>,
    begun?: (conversation: number, answer: number) => void,
  ): Promise<void> {
    return follow(turn, events, {
      signal: this.#aborter.signal,
      take: (event) => {
        if (event.type === 'start') begun?.(event.data.conversation_id, event.data.message_id);
        this.#take(turn, event);
        // It was left before its question was accepted.
        if (!this.#isOpen) this.#leave();
      },
      rest: () => this.#eventsBehind(turn.seen),
      isOver: async (failure) => this.turn !== turn || this.#endByHistory(turn, failure),
      changed: () => this.#changed(),
    });
  }

  #take(turn: Turn, event: ChatResponse): void {
    // Two streams may tell the same.
    if (event.id <= turn.seen && event.type !== 'start') return;
    takeNote(turn, event);
    if (event.type === 'start') {
      this.said.value = 'The assistant is answering.';
      this.version.value += 1;
    } else if (event.type === 'approval') {
      this.said.value = `The assistant asks whether it may call ${event.data.name}.`;
    } else if (event.type === 'stopped') {
      this.#finish(turn, event.data, 'stopped');
    } else if (event.type === 'finish' && event.data.approvals.length === 0) {
      this.#finish(turn, event.data, 'completed');
    }
    this.#changed();
  }

  /** The answer has ended, as its last event says. */
  #finish(turn: Turn, answer: Answer, status: HistoryMessage['status']): void {
    const { conversation_id, message_id, response, tool_calls, usage, model, finish_reason } = answer;
    const row: HistoryMessage = {
      id: message_id,
      conversation_id,
      user_id: 0,
      role: 'assistant',
      content: response,
      created_at: this.rows?.find(({ id }) => id === message_id)?.created_at ?? new Date().toISOString(),
      status,
      tool_calls,
      usage,
      model,
      siblings: [],
    };
    const others = (this.rows ?? []).filter(({ id }) => id !== message_id && id !== turn.replaces);
    this.rows = [...others, row];
    this.#followed.set(message_id, { pieces: turn.pieces, finish_reason });
    this.said.value = status === 'stopped' ? 'The answer is stopped.' : response.slice(0, saidAtOnce);
    this.#endTurn();
    // What was asked for before has it under way. Beside it, the history has the answers in whose place it came.
    this.#taken = this.#asked + 1;
    this.#refresh().catch(() => {});
  }

  /** Ends an answer that is over, as the history says. @returns whether it is. @throws what the client throws */
  async #endByHistory(turn: Turn, error: unknown): Promise<boolean> {
    await this.#refresh();
    const row = this.rows?.find(({ id }) => id === turn.id);
    if (row?.status === 'streaming' || this.turn !== turn) return this.turn !== turn;
    this.#followed.set(turn.id!, { pieces: turn.pieces, ...(row?.status === 'failed' && { error }) });
    this.said.value = row?.status === 'failed' ? 'The answer has failed.' : (row?.content.slice(0, saidAtOnce) ?? '');
    this.#endTurn();
    return true;
  }

  #beginTurn(known: Partial<Turn>): Turn {
    if (this.#aborter.signal.aborted) this.#aborter = new AbortController();
    this.failure.value = undefined;
    this.turn = newTurn(known);
    this.version.value += 1;
    return this.turn;
  }

  #endTurn(): void {
    this.turn = undefined;
    this.version.value += 1;
    void this.work();
  }

  /** Shows what the answer under way says, together with what comes right behind it. */
  #changed(): void {
    if (this.#gathering !== undefined) return;
    this.#gathering = setTimeout(() => {
      this.#gathering = undefined;
      this.progress.value += 1;
    }, gathering);
  }

  /** Loads the newest messages. @throws what the client throws */
  async #refresh(): Promise<void> {
    const number = (this.#asked += 1);
    const page = await client.assistant.getHistory({ user_id: me(), conversation_id: this.id!, limit: pageSize });
    if (number < this.#taken) return;
    this.#taken = number;
    const [oldest] = page;
    const before = this.rows ?? [];
    // Where there is a gap between them and what was loaded, that is loaded again when it is wanted.
    const isConnected = oldest !== undefined && before.some(({ id }) => id >= oldest.id);
    const earlier = isConnected ? before.filter(({ id }) => id < oldest.id) : [];
    if (earlier.length === 0) this.hasEarlier = page.length === pageSize;
    this.rows = [...earlier, ...page];
    for (const { key, state, answer } of this.questions) {
      if (state === 'accepted' && page.some(({ id }) => id === answer)) removeQuestion(key);
    }
    this.version.value += 1;
  }

  /** Follows nothing any more. It is forgotten, unless a question waits. */
  #leave(): void {
    this.#aborter.abort();
    if (this.turn?.id !== undefined) this.turn = undefined;
    if (questions.peek().some((each) => chats.get(nameOf(each)) === this && each.state === 'waiting')) return;
    for (const [name, chat] of chats) if (chat === this) chats.delete(name);
  }
}

/** The conversations that are shown, or in which a question waits: by their ids, or by the key of the question that begins one. */
const chats = new Map<string, Chat>();

function nameOf({ key, conversation }: Question): string {
  return conversation === undefined ? key : String(conversation);
}

/** @param name the id of a conversation, the key of a question that begins one, or `new` */
export function chatOf(name: string): Chat {
  let chat = chats.get(name);
  if (chat === undefined) {
    chat = new Chat(/^\d+$/.test(name) ? Number(name) : undefined);
    chats.set(name, chat);
  }
  return chat;
}

/** Sends what was asked before a reload, and not accepted. Called once. */
export function startQuestions(): void {
  findQuestions();
  for (const question of questions.peek()) void chatOf(nameOf(question)).work();
}
