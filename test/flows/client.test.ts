import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { createClient, RefusedError, type Client } from '../../client/client.ts';
import type { ListMessagesRequest } from '../../client/gen/chat4all/message/v1/message.pb.ts';
import { eventually } from '../eventually.ts';
import { contentDigest, contentOf, mebibyte, sha256Of } from './files.ts';
import { openedMeshes } from './meshes.ts';

/** What users of the client do, with nothing but the client. */

const meshes = openedMeshes(['embedded', 'kafka'], { env: { ADMIN_USERS: 'user1' } });

async function login(baseUrl: string, username: string): Promise<{ userId: string; client: Client }> {
  const { auth } = createClient({ baseUrl });
  const { token, user_id: userId } = await auth.issueToken({ username, password: 'password123' });
  return { userId, client: createClient({ baseUrl, token: () => token }) };
}

for (const mesh of meshes) {
  const { bus } = mesh;
  test.serial(`${bus}: with the client one logs in, writes, and sees what is delivered and who wrote it`, async (t) => {
    const [me, friend] = await Promise.all([login(mesh.url, 'user1'), login(mesh.url, 'user2')]);
    const { user_id, username } = await me.client.auth.getCurrentUser({});
    t.deepEqual([user_id, username], [me.userId, 'user1']);
    const { users, total } = await me.client.auth.listUsers({ username: 'user2', offset: 0 });
    t.deepEqual([users.map((user) => user.user_id), total], [[friend.userId], 1]);

    const conversation = await me.client.conversation.createConversation({
      type: 'private',
      members: [me.userId, 'user2'],
      metadata: { name: 'Nós & vocês?' },
    });
    const { conversation_id } = conversation;
    t.deepEqual(await friend.client.conversation.getConversation({ conversation_id }), conversation);
    t.is(conversation.metadata.name, 'Nós & vocês?');

    const ids = [uuid(), uuid(), uuid()];
    for (const [index, message_id] of ids.entries()) {
      const payload = { type: 'text' as const, text: `Olá ${index}` };
      const message = { message_id, conversation_id, from: me.userId, channels: ['whatsapp'], payload };
      t.deepEqual(await me.client.message.sendMessage(message), { status: 'accepted', message_id });
    }
    const last = await eventually(
      'the last message is delivered',
      () => friend.client.message.getMessage({ message_id: ids[2]! }),
      ({ status }) => status === 'delivered',
    );
    t.deepEqual(
      last.history.map(({ status }) => status),
      ['accepted', 'in_transit', 'delivered'],
    );
    t.is(last.deliveries[0]!.next_attempt_at, null);

    const list = (asked: Partial<ListMessagesRequest>) =>
      friend.client.message.listMessages({ conversation_id, ...asked });
    const seqs = async (asked: Partial<ListMessagesRequest>) => (await list(asked)).messages.map(({ seq }) => seq);
    t.deepEqual(await seqs({}), [3, 2, 1]);
    t.deepEqual(await seqs({ order: 'asc', limit: 2, offset: 1 }), [2, 3]);
    t.deepEqual(await seqs({ after_seq: 0, before_seq: 3, order: 'asc' }), [1, 2]);
    // A zero is said, too: it isn't the same as nothing.
    const refusal = await t.throwsAsync(list({ limit: 0 }), { instanceOf: RefusedError });
    t.is(refusal?.problem?.status, 400);
    t.deepEqual(Object.keys(refusal?.problem?.field_errors ?? {}), ['limit']);
  });

  test.serial(
    `${bus}: with the client a file goes up in chunks, is sent, and comes down whole or in part`,
    async (t) => {
      const [me, friend] = await Promise.all([login(mesh.url, 'user1'), login(mesh.url, 'user2')]);
      const content = contentOf('client', 2 * 5 * mebibyte + 1_000);
      const blob = new Blob([content.bytes() as Buffer<ArrayBuffer>]);
      const begun = await me.client.file.initiateUpload({
        filename: 'férias.bin',
        file_size: blob.size,
        chunk_size: 5 * mebibyte,
      });
      const { file_id, chunk_size } = begun;
      t.is(begun.chunk_count, 3);
      const chunk = (id: number) => blob.slice(id * chunk_size, (id + 1) * chunk_size);

      const wrong = me.client.uploadChunk(
        { file_id, chunk_id: 0, content_digest: contentDigest(Buffer.from('x')) },
        chunk(0),
      );
      t.is((await t.throwsAsync(wrong, { instanceOf: RefusedError }))?.problem?.error_code, 'CHUNK_DIGEST_MISMATCH');
      const bytes = new Uint8Array(await chunk(0).arrayBuffer());
      const first = await me.client.uploadChunk({ file_id, chunk_id: 0, content_digest: contentDigest(bytes) }, bytes);
      t.like(first, { chunk_id: 0, status: 'uploaded', received_bytes: chunk_size });
      await me.client.uploadChunk({ file_id, chunk_id: 1 }, chunk(1).stream());
      const place = await me.client.file.getChunkUploadUrl({ file_id, chunk_id: 2 });
      t.is(place.status, 'pending');
      await t.throwsAsync(me.client.putChunk(place.upload_url, chunk(0)), { instanceOf: RefusedError });
      await me.client.putChunk(place.upload_url, chunk(2));
      t.deepEqual((await me.client.file.getFile({ file_id })).missing_chunks, []);

      const checksum = await content.sha256();
      const completed = await me.client.file.completeUpload({ file_id, checksum });
      t.is(completed.status, 'completed');
      const { conversation_id } = await me.client.conversation.createConversation({
        type: 'private',
        members: ['user1', 'user2'],
      });
      const payload = { type: 'file' as const, file_id };
      const message = { message_id: uuid(), conversation_id, from: me.userId, channels: ['all'], payload };
      await me.client.message.sendMessage(message);

      const whole = await friend.client.downloadFile({ file_id });
      t.is(sha256Of(Buffer.from(await whole.arrayBuffer())), checksum);
      const part = await friend.client.downloadFile({ file_id, range: 'bytes=10-19' });
      t.is(part.status, 206);
      t.deepEqual(Buffer.from(await part.arrayBuffer()), content.bytes(10, 20));
      const stranger = await login(mesh.url, 'user3');
      const refusal = await t.throwsAsync(stranger.client.downloadFile({ file_id }), { instanceOf: RefusedError });
      t.like(refusal?.problem, { status: 403, error_code: 'NOT_A_READER' });

      const unsent = await me.client.file.initiateUpload({ filename: 'x', file_size: 1 });
      t.deepEqual(await me.client.file.deleteFile({ file_id: unsent.file_id }), {});
    },
  );

  test.serial(`${bus}: with the client a field is the body, the rest of the request the path`, async (t) => {
    const { client } = await login(mesh.url, 'user1');
    const set = await client.simulation.setProfile({ channel: 'instagram', profile: { latency: { p50_ms: 1 } } });
    t.like(set, { rate_limit: 0, latency: { p50_ms: 1, p99_ms: 0 }, outages: [], receipts: null, record: false });
    t.deepEqual(await client.simulation.getProfile({ channel: 'instagram' }), set);
    t.is((await client.simulation.resetProfile({ channel: 'instagram' })).latency?.p50_ms, 0);
    const unknown = client.simulation.getProfile({ channel: 'a/b?c' });
    t.is((await t.throwsAsync(unknown, { instanceOf: RefusedError }))?.problem?.error_code, 'CHANNEL_NOT_FOUND');
  });
}

test.serial("the client's example does what it says", async (t) => {
  const env = { ...process.env, HUB: meshes[0]!.url };
  const example = path.resolve(import.meta.dirname, '../../client/examples/example.ts');
  const { stdout } = await promisify(execFile)(process.execPath, [example], { env, timeout: 60_000 });
  t.regex(stdout, /^the text is delivered: accepted, in_transit, delivered$/m);
  t.regex(stdout, /^user2 has downloaded it: the same 20000000 bytes$/m);
});
