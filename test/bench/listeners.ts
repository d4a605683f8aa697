import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { v4 as uuid } from 'uuid';
import { openRest, type Token } from '../rest.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { RawHttp } from './raw-http.ts';
import { answer } from './remote.ts';

/** Those who are told of events, and send the messages that these are about. A process of its own. */

export interface PrepareArgument {
  /** Of the gateway. */
  url: string;
  /** user1 and on are there. */
  users: number;
  /** The first ones: each of them writes to one other in private. */
  writers: number;
  /** The first ones: all of them are in one group. */
  group: number;
}

export interface SendArgument {
  /** Each message to one person, in private or in the group. */
  to: 'pairs' | 'group';
  /** Messages a second, of all together; without it each sends its next message once the last was answered. */
  rate?: number;
  seconds: number;
}

export interface SendResult {
  accepted: number;
  /** Seconds from the first send to the last answer, and until all messages were delivered. */
  sendingSeconds: number;
  deliveredSeconds: number;
  /** Milliseconds from the answer until a subscriber had the message; 0 where that came first. */
  seen: Percentiles;
  /** Milliseconds from when a message was due until it was sent. */
  lag: Percentiles;
  /** Events that came on all streams while this went on, and those of them that told of a new message. */
  told: number;
  problems: string[];
}

interface Person {
  id: string;
  token: string;
}

interface Conversation {
  id: string;
  members: readonly Person[];
}

const text = 'The quick brown fox jumps over the lazy dog, then rests in the shade; ação, coração, emoção: 100 bytes.';
const loginsAtOnce = 4;
const openedAtOnce = 50;
const answerLimit = 15_000;
/** A message ends within 30 s. */
const endLimit = 40_000;

let base: URL;
let raw: RawHttp;
const people: Person[] = [];
const pairs: Conversation[] = [];
let group: Conversation;
let listeners: Listener[] = [];
/** Told of each event that comes. */
let hear: (type: string, event: string, person: Person) => void = () => {};

/** A stream of somebody's events. Takes no more time than it has to, so that not the reader is measured. */
class Listener {
  readonly person: Person;
  readonly opened = Promise.withResolvers<void>();
  /** Why it ended, unless it was left. */
  failure: string | undefined;
  readonly #socket: Socket;
  #text = '';
  #isLeft = false;

  constructor(person: Person) {
    this.person = person;
    const { hostname, port } = base;
    this.#socket = connect({ host: hostname, port: Number(port) });
    this.#socket.setEncoding('latin1');
    this.#socket.write(
      `GET /v1/events HTTP/1.1\r\nHost: ${hostname}:${port}\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${person.token}\r\n\r\n`,
    );
    this.#socket.on('data', (data: string) => this.#take(data));
    this.#socket.on('error', () => {});
    this.#socket.on('close', () => {
      if (!this.#isLeft) this.failure = 'a stream has ended';
      this.opened.reject(new Error('a stream could not be opened'));
    });
  }

  leave(): void {
    this.#isLeft = true;
    this.#socket.destroy();
  }

  #take(data: string): void {
    this.#text += data;
    let from = 0;
    for (;;) {
      const begin = this.#text.indexOf('event: ', from);
      if (begin === -1) break;
      const end = this.#text.indexOf('\n\n', begin);
      if (end === -1) break;
      from = end + 2;
      const type = this.#text.slice(begin + 'event: '.length, this.#text.indexOf('\n', begin));
      if (type === 'hello') this.opened.resolve();
      else hear(type, this.#text.slice(begin, end), this.person);
    }
    // What isn't an event, as a comment or the head, needs no end.
    this.#text = this.#text.slice(from);
  }
}

async function prepare({ url, users, writers, group: groupSize }: PrepareArgument): Promise<void> {
  base = new URL(url);
  raw = new RawHttp(base, writers, answerLimit);
  const numbers = Array.from({ length: users }, (_, index) => index).values();
  const logIn = async () => {
    for (const index of numbers) {
      const body = { username: `user${index + 1}`, password: 'password123' };
      const { user_id: id, token } = await openRest(url).post<Token>('/auth/token', body);
      people[index] = { id, token };
    }
  };
  await Promise.all(Array.from({ length: loginsAtOnce }, logIn));
  for (let first = 0; first < writers; first += 2) pairs.push(await open('private', people.slice(first, first + 2)));
  group = await open('group', people.slice(0, groupSize));
}

async function open(type: 'private' | 'group', members: readonly Person[]): Promise<Conversation> {
  const asked = { type, members: members.map(({ id }) => id), metadata: { name: `Benchmark ${type}` } };
  const rest = openRest(base.href.replace(/\/$/, ''), members[0]!.token);
  const { conversation_id: id } = await rest.post<{ conversation_id: string }>('/v1/conversations', asked);
  return { id, members };
}

/** Opens so many streams, of all people in turn, of whom there are so many. */
async function listen({ streams, by }: { streams: number; by: number }): Promise<void> {
  while (listeners.length < streams) {
    const some = Array.from(
      { length: Math.min(openedAtOnce, streams - listeners.length) },
      (_, index) => new Listener(people[(listeners.length + index) % by]!),
    );
    listeners.push(...some);
    await Promise.all(some.map(({ opened }) => opened.promise));
  }
}

async function leave(): Promise<void> {
  for (const listener of listeners) listener.leave();
  listeners = [];
}

async function send({ to, rate, seconds }: SendArgument): Promise<SendResult> {
  const acceptedAt = new Map<string, number>();
  const cameAt: { id: string; at: number }[] = [];
  const lags: number[] = [];
  const problems = new Set<string>();
  const conversations = to === 'pairs' ? pairs : [group];
  const senders = conversations.flatMap((conversation) => conversation.members.map((from) => ({ from, conversation })));
  const sentIn = new Map<Conversation, number>();
  let told = 0;
  hear = (type, event) => {
    told += 1;
    if (type !== 'message_accepted') return;
    const at = event.indexOf('"message_id":"') + '"message_id":"'.length;
    cameAt.push({ id: event.slice(at, at + 36), at: performance.now() });
  };

  let lastAnswer = 0;
  async function sendOne({ from, conversation }: (typeof senders)[number], due: number): Promise<void> {
    const place = conversation.members.indexOf(from);
    const draft = {
      message_id: uuid(),
      conversation_id: conversation.id,
      from: from.id,
      to: [conversation.members[(place + 1) % conversation.members.length]!.id],
      channels: ['whatsapp'],
      payload: { type: 'text', text },
    };
    lags.push(performance.now() - due);
    sentIn.set(conversation, (sentIn.get(conversation) ?? 0) + 1);
    try {
      const { status, body } = await raw.post('/v1/messages', from.token, JSON.stringify(draft));
      lastAnswer = performance.now();
      if (status === 200) acceptedAt.set(draft.message_id, lastAnswer);
      else problems.add(`a send was refused: ${status} ${body}`);
    } catch (error) {
      problems.add(`a send failed: ${(error as Error).message}`);
    }
  }

  const begin = performance.now();
  const end = begin + seconds * 1_000;
  if (rate === undefined) {
    await Promise.all(
      senders.map(async (sender) => {
        for (let now = begin; now < end; now = performance.now()) await sendOne(sender, now);
      }),
    );
  } else {
    const sends: Promise<void>[] = [];
    for (let number = 0; number < seconds * rate; number += 1) {
      const due = begin + (number * 1_000) / rate;
      const early = due - performance.now();
      if (early > 0) await sleep(early);
      sends.push(sendOne(senders[number % senders.length]!, due));
    }
    await Promise.all(sends);
  }
  for (const conversation of sentIn.keys()) {
    if (!(await isDelivered(conversation))) problems.add('a message was not delivered');
  }
  const deliveredAt = performance.now();

  const subscribers = (id: string) => listeners.filter(({ person }) => person.id === id).length;
  let expected = 0;
  for (const [{ members }, count] of sentIn) for (const { id } of members) expected += count * subscribers(id);
  while (cameAt.length < expected && performance.now() < deliveredAt + endLimit) await sleep(20);
  if (problems.size === 0 && cameAt.length !== expected) {
    problems.add(`${cameAt.length} messages were told of, of ${expected}`);
  }
  for (const { failure } of listeners) if (failure !== undefined) problems.add(failure);
  hear = () => {};
  return {
    accepted: acceptedAt.size,
    sendingSeconds: (lastAnswer - begin) / 1_000,
    deliveredSeconds: (deliveredAt - begin) / 1_000,
    seen: percentiles(cameAt.map(({ id, at }) => Math.max(0, at - (acceptedAt.get(id) ?? Infinity)))),
    lag: percentiles(lags),
    told,
    problems: [...problems].slice(0, 10),
  };
}

/** Waits until the newest message of a conversation is delivered, for as long as that may take. */
async function isDelivered({ id, members }: Conversation): Promise<boolean> {
  const rest = openRest(base.href.replace(/\/$/, ''), members[0]!.token);
  const giveUp = performance.now() + endLimit;
  while (performance.now() < giveUp) {
    const { messages } = await rest.get<{ messages: { status: string }[] }>(`/v1/conversations/${id}/messages?limit=1`);
    if (messages[0]?.status === 'delivered') return true;
    await sleep(50);
  }
  return false;
}

export const commands = { prepare, listen, leave, send };

answer(commands, leave);
