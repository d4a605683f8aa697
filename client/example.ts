/*
 * `npx node client/example.ts`: logs in, opens a conversation, sends a text and waits until it is delivered, uploads a file in
 * chunks, sends it, downloads it as the one who got it, and compares. HUB is the hub's URL.
 */

import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { openAsBlob } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { InitReq } from './fetch.ts';
import { downloadFile, uploadChunk } from './files.ts';
import { AuthService } from './gen/chat4all/auth/v1/auth.pb.ts';
import { ConversationService, ConversationType } from './gen/chat4all/conversation/v1/conversation.pb.ts';
import { FileService } from './gen/chat4all/file/v1/file.pb.ts';
import { MessageService, PayloadType, type GetMessageResponse } from './gen/chat4all/message/v1/message.pb.ts';

// oxlint-disable-next-line node/no-process-env -- an example has no other settings
const pathPrefix = process.env.HUB ?? 'http://localhost:8000';

/** Who calls, as each call is told. */
async function login(username: string): Promise<{ userId: string; init: InitReq }> {
  const { token, user_id: userId } = await AuthService.IssueToken(
    { username, password: 'password123' },
    { pathPrefix },
  );
  return { userId, init: { pathPrefix, headers: { authorization: `Bearer ${token}` } } };
}

/** The message once it is delivered, or failed: that is decided within 30 s. */
async function ended(message_id: string, init: InitReq): Promise<GetMessageResponse> {
  for (const giveUp = Date.now() + 60_000; Date.now() < giveUp; await sleep(100)) {
    const message = await MessageService.GetMessage({ message_id }, init);
    if (message.status === 'delivered' || message.status === 'failed') return message;
  }
  throw new Error(`Nobody knows what became of message ${message_id}`);
}

/** Uploads a file, three chunks at a time. @returns its id */
async function upload(content: Blob, filename: string, init: InitReq): Promise<string> {
  const { file_id, chunk_size, chunk_count } = await FileService.InitiateUpload(
    { filename, file_size: content.size, content_type: content.type },
    init,
  );
  const chunks = Array.from({ length: chunk_count }, (_, chunk_id) => chunk_id).values();
  const sendSome = async () => {
    for (const chunk_id of chunks) {
      const chunk = content.slice(chunk_id * chunk_size, (chunk_id + 1) * chunk_size);
      const { received_bytes } = await uploadChunk({ file_id, chunk_id }, chunk, init);
      console.log(`chunk ${chunk_id}: ${received_bytes} of ${content.size} bytes are there`);
    }
  };
  await Promise.all([sendSome(), sendSome(), sendSome()]);
  // All of a large file is read once more.
  await FileService.CompleteUpload(
    { file_id, checksum: await sha256(content.stream()) },
    { ...init, timeout: 300_000 },
  );
  return file_id;
}

async function sha256(content: ReadableStream<Uint8Array>): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of content) hash.update(piece);
  return hash.digest('hex');
}

const [me, friend] = await Promise.all([login('user1'), login('user2')]);
const { conversation_id } = await ConversationService.CreateConversation(
  { type: ConversationType.CONVERSATION_TYPE_PRIVATE, members: [me.userId, friend.userId] },
  me.init,
);

const message_id = randomUUID();
const { status } = await MessageService.SendMessage(
  {
    message_id,
    conversation_id,
    from: me.userId,
    channels: ['whatsapp'],
    payload: { type: PayloadType.PAYLOAD_TYPE_TEXT, text: 'Hello, user2' },
  },
  me.init,
);
console.log(`the text is ${status}`);
const text = await ended(message_id, me.init);
console.log(`the text is ${text.status}: ${text.history.map((change) => change.status).join(', ')}`);

const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-example-'));
try {
  const file = path.join(folder, 'holiday.bin');
  await writeFile(file, randomBytes(20_000_000));
  const content = await openAsBlob(file, { type: 'video/mp4' });
  const file_id = await upload(content, 'holiday.bin', me.init);
  const sent = randomUUID();
  await MessageService.SendMessage(
    {
      message_id: sent,
      conversation_id,
      from: me.userId,
      channels: ['all'],
      payload: { type: PayloadType.PAYLOAD_TYPE_FILE, file_id },
    },
    me.init,
  );
  const { payload, status: outcome } = await ended(sent, friend.init);
  console.log(`the file ${payload.filename} is ${outcome}`);

  const download = await downloadFile({ file_id }, friend.init);
  if ((await sha256(download.body!)) !== (await sha256(content.stream()))) throw new Error('It came as another one');
  console.log(`user2 has downloaded it: the same ${payload.file_size} bytes`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
