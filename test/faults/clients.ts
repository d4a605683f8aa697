import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Journal, SentMessage, Try } from './journal.ts';
import { openRandom, type Random } from './random.ts';

/** People who write to each other all the time, as clients do that don't give up easily. */
export interface Clients {
  journal: Journal;
  conversations: Conversation[];
  /** By user id. */
  tokens: Map<string, string>;
  /** User id of user1. */
  administrator: string;
  /** How often each status was answered; 0 is no answer. */
  statuses: Map<number, number>;
  /** Messages that were accepted so far. */
  accepted(): number;
  /** Never fulfilled; rejected when a client fails, which none may. */
  failed: Promise<never>;
  /** From now on as fast as it goes. */
  hurry(): void;
  /** Asks until the answer is one that asking again wouldn't change. `tries` gets what came before it. */
  insist(userId: string, method: string, at: string, body?: object, tries?: Try[]): Promise<Answered>;
  /** Sends so many messages at once, by several people. Returns their ids at once; the clients go on trying as always. */
  burst(count: number): string[];
  /**
   * Sends no more, and waits until each message has a definite answer.
   *
   * @throws Error if one has none after 60 s, or a client failed
   */
  stop(): Promise<void>;
}

export interface Conversation {
  id: string;
  members: string[];
}

export interface ClientOptions {
  url: string;
  seed: number;
  /** user1 to user<n>. */
  users: number;
  /** Messages a second, of all together. */
  rate: number;
  channels: readonly string[];
  /** Ends all of them at once. */
  signal: AbortSignal;
}

/** What of the answers is used here. */
export interface AnswerBody {
  error_code?: string;
  retry_after?: number;
  user_id?: string;
  token?: string;
  conversation_id?: string;
  file_id?: string;
}

export interface Answered {
  /** 0 if there was no answer. */
  status: number;
  body: AnswerBody;
  tried: Try;
}

interface Lane {
  number: number;
  conversation: Conversation;
  senderId: string;
  random: Random;
  /** Files that may be sent. */
  fileIds: string[];
  /** The last message that was accepted. */
  last?: SentMessage;
  count: number;
}

const password = 'password123';
/** Milliseconds. A gateway answers after 10 s at the latest, unless it is frozen. */
const tryLimit = 12_000;
const longestRetryPause = 2_000;
const drainLimit = 60_000;
/** A lane uploads a file of its own with each of so many messages. */
const messagesPerFile = 20;
const chunkSize = 5 * 2 ** 20;
/** How often a file is sent again of which chunks are missing in the end. */
const mostUploads = 3;

/** Logs in, opens conversations, uploads files, and starts to send. */
export async function startClients(options: ClientOptions): Promise<Clients> {
  const { url, seed, rate, channels } = options;
  const random = openRandom(seed);
  const journal: Journal = { messages: [], files: [] };
  const statuses = new Map<number, number>();
  const tokens = new Map<string, string>();
  let acceptedCount = 0;
  let stopping = false;
  const late = new AbortController();
  const gaveUp = AbortSignal.any([late.signal, options.signal]);

  async function attempt(userId: string, method: string, at: string, body?: object | Buffer): Promise<Answered> {
    const begun = Date.now();
    const requestId = randomUUID();
    const isRaw = body instanceof Buffer;
    const done = (status: number, code: string, answer: AnswerBody): Answered => {
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      return {
        status,
        body: answer,
        tried: { at: begun, milliseconds: Date.now() - begun, status, code, requestId },
      };
    };
    try {
      const response = await fetch(`${url}${at}`, {
        method,
        headers: {
          authorization: `Bearer ${tokens.get(userId)}`,
          'x-request-id': requestId,
          'content-type': isRaw ? 'application/octet-stream' : 'application/json',
        },
        ...(body === undefined ? {} : { body: isRaw ? new Uint8Array(body) : JSON.stringify(body) }),
        signal: AbortSignal.any([gaveUp, AbortSignal.timeout(tryLimit)]),
      });
      const answer = (await response.json()) as AnswerBody;
      return done(response.status, answer.error_code ?? '', answer);
    } catch (error) {
      gaveUp.throwIfAborted();
      const { name, cause } = error as Error;
      return done(0, (cause as NodeJS.ErrnoException | undefined)?.code ?? name, {});
    }
  }

  async function insist(userId: string, method: string, at: string, body?: object | Buffer, tries: Try[] = []) {
    for (;;) {
      const answered = await attempt(userId, method, at, body);
      if (isDefinite(answered)) return answered;
      tries.push(answered.tried);
      await pauseAfter(answered);
    }
  }

  async function pauseAfter({ body }: Answered): Promise<void> {
    const asked = (body.retry_after ?? 0) * 1_000;
    const pause = Math.min(longestRetryPause, Math.max(asked, 100)) * (0.75 + Math.random() / 2);
    await sleep(pause, undefined, { signal: gaveUp });
  }

  async function login(username: string): Promise<string> {
    const { status, body } = await insist('', 'POST', '/auth/token', { username, password });
    if (status !== 200) throw new Error(`${username} can't log in: ${JSON.stringify(body)}`);
    tokens.set(body.user_id!, body.token!);
    return body.user_id!;
  }

  async function openConversation(members: string[]): Promise<Conversation> {
    const type = members.length === 2 ? 'private' : 'group';
    const { status, body } = await insist(members[0]!, 'POST', '/v1/conversations', { type, members });
    if (status !== 201) throw new Error(`No conversation: ${JSON.stringify(body)}`);
    return { id: body.conversation_id!, members };
  }

  /** Uploads a file of random bytes. @returns undefined if it was refused, which is not as it should be */
  async function upload(ownerId: string, size: number): Promise<string | undefined> {
    const bytes = randomBytes(size);
    const checksum = createHash('sha256').update(bytes).digest('hex');
    const begun = await insist(ownerId, 'POST', '/v1/files/initiate', {
      filename: 'holiday.jpg',
      file_size: size,
      content_type: 'image/jpeg',
      chunk_size: chunkSize,
    });
    const fileId = begun.body.file_id ?? '';
    const end = ({ status, tried }: Answered, again = 0) => {
      const isComplete = status === 200;
      const told = isComplete ? 'completed' : `${status} ${tried.code}`;
      journal.files.push({ fileId, ownerId, size, checksum, told, again });
      return isComplete ? fileId : undefined;
    };
    if (begun.status !== 201) return end(begun);
    for (let again = 0; ; again += 1) {
      for (let chunk = 0; chunk * chunkSize < size; chunk += 1) {
        const piece = bytes.subarray(chunk * chunkSize, (chunk + 1) * chunkSize);
        const at = `/v1/files/upload?file_id=${fileId}&chunk_id=${chunk}`;
        const sent = await insist(ownerId, 'PATCH', at, piece);
        if (sent.status !== 200) return end(sent, again);
      }
      const completed = await insist(ownerId, 'POST', '/v1/files/complete', { file_id: fileId, checksum });
      if (completed.tried.code !== 'CHUNKS_MISSING' || again === mostUploads) return end(completed, again);
    }
  }

  function draftOf(lane: Lane): SentMessage {
    const { random, conversation, senderId, fileIds } = lane;
    const others = conversation.members.filter((member) => member !== senderId);
    const isFile = fileIds.length > 0 && random.next() < 0.1;
    return {
      messageId: randomUUID(),
      conversationId: conversation.id,
      senderId,
      recipientIds: others.length > 1 && random.next() < 0.2 ? [random.pick(others)] : others,
      channels: random.next() < 0.4 ? [...channels] : [random.pick(channels)],
      content: isFile
        ? { fileId: random.pick(fileIds) }
        : { text: `${lane.number}/${lane.count} ação ${random.next()}` },
      lane: lane.number,
      told: 'nothing',
      firstTried: Date.now(),
      toldAt: 0,
      tries: [],
    };
  }

  function bodyOf(message: SentMessage, { conversation }: Lane): object {
    const { messageId, conversationId, senderId, recipientIds, channels: over, content } = message;
    const isToAll = recipientIds.length === conversation.members.length - 1;
    return {
      message_id: messageId,
      conversation_id: conversationId,
      from: senderId,
      ...(isToAll ? {} : { to: recipientIds }),
      channels: over.length === channels.length ? ['all'] : over,
      payload: 'text' in content ? { type: 'text', text: content.text } : { type: 'file', file_id: content.fileId },
    };
  }

  /** Sends a message until it is known what became of it. */
  async function send(lane: Lane, message: SentMessage, body: object, givesUp: boolean): Promise<void> {
    journal.messages.push(message);
    for (;;) {
      const answered = await attempt(message.senderId, 'POST', '/v1/messages', body);
      if (answered.status !== 200 || message.tries.length > 0) message.tries.push(answered.tried);
      if (isDefinite(answered)) {
        message.told = answered.status === 200 ? 'accepted' : 'refused';
        message.toldAt = Date.now();
        if (message.told === 'accepted') {
          acceptedCount += 1;
          lane.last = message;
        }
        return;
      }
      if (givesUp && answered.status === 0) return;
      await pauseAfter(answered);
    }
  }

  /** Something that must be refused, and leave nothing behind. */
  async function sendWrong(lane: Lane): Promise<void> {
    const message = draftOf(lane);
    const { random, last } = lane;
    const right = bodyOf(message, lane);
    const stranger = [...tokens.keys()].find((userId) => !lane.conversation.members.includes(userId));
    const wrong = random.pick<[object, Partial<SentMessage>] | undefined>([
      [{ ...right, payload: { type: 'text', text: '' } }, {}],
      [{ ...right, payload: { type: 'file', file_id: randomUUID() } }, {}],
      [{ ...right, channels: ['pigeon'] }, {}],
      stranger === undefined ? undefined : [{ ...right, from: stranger }, { senderId: stranger }],
      // An id that is taken: the message that has it must stay what it is.
      last === undefined
        ? undefined
        : [{ ...bodyOf(last, lane), payload: { type: 'text', text: 'another one' } }, { messageId: last.messageId }],
    ]);
    if (wrong === undefined) return;
    const [body, changes] = wrong;
    await send(lane, Object.assign(message, changes, { lane: -1 }), body, false);
  }

  const users = await Promise.all(Array.from({ length: options.users }, (_, index) => login(`user${index + 1}`)));
  const pairs = users.map((user, index) => [user, users[(index + 1) % users.length]!]);
  const groups = pairs.map(([user]) => {
    const others = random.shuffled(users.filter((other) => other !== user));
    return [user!, ...others.slice(0, random.between(2, 4))];
  });
  const conversations = await Promise.all([...pairs, ...groups].map(openConversation));
  // Two people write in each conversation.
  const lanes = conversations.flatMap((conversation) =>
    conversation.members.slice(0, 2).map((senderId): Omit<Lane, 'number'> => ({
      conversation,
      senderId,
      random: openRandom(random.between(0, 2 ** 31)),
      fileIds: [],
      count: 0,
    })),
  );
  const numbered = lanes.map((lane, number): Lane => ({ ...lane, number }));
  await Promise.all(
    numbered.slice(0, 4).map(async (lane) => {
      const fileId = await upload(lane.senderId, 10_000);
      if (fileId !== undefined) lane.fileIds.push(fileId);
    }),
  );

  let gap = 1_000 / rate;
  let nextAt = Date.now();

  async function run(lane: Lane): Promise<void> {
    const { random } = lane;
    while (!stopping) {
      nextAt += gap;
      const wait = nextAt - Date.now();
      if (wait > 0) await sleep(wait, undefined, { signal: gaveUp });
      if (stopping) return;
      lane.count += 1;
      if (lane.count % messagesPerFile === lane.number % messagesPerFile) {
        const isLarge = random.next() < 0.05;
        const fileId = await upload(
          lane.senderId,
          isLarge ? chunkSize + random.between(1, 100_000) : random.between(1, 60_000),
        );
        if (fileId !== undefined) lane.fileIds.push(fileId);
      }
      if (random.next() < 0.03) await sendWrong(lane);
      const message = draftOf(lane);
      await send(lane, message, bodyOf(message, lane), random.next() < 0.02);
    }
  }

  const failed = Promise.withResolvers<never>();
  // Whoever waits for it, or stops them, hears of it.
  failed.promise.catch(() => {});
  const running: Promise<void>[] = [];
  const follow = (work: Promise<void>) => {
    work.catch(failed.reject);
    running.push(work);
  };
  numbered.forEach((lane) => follow(run(lane)));

  return {
    journal,
    conversations,
    tokens,
    administrator: users[0]!,
    statuses,
    accepted: () => acceptedCount,
    failed: failed.promise,
    insist,
    hurry() {
      gap = 0;
      nextAt = Date.now();
    },
    burst(count) {
      const sent = Array.from({ length: count }, (_, index) => {
        // Beside the lane's own messages, so it has no place in its order.
        const lane = { ...numbered[index % numbered.length]! };
        const message = Object.assign(draftOf(lane), { lane: -1 });
        follow(send(lane, message, bodyOf(message, lane), false));
        return message.messageId;
      });
      return sent;
    },
    async stop() {
      stopping = true;
      const timer = setTimeout(
        () => late.abort(new Error(`no definite answer after ${drainLimit / 1_000} s`)),
        drainLimit,
      );
      try {
        await Promise.all(running);
      } finally {
        clearTimeout(timer);
      }
    },
  };

  /** Whether asking again would change nothing. */
  function isDefinite({ status, body }: Answered): boolean {
    if (status >= 200 && status < 300) return true;
    // Another call with this id is under way: what becomes of it isn't known yet.
    if (body.error_code === 'MESSAGE_ID_IN_USE' || body.error_code === 'UPLOAD_COMPLETING') return false;
    return status >= 400 && status < 500 && status !== 408 && status !== 429 && status !== 499;
  }
}
