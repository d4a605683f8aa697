import { Agent, request as httpRequest } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { v4 as uuid } from 'uuid';
import {
  MessageServiceService,
  PayloadType,
  Priority,
  type SendMessageRequest,
  type SendMessageResponse,
} from '#gen/chat4all/message/v1/message.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { RawHttp } from './raw-http.ts';
import { answer } from './remote.ts';

/** The users of the benchmark: they log in, open conversations, send, and read what became of it. A process of its own. */

export interface PrepareArgument {
  /** Of the gateway. */
  url: string;
  /** host:port of the message service. */
  messageAddress: string;
  /** So many users are in each crowd; all together, user1 and on, are there. */
  crowds: readonly number[];
}

export interface RunArgument {
  /** Which crowd sends, by how many users it has. Those of one write only to each other. */
  users: number;
  /**
   * Each user sends its next message once the last was answered (`closed`); or all together send `rate` messages a second, however
   * long answers take (`steady`). A `flood` is the same, where refusals are part of it, and tells when all is well again.
   */
  mode: 'closed' | 'steady' | 'flood';
  /**
   * One: each message to one person over WhatsApp, to the pair and the group in turn. Mixed: a fifth goes to the whole
   * group, and the channels are WhatsApp, Instagram and both.
   */
  kind: 'one' | 'mixed';
  /** Through the gateway (`raw`: with a client that takes as little CPU time as can be), or straight to the message service over gRPC. */
  via: 'rest' | 'raw' | 'grpc';
  seconds: number;
  /** Messages a second of all users together, for `steady` and `flood`. */
  rate: number;
}

export interface RunResult {
  accepted: number;
  /** Those of them that were answered while messages were sent. */
  acceptedInTime: number;
  /** Answers other than 200, and what had none, with how often they came. */
  refused: Record<string, number>;
  /** Seconds from the first send to the last answer. */
  sendingSeconds: number;
  /** Seconds from the first send until the last message was seen to have ended. */
  endedSeconds: number;
  /** Milliseconds until the answer: from the send, or, for `steady`, from when it was due. */
  accept: Percentiles;
  /** Milliseconds from when a message was due to the answer that refused it. */
  refusal: Percentiles;
  /** Milliseconds from when a message was due until it was sent: much of that, and the sender itself is too slow. */
  lag: Percentiles;
  /** After a flood: seconds until a message is accepted within `wellWithin` again, and those after it, too. */
  wellAgainSeconds?: number;
  /** Milliseconds from the answer until a member who asks ten times a second sees `delivered`; of one group's messages. */
  seen: Percentiles;
}

export interface CheckResult {
  delivered: number;
  /** To one person over one channel. */
  deliveries: number;
  /** Seconds from the first send until the last message was delivered. */
  deliveredSeconds: number;
  /** Milliseconds from `created_at` to `updated_at`. */
  delivery: Percentiles;
  /** What is wrong with what the hub kept, each kind with an example; none is what has to be. */
  problems: string[];
}

interface User {
  userId: string;
  token: string;
  /** How many messages it has sent. */
  sent: number;
  pair: Conversation;
  group: Conversation;
  /** Its own connection to the message service. */
  client: Client;
  metadata: Metadata;
}

interface Conversation {
  id: string;
  memberIds: string[];
  /** Of somebody who may read it. */
  token: string;
  /** The newest message that was checked. */
  checkedSeq: number;
}

interface Draft {
  message_id: string;
  conversation_id: string;
  from: string;
  to: string[];
  channels: string[];
  payload: { type: 'text'; text: string };
}

interface ListedMessage {
  message_id: string;
  seq: number;
  to: string[];
  channels: string[];
  status: string;
  created_at: string;
  updated_at: string;
}

const groupSize = 10;
const text = 'The quick brown fox jumps over the lazy dog, then rests in the shade; ação, coração, emoção: 100 bytes.';
const callLimit = 15_000;
/** A message ends within 30 s; this is how long it may take to be seen. */
const endLimit = 40_000;
const watchEvery = 100;
const loginsAtOnce = 4;
/** As many as a gateway has places for calls. They are open before the flood, as those of clients are that call often. */
const floodConnections = 1_000;
/** Who asks after a flood whether all is well: so often, in milliseconds, and for so long; so many in a row have to be. */
const asking = { every: 50, inARow: 10, limit: 30_000 };
/** Milliseconds within which a message is accepted when all is well. */
export const wellWithin = 300;

let base: URL;
let agent: Agent;
let raw: RawHttp;
/** By how many users they have. */
const crowds = new Map<number, User[]>();
/** What the last run sent: the ids, by the conversation that they belong to. */
let lastRun: { startedAt: number; sent: Map<string, Conversation>; accepted: Set<string> };

interface HttpAnswer {
  status: number;
  retryAfter: number;
  body: string;
}

function call(method: string, path: string, token: string | undefined, body?: object): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers: Record<string, string | number> = {};
    if (token !== undefined) headers.Authorization = `Bearer ${token}`;
    if (payload !== undefined) {
      headers['Content-Type'] = 'application/json';
      headers['Content-Length'] = payload.length;
    }
    const options = { agent, host: base.hostname, port: base.port, method, path, headers, timeout: callLimit };
    const sent = httpRequest(options, (response) => {
      let received = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (received += chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          retryAfter: Number(response.headers['retry-after'] ?? 0),
          body: received,
        }),
      );
    });
    sent.on('timeout', () => sent.destroy(new Error(`no answer within ${callLimit / 1000} s`)));
    sent.on('error', reject);
    sent.end(payload);
  });
}

/** @throws Error unless the answer is a success */
async function ask<T>(method: string, path: string, token: string | undefined, body?: object): Promise<T> {
  const { status, body: received } = await call(method, path, token, body);
  if (status >= 300) throw new Error(`${method} ${path}: ${status} ${received}`);
  return JSON.parse(received) as T;
}

async function prepare({ url, messageAddress, crowds: sizes }: PrepareArgument): Promise<void> {
  base = new URL(url);
  agent = new Agent({ keepAlive: true, maxSockets: Math.max(...sizes) + 1 });
  raw = new RawHttp(base, floodConnections, callLimit);
  let known = 0;
  for (const size of sizes) {
    crowds.set(size, await assemble(known, size, messageAddress));
    known += size;
  }
}

/** Logs in so many users, those after the first `known`, and opens their conversations. */
async function assemble(known: number, count: number, messageAddress: string): Promise<User[]> {
  const logins: { user_id: string; token: string }[] = [];
  const numbers = Array.from({ length: count }, (_, index) => index).values();
  const logIn = async () => {
    for (const index of numbers) {
      const credentials = { username: `user${known + index + 1}`, password: 'password123' };
      logins[index] = await ask('POST', '/auth/token', undefined, credentials);
    }
  };
  await Promise.all(Array.from({ length: loginsAtOnce }, logIn));

  async function open(type: 'private' | 'group', members: readonly number[]): Promise<Conversation> {
    const memberIds = members.map((index) => logins[index]!.user_id);
    const { token } = logins[members[0]!]!;
    const opened = await ask<{ conversation_id: string }>('POST', '/v1/conversations', token, {
      type,
      members: memberIds,
      metadata: { name: `Benchmark ${type}` },
    });
    return { id: opened.conversation_id, memberIds, token, checkedSeq: 0 };
  }

  const groupCount = Math.max(1, Math.floor(count / groupSize));
  const indexes = logins.map((_, index) => index);
  const groups: Conversation[] = [];
  for (let group = 0; group < groupCount; group++) {
    groups.push(
      await open(
        'group',
        indexes.filter((index) => index % groupCount === group),
      ),
    );
  }
  const pairs: Conversation[] = [];
  for (let first = 0; first < count; first += 2) pairs.push(await open('private', [first, (first + 1) % count]));

  return logins.map(({ user_id: userId, token }, index) => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${token}`);
    return {
      userId,
      token,
      sent: 0,
      pair: pairs[Math.floor(index / 2)]!,
      group: groups[index % groupCount]!,
      client: new Client(messageAddress, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
      metadata,
    };
  });
}

/** A user's next message. Which conversation and channels it takes follows from how many the user has sent. */
function nextDraft(user: User, kind: RunArgument['kind']): { draft: Draft; conversation: Conversation } {
  const number = user.sent++;
  const others = user.group.memberIds.filter((id) => id !== user.userId);
  const mixed = kind === 'mixed';
  const conversation = (mixed ? number % 5 === 4 : number % 2 === 1) ? user.group : user.pair;
  const place = number % 10;
  const draft: Draft = {
    message_id: uuid(),
    conversation_id: conversation.id,
    from: user.userId,
    to: conversation === user.group && !mixed ? [others[number % others.length]!] : [],
    channels: !mixed || place < 7 ? ['whatsapp'] : place < 9 ? ['instagram'] : ['all'],
    payload: { type: 'text', text },
  };
  return { draft, conversation };
}

/** Sends a message. @returns undefined if it was accepted, else why not and for how many seconds to wait */
type Sender = (user: User, draft: Draft) => Promise<{ why: string; wait: number } | undefined>;

const sendByRest: Sender = async (user, draft) => {
  const { status, retryAfter, body } = await call('POST', '/v1/messages', user.token, draft);
  if (status === 200) return undefined;
  return { why: `${status} ${(JSON.parse(body) as { error_code: string }).error_code}`, wait: retryAfter };
};

const sendRaw: Sender = async (user, draft) => {
  const { status, retryAfter, body } = await raw.post('/v1/messages', user.token, JSON.stringify(draft));
  if (status === 200) return undefined;
  return { why: `${status} ${(JSON.parse(body) as { error_code: string }).error_code}`, wait: retryAfter };
};

const sendByGrpc: Sender = (user, draft) => {
  const request: SendMessageRequest = {
    messageId: draft.message_id,
    conversationId: draft.conversation_id,
    from: draft.from,
    to: draft.to,
    channels: draft.channels,
    payload: {
      type: PayloadType.PAYLOAD_TYPE_TEXT,
      text: draft.payload.text,
      fileId: '',
      filename: '',
      fileSize: 0n,
      contentType: '',
    },
    priority: Priority.PRIORITY_NORMAL,
  };
  const { path, requestSerialize, responseDeserialize } = MessageServiceService.sendMessage;
  return new Promise((resolve) => {
    user.client.makeUnaryRequest<SendMessageRequest, SendMessageResponse>(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      user.metadata,
      { deadline: Date.now() + callLimit },
      (error: ServiceError | null) => resolve(error === null ? undefined : { why: error.message, wait: 1 }),
    );
  });
};

async function run({ users: size, mode, kind, via, seconds, rate }: RunArgument): Promise<RunResult> {
  const users = crowds.get(size)!;
  const sender = { rest: sendByRest, raw: sendRaw, grpc: sendByGrpc }[via];
  const sent = new Map<string, Conversation>();
  const acceptedAt = new Map<string, number>();
  const refused: Record<string, number> = {};
  const latencies: number[] = [];
  const refusals: number[] = [];
  const lags: number[] = [];
  let lastAnswer = 0;

  /** @returns how many seconds the user should wait before it goes on */
  async function send(user: User, from: number): Promise<number> {
    const { draft, conversation } = nextDraft(user, kind);
    sent.set(draft.message_id, conversation);
    lags.push(performance.now() - from);
    const refusal = await sender(user, draft).catch((error: Error) => ({ why: error.message, wait: 1 }));
    lastAnswer = performance.now();
    if (refusal === undefined) {
      latencies.push(lastAnswer - from);
      acceptedAt.set(draft.message_id, lastAnswer);
      return 0;
    }
    refusals.push(lastAnswer - from);
    refused[refusal.why] = (refused[refusal.why] ?? 0) + 1;
    return Math.max(refusal.wait, 0.001);
  }

  let wellAgainSeconds: number | undefined;
  if (mode === 'flood') await raw.open();
  const startedAt = Date.now();
  const begin = performance.now();
  const end = begin + seconds * 1000;
  const watching = new AbortController();
  // A reader who is refused has nothing to tell.
  const watched = mode === 'flood' ? Promise.resolve([]) : watch(users[0]!.group, acceptedAt, watching.signal);

  if (mode === 'closed') {
    await Promise.all(
      users.map(async (user) => {
        for (let now = begin; now < end; now = performance.now()) {
          const wait = await send(user, now);
          if (wait > 0) await sleep(wait * 1000);
        }
      }),
    );
  } else {
    const sends: Promise<number>[] = [];
    const count = Math.round(seconds * rate);
    for (let number = 0; number < count; number++) {
      const due = begin + (number * 1000) / rate;
      const early = due - performance.now();
      if (early > 0) await sleep(early);
      sends.push(send(users[number % users.length]!, due));
    }
    if (mode === 'flood') wellAgainSeconds = await untilWell(send, users[0]!);
    await Promise.all(sends);
    raw.close();
  }

  lastRun = { startedAt, sent, accepted: new Set(acceptedAt.keys()) };
  const endedAt = await untilEnded(new Set(sent.values()));
  watching.abort();
  return {
    accepted: acceptedAt.size,
    acceptedInTime: [...acceptedAt.values()].filter((at) => at <= end).length,
    refused,
    sendingSeconds: (lastAnswer - begin) / 1000,
    endedSeconds: (endedAt - begin) / 1000,
    accept: percentiles(latencies),
    refusal: percentiles(refusals),
    lag: percentiles(lags),
    ...(wellAgainSeconds === undefined ? {} : { wellAgainSeconds }),
    seen: percentiles(await watched),
  };
}

/** Sends again and again until all is well. @returns seconds until it was, from now on */
async function untilWell(send: (user: User, from: number) => Promise<number>, user: User): Promise<number> {
  const began = performance.now();
  let wellSince: number | undefined;
  let inARow = 0;
  while (inARow < asking.inARow && performance.now() - began < asking.limit) {
    const from = performance.now();
    const wait = await send(user, from);
    const isWell = wait === 0 && performance.now() - from <= wellWithin;
    if (!isWell) wellSince = undefined;
    else wellSince ??= from;
    inARow = isWell ? inARow + 1 : 0;
    await sleep(asking.every);
  }
  return ((wellSince ?? Infinity) - began) / 1000;
}

/** Waits until the newest message of each conversation has ended, for as long as a message may take. */
async function untilEnded(conversations: Iterable<Conversation>): Promise<number> {
  const giveUp = performance.now() + endLimit;
  for (const { id, token } of conversations) {
    for (;;) {
      const [newest] = await page(id, token, 'limit=1');
      if (newest === undefined || hasEnded(newest) || performance.now() > giveUp) break;
      await sleep(watchEvery / 2);
    }
  }
  return performance.now();
}

/** Asks for the messages of a conversation that aren't delivered yet, again and again. @returns how long each took, in ms */
async function watch(
  conversation: Conversation,
  acceptedAt: ReadonlyMap<string, number>,
  stop: AbortSignal,
): Promise<number[]> {
  const waits: number[] = [];
  let from = conversation.checkedSeq;
  const seen = new Set<string>();
  while (!stop.aborted) {
    const messages = await page(conversation.id, conversation.token, `after_seq=${from}&order=asc&limit=100`);
    const now = performance.now();
    for (const message of messages) {
      if (!hasEnded(message)) continue;
      if (message.seq === from + 1) from = message.seq;
      const at = acceptedAt.get(message.message_id);
      if (message.status !== 'delivered' || at === undefined || seen.has(message.message_id)) continue;
      seen.add(message.message_id);
      waits.push(Math.max(0, now - at));
    }
    await sleep(watchEvery, undefined, { signal: stop }).catch(() => {});
  }
  return waits;
}

/** Follows every message of the last run to its end, in all conversations. */
async function check(): Promise<CheckResult> {
  const { startedAt, sent, accepted } = lastRun;
  const problems = new Map<string, { count: number; example: string }>();
  const complain = (what: string, example: string) => {
    const known = problems.get(what);
    if (known === undefined) problems.set(what, { count: 1, example });
    else known.count += 1;
  };
  const missing = new Set(accepted);
  const delays: number[] = [];
  const giveUp = performance.now() + endLimit;
  let deliveries = 0;
  let lastDelivered = startedAt;

  for (const conversation of new Set([...crowds.values()].flat().flatMap(({ pair, group }) => [pair, group]))) {
    const { id, token } = conversation;
    for (;;) {
      const messages = await page(id, token, `after_seq=${conversation.checkedSeq}&order=asc&limit=100`);
      if (messages.length === 0) break;
      if (performance.now() < giveUp && !messages.every(hasEnded)) {
        await sleep(watchEvery / 2);
        continue;
      }
      for (const message of messages) {
        const name = `message ${message.message_id} of conversation ${id}`;
        if (message.seq !== conversation.checkedSeq + 1) {
          complain('a seq that does not follow the one before', `${name}: ${conversation.checkedSeq}, ${message.seq}`);
        }
        conversation.checkedSeq = message.seq;
        if (sent.get(message.message_id) !== conversation) {
          complain('a message that nobody sent, or that is there twice, or in another conversation', name);
          continue;
        }
        sent.delete(message.message_id);
        missing.delete(message.message_id);
        if (message.status !== 'delivered') {
          complain(`a message that is ${message.status}`, name);
          continue;
        }
        const updatedAt = Date.parse(message.updated_at);
        delays.push(updatedAt - Date.parse(message.created_at));
        deliveries += message.to.length * message.channels.length;
        lastDelivered = Math.max(lastDelivered, updatedAt);
      }
    }
  }
  for (const id of missing) complain('a message that was accepted and is not there', id);
  return {
    delivered: delays.length,
    deliveries,
    deliveredSeconds: (lastDelivered - startedAt) / 1000,
    delivery: percentiles(delays),
    problems: [...problems].map(([what, { count, example }]) => `${count} × ${what} (${example})`),
  };
}

async function page(id: string, token: string, query: string): Promise<ListedMessage[]> {
  const { messages } = await ask<{ messages: ListedMessage[] }>(
    'GET',
    `/v1/conversations/${id}/messages?${query}`,
    token,
  );
  return messages;
}

function hasEnded({ status }: ListedMessage): boolean {
  return status === 'delivered' || status === 'failed';
}

export const commands = { prepare, run, check };

answer(commands, async () => {});
