import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Hub } from './hub.ts';
import type { Memory, Upload } from './memory.ts';

/** What became of a message. */
export interface SentMessage {
  messageId: string;
  conversationId: string;
  status: string;
  /** Why it failed, if it did. */
  why: string;
}

export interface SendOptions {
  hub: Hub;
  memory: Memory;
  upload: Upload;
  conversations: readonly string[];
  /** In the order of the alphabet. */
  channels: readonly string[];
}

interface Message {
  status: string;
  history: { status: string; note: string }[];
}

/** A message ends within 30 s. Milliseconds. */
const endLimit = 40_000;
const lookEvery = 200;

/**
 * Sends the file to each conversation, once however often it is repeated, and waits until it is delivered.
 *
 * @throws Refusal, ConnectionError
 */
export async function* sendMessages(options: SendOptions): AsyncGenerator<SentMessage> {
  const { hub, memory, conversations, channels } = options;
  const messages = { ...options.upload.messages };
  for (const conversationId of conversations) {
    const name = [conversationId, ...channels].join(' ');
    const messageId = (messages[name] ??= randomUUID());
    // Before it is sent: whoever repeats it sends the same one.
    await memory.keep({ ...options.upload, messages });
    const json = {
      message_id: messageId,
      conversation_id: conversationId,
      from: hub.userId,
      channels,
      payload: { type: 'file', file_id: options.upload.fileId },
    };
    await hub.call('POST', '/v1/messages', { json });
    const { status, history } = await ended(hub, messageId);
    const why = status === 'failed' ? (history.at(-1)?.note ?? '') : '';
    yield { messageId, conversationId, status, why };
  }
}

/** The message once it is delivered or failed, or as it is when that takes too long. */
async function ended(hub: Hub, messageId: string): Promise<Message> {
  for (const limit = performance.now() + endLimit; ;) {
    const message = await hub.call<Message>('GET', `/v1/messages/${messageId}`);
    if (message.status === 'delivered' || message.status === 'failed' || performance.now() > limit) return message;
    await sleep(lookEvery);
  }
}
