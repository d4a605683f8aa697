/*
 * `npx node client/examples/example.ts`: logs in, opens a conversation, sends a text and waits until it is delivered, uploads a file,
 * sends it, downloads it as the one who got it, and compares. HUB is the hub's URL.
 */

import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { openAsBlob } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createClient, type Client } from '../client.ts';
import type { GetMessageResponse } from '../gen/chat4all/message/v1/message.pb.ts';

// oxlint-disable-next-line node/no-process-env -- an example has no other settings
const baseUrl = process.env.HUB ?? 'http://localhost:8000';

/** A client that calls as this user, and logs in again when its token has expired. */
function clientOf(username: string): Client {
  const { auth } = createClient({ baseUrl });
  return createClient({
    baseUrl,
    token: async () => (await auth.issueToken({ username, password: 'password123' })).token,
  });
}

/** The message once it is delivered, or failed: that is decided within 30 s. */
async function ended(message_id: string, client: Client): Promise<GetMessageResponse> {
  for (const giveUp = Date.now() + 60_000; Date.now() < giveUp; await sleep(100)) {
    const message = await client.message.getMessage({ message_id });
    if (message.status === 'delivered' || message.status === 'failed') return message;
  }
  throw new Error(`Nobody knows what became of message ${message_id}`);
}

async function sha256(content: ReadableStream<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of content) hash.update(piece);
  return hash.digest('hex');
}

const [me, friend] = [clientOf('user1'), clientOf('user2')];
const { user_id: from } = await me.auth.getCurrentUser();
const { conversation_id } = await me.conversation.createConversation({ type: 'private', members: ['user1', 'user2'] });

const message_id = randomUUID();
const { status } = await me.message.sendMessage({
  message_id,
  conversation_id,
  from,
  channels: ['whatsapp'],
  payload: { type: 'text', text: 'Hello, user2' },
});
console.log(`the text is ${status}`);
const text = await ended(message_id, me);
console.log(`the text is ${text.status}: ${text.history.map((change) => change.status).join(', ')}`);

const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-example-'));
try {
  const file = path.join(folder, 'holiday.bin');
  await writeFile(file, randomBytes(20_000_000));
  const content = await openAsBlob(file, { type: 'video/mp4' });
  const { file_id } = await me.uploadFile(content, {
    filename: 'holiday.bin',
    onProgress: ({ phase, done, total }) => console.log(`${phase}: ${done} of ${total} bytes`),
  });
  const sent = randomUUID();
  await me.message.sendMessage({
    message_id: sent,
    conversation_id,
    from,
    channels: ['all'],
    payload: { type: 'file', file_id },
  });
  const { payload, status: outcome } = await ended(sent, friend);
  console.log(`the file ${payload.filename} is ${outcome}`);

  const download = await friend.downloadFile({ file_id });
  if ((await sha256(download.body!)) !== (await sha256(content.stream()))) throw new Error('It came as another one');
  console.log(`user2 has downloaded it: the same ${payload.file_size} bytes`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
