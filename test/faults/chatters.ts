import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  beginEvents,
  calling,
  chunk,
  sendEvent,
  startModelServer,
  usageChunk,
  type Answering,
} from '../model-server.ts';
import { openRandom, type Random } from './random.ts';

/** A message that a user has written to the assistant. */
export interface ChatMessage {
  userId: string;
  text: string;
  /** Whether an answer or an error has said that the assistant has the message. */
  isAccepted: boolean;
  /** The answer that the user was given in the end, if there was one. */
  answer: { messageId: string; text: string } | undefined;
  /** What came of each try: a status and the code of an error, 0 for no answer. */
  tries: { status: number; code: string }[];
}

/** What the model has said to a question in one call. */
export interface Saying {
  question: string;
  text: string;
  /** Whether it has come to its end. */
  isWhole: boolean;
}

/** A row of a history. */
export interface ChatRow {
  id: string;
  role: string;
  content: string;
  status: string;
  toolCalls: { id: string; title: string; isError: boolean }[];
  /** The answers that this one has taken the place of. */
  siblings: ChatRow[];
}

/** What users, the model and the assistant know of chats. */
export interface ChatObservations {
  messages: ChatMessage[];
  sayings: Saying[];
  /** Titles of the tasks that the model wanted added, each another one. */
  wanted: Set<string>;
  histories: { userId: string; rows: ChatRow[] }[];
  /** Titles of the tasks that there are, by user. */
  tasks: Map<string, string[]>;
}

/** People who chat all the time with an assistant whose model is slow and fails. */
export interface Chatters {
  messages: ChatMessage[];
  /** Never fulfilled; rejected when one of them fails, which none may. */
  failed: Promise<never>;
  /** The model fails no more, and everybody writes a last message, which has to be answered. */
  stop(): Promise<void>;
  /** All that is known, once everything is quiet. */
  observe(): Promise<ChatObservations>;
}

export interface Model {
  url: string;
  sayings: Saying[];
  wanted: Set<string>;
  /** From now on it answers as it should. */
  recover(): void;
  stop(): Promise<void>;
}

/** Milliseconds. Longer than a turn takes in which the model is silent. */
const tryLimit = 20_000;
const pause = 400;
const lastLimit = 60_000;
/** How often a message is tried before its user writes another one. */
const mostTries = 8;
const chattersCount = 4;

/** A model that is slow, refuses calls, breaks off in the middle, says nothing, and wants tools called. */
export async function startModel(seed: number): Promise<Model> {
  const random = openRandom(seed);
  const sayings: Saying[] = [];
  const wanted = new Set<string>();
  let isWell = false;
  const answer: Answering = async (response, call) => {
    const { body, gone } = call;
    const fate = isWell ? 1 : random.next();
    if (fate < 0.08) return void response.writeHead(429, { 'retry-after': '1' }).end();
    if (fate < 0.12) return void response.writeHead(500).end();
    const question = String(body.messages.findLast(({ role }) => role === 'user')?.content);
    if (question.startsWith('Task') && body.messages.at(-1)?.role === 'user' && fate >= 0.2) {
      const title = `Title ${randomUUID()}`;
      wanted.add(title);
      return calling({ id: 'call', name: 'tasks__add_task', arguments: JSON.stringify({ title }) })(response, call);
    }
    const saying: Saying = { question, text: '', isWhole: false };
    sayings.push(saying);
    beginEvents(response);
    const words = `Answer ${randomUUID()} to ${question}`.match(/.{1,24}/gu)!;
    const cut = fate < 0.24 ? random.between(0, words.length - 1) : words.length;
    for (const content of words.slice(0, cut)) {
      await sleep(random.between(5, 120), undefined, { signal: gone });
      saying.text += content;
      sendEvent(response, chunk({ content }));
    }
    // Until the assistant has had enough.
    if (fate < 0.15) return;
    if (fate < 0.24) return void response.destroy();
    saying.isWhole = true;
    sendEvent(response, chunk({}, 'stop'));
    sendEvent(response, usageChunk(20, words.length));
    response.end('data: [DONE]\n\n');
  };
  const server = await startModelServer(answer);
  return { url: server.url, sayings, wanted, recover: () => void (isWell = true), stop: () => server.stop() };
}

interface Answered {
  status: number;
  code: string;
  answer?: { conversation_id: string | number; message_id: string | number; response: string };
}

export interface ChatterOptions {
  url: string;
  model: Model;
  seed: number;
  /** By user id. */
  tokens: ReadonlyMap<string, string>;
  /** Ends all of them at once. */
  signal: AbortSignal;
}

export function startChatters({ url, model, seed, tokens, signal }: ChatterOptions): Chatters {
  const messages: ChatMessage[] = [];
  const conversations = new Map<string, string>();
  let stopping = false;

  async function get(userId: string, path: string): Promise<unknown> {
    const headers = { authorization: `Bearer ${tokens.get(userId)}` };
    const response = await fetch(`${url}/api/${userId}${path}`, {
      headers,
      signal: AbortSignal.any([signal, AbortSignal.timeout(tryLimit)]),
    });
    if (response.status !== 200) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async function attempt(userId: string, key: string, body: object): Promise<Answered> {
    try {
      const response = await fetch(`${url}/api/${userId}/chat`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${tokens.get(userId)}`,
          'content-type': 'application/json',
          'idempotency-key': key,
        },
        body: JSON.stringify(body),
        signal: AbortSignal.any([signal, AbortSignal.timeout(tryLimit)]),
      });
      const text = await response.text();
      if (response.status === 200 && response.headers.get('content-type')?.startsWith('text/event-stream') === true) {
        const [, event, data] = /event: (finish|error)\n(?:id: .*\n)?data: (.*)\n/.exec(text) ?? [];
        if (event === undefined) return { status: 0, code: 'CUT' };
        const value = JSON.parse(data!) as { status: number; error_code: string };
        if (event === 'error') return { status: value.status, code: value.error_code };
        return { status: 200, code: '', answer: value as unknown as NonNullable<Answered['answer']> };
      }
      const value = JSON.parse(text) as { error_code?: string };
      return response.status === 200
        ? { status: 200, code: '', answer: value as unknown as NonNullable<Answered['answer']> }
        : { status: response.status, code: value.error_code ?? '' };
    } catch (error) {
      signal.throwIfAborted();
      const { name, cause } = error as Error;
      return { status: 0, code: (cause as NodeJS.ErrnoException | undefined)?.code ?? name };
    }
  }

  /** Writes a message until it is answered, or its user has lost patience. @returns whether it was answered */
  async function write(userId: string, random: Random, giveUpAt: number, mostAttempts: number): Promise<boolean> {
    const text = `${random.next() < 0.3 ? 'Task' : 'Question'} ${randomUUID()}`;
    const message: ChatMessage = { userId, text, isAccepted: false, answer: undefined, tries: [] };
    messages.push(message);
    const key = randomUUID();
    const conversationId = conversations.get(userId);
    const about = conversationId === undefined ? {} : { conversation_id: Number(conversationId) };
    for (let count = 0; count < mostAttempts && Date.now() < giveUpAt; count += 1) {
      const { status, code, answer } = await attempt(userId, key, {
        ...about,
        message: text,
        stream: random.next() < 0.5,
      });
      message.tries.push({ status, code });
      // These say that there is no answer, though the message is kept.
      if (answer !== undefined || code.startsWith('PROVIDER_')) message.isAccepted = true;
      if (answer !== undefined) {
        message.answer = { messageId: String(answer.message_id), text: answer.response };
        conversations.set(userId, String(answer.conversation_id));
        return true;
      }
      await sleep(pause, undefined, { signal });
    }
    return false;
  }

  async function chat(userId: string, index: number): Promise<void> {
    const random = openRandom(seed + index);
    while (!stopping) {
      // Without an answer nobody knows in which conversation the first message is.
      await write(userId, random, Infinity, conversations.has(userId) ? mostTries : Infinity);
      await sleep(pause, undefined, { signal });
    }
    if (!(await write(userId, random, Date.now() + lastLimit, Infinity))) {
      throw new Error(`A conversation gets no answer any more: ${JSON.stringify(messages.at(-1))}`);
    }
  }

  const chatting = [...tokens.keys()].slice(0, chattersCount);
  const running = Promise.all(chatting.map(chat));
  const failed = running.then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  return {
    messages,
    failed,
    async stop() {
      model.recover();
      stopping = true;
      await running;
    },
    async observe() {
      const histories = await Promise.all(
        chatting.map(async (userId) => {
          const rows = (await get(userId, `/chat/${conversations.get(userId)}/history`)) as WireRow[];
          return { userId, rows: rows.map(rowOf) };
        }),
      );
      const lists = await Promise.all(
        chatting.map(async (userId): Promise<[string, string[]]> => {
          const tasks = (await get(userId, '/tasks')) as { title: string }[];
          return [userId, tasks.map(({ title }) => title)];
        }),
      );
      const { sayings, wanted } = model;
      return { messages, sayings, wanted, histories, tasks: new Map(lists) };
    },
  };
}

interface WireRow {
  id: number;
  role: string;
  content: string;
  status: string;
  tool_calls: { id: string; arguments: { title?: string }; is_error: boolean }[];
  siblings?: WireRow[];
}

function rowOf({ id, role, content, status, tool_calls: calls, siblings }: WireRow): ChatRow {
  return {
    id: String(id),
    role,
    content,
    status,
    toolCalls: calls.map((call) => ({ id: call.id, title: call.arguments.title ?? '', isError: call.is_error })),
    siblings: (siblings ?? []).map(rowOf),
  };
}
