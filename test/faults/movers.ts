import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Answered, Clients } from './clients.ts';
import type { SentMessage } from './journal.ts';

/** What happens in a group that somebody leaves and comes back to, again and again, while somebody else says what they have read. */
export interface Movers {
  conversationId: string;
  /** Who leaves and comes back. */
  moverId: string;
  /** How often. */
  times: number;
  readerId: string;
  /** Up to where the reader has read, in the order in which it was said. */
  reads: number[];
  /** Never fulfilled; rejected when something is refused. */
  failed: Promise<never>;
  /** Ends once the mover is back. */
  stop(): Promise<void>;
}

/** Of its own, beside those of the clients. */
const lane = 200_000;
const pause = 400;

/** Opens the group and begins. One thing comes after the other, so that it is known who is there. */
export async function startMovers(clients: Clients, channel: string, signal: AbortSignal): Promise<Movers> {
  const [, , , senderId, moverId, readerId] = [...clients.tokens.keys()] as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const members = [senderId, moverId, readerId];

  async function ask(userId: string, at: string, body: object, isWell: (answered: Answered) => boolean) {
    const answered = await clients.insist(userId, 'POST', at, body);
    if (!isWell(answered)) throw new Error(`POST ${at}: ${answered.status} ${answered.tried.code}`);
    return answered.body;
  }
  const isDone = ({ status }: Answered) => status === 200 || status === 201;
  const opened = await ask(senderId, '/v1/conversations', { type: 'group', members }, isDone);
  const conversationId = opened.conversation_id!;
  clients.conversations.push({ id: conversationId, members });
  const reads: number[] = [];
  let sent = 0;
  let stopping = false;

  async function send(recipientIds: string[]): Promise<void> {
    sent += 1;
    const text = `to whoever is there ${sent}`;
    const message: SentMessage = {
      messageId: randomUUID(),
      conversationId,
      senderId,
      recipientIds,
      channels: [channel],
      content: { text },
      lane,
      told: 'nothing',
      firstTried: Date.now(),
      toldAt: 0,
      tries: [],
    };
    clients.journal.messages.push(message);
    const body = {
      message_id: message.messageId,
      conversation_id: conversationId,
      from: senderId,
      channels: [channel],
      payload: { type: 'text', text },
    };
    const { status, tried } = await clients.insist(senderId, 'POST', '/v1/messages', body, message.tries);
    if (status !== 200) throw new Error(`A message to those who are there: ${status} ${tried.code}`);
    Object.assign(message, { told: 'accepted', toldAt: Date.now() });
    await ask(readerId, `/v1/conversations/${conversationId}/read`, { seq: sent }, isDone);
    reads.push(sent);
  }

  const movers: Omit<Movers, 'failed' | 'stop'> = { conversationId, moverId, times: 0, readerId, reads };
  const running = (async () => {
    while (!stopping) {
      await send([moverId, readerId]);
      // One that has left at a try without an answer is told that they are not there.
      const hasLeft = (answered: Answered) => isDone(answered) || answered.body.error_code === 'NOT_A_MEMBER';
      await ask(moverId, `/v1/conversations/${conversationId}/leave`, {}, hasLeft);
      await send([readerId]);
      await ask(senderId, `/v1/conversations/${conversationId}/members`, { member: moverId }, isDone);
      movers.times += 1;
      await sleep(pause, undefined, { signal });
    }
  })();
  const failed = running.then(() => new Promise<never>(() => {}));
  failed.catch(() => {});
  return Object.assign(movers, {
    failed,
    async stop() {
      stopping = true;
      await running;
    },
  });
}
