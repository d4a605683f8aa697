import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { RefusedError, type InitReq } from '../../client/fetch.ts';
import { downloadFile, putChunk, uploadChunk } from '../../client/files.ts';
import { AuthService } from '../../client/gen/chat4all/auth/v1/auth.pb.ts';
import { SimulationService } from '../../client/gen/chat4all/connectors/v1/connectors.pb.ts';
import { ConversationService } from '../../client/gen/chat4all/conversation/v1/conversation.pb.ts';
import { FileService } from '../../client/gen/chat4all/file/v1/file.pb.ts';
import { MessageService } from '../../client/gen/chat4all/message/v1/message.pb.ts';
import { eventually } from '../eventually.ts';
import { contentDigest, contentOf, mebibyte, sha256Of } from './files.ts';
import { openedMeshes } from './meshes.ts';

/** What users of the client do, with nothing but the client. */

const meshes = openedMeshes(['embedded', 'kafka'], { env: { ADMIN_USERS: 'user1' } });

async function login(pathPrefix: string, username: string): Promise<{ userId: string; init: InitReq }> {
  const answer = await AuthService.IssueToken({ username, password: 'password123' }, { pathPrefix });
  return { userId: answer.user_id, init: { pathPrefix, headers: { authorization: `Bearer ${answer.token}` } } };
}

for (const mesh of meshes) {
  const { bus } = mesh;
  test.serial(`${bus}: with the client one logs in, writes, and sees what is delivered and who wrote it`, async (t) => {
    const [me, friend] = await Promise.all([login(mesh.url, 'user1'), login(mesh.url, 'user2')]);
    const { user_id, username } = await AuthService.GetCurrentUser({}, me.init);
    t.deepEqual([user_id, username], [me.userId, 'user1']);
    const { users, total } = await AuthService.ListUsers({ username: 'user2', offset: 0 }, me.init);
    t.deepEqual([users.map((user) => user.user_id), total], [[friend.userId], 1]);

    const conversation = await ConversationService.CreateConversation(
      { type: 'private', members: [me.userId, 'user2'], metadata: { name: 'Nós & vocês?' } },
      me.init,
    );
    const { conversation_id } = conversation;
    t.deepEqual(await ConversationService.GetConversation({ conversation_id }, friend.init), conversation);
    t.is(conversation.metadata.name, 'Nós & vocês?');

    const ids = [uuid(), uuid(), uuid()];
    for (const [index, message_id] of ids.entries()) {
      const payload = { type: 'text' as const, text: `Olá ${index}` };
      const message = { message_id, conversation_id, from: me.userId, channels: ['whatsapp'], payload };
      t.deepEqual(await MessageService.SendMessage(message, me.init), { status: 'accepted', message_id });
    }
    const last = await eventually(
      'the last message is delivered',
      () => MessageService.GetMessage({ message_id: ids[2]! }, friend.init),
      ({ status }) => status === 'delivered',
    );
    t.deepEqual(
      last.history.map(({ status }) => status),
      ['accepted', 'in_transit', 'delivered'],
    );
    t.is(last.deliveries[0]!.next_attempt_at, null);

    const list = (asked: object) => MessageService.ListMessages({ conversation_id, ...asked }, friend.init);
    const seqs = async (asked: object) => (await list(asked)).messages.map(({ seq }) => seq);
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
      const begun = await FileService.InitiateUpload(
        { filename: 'férias.bin', file_size: blob.size, chunk_size: 5 * mebibyte },
        me.init,
      );
      const { file_id, chunk_size } = begun;
      t.is(begun.chunk_count, 3);
      const chunk = (id: number) => blob.slice(id * chunk_size, (id + 1) * chunk_size);

      const wrong = uploadChunk(
        { file_id, chunk_id: 0, content_digest: contentDigest(Buffer.from('x')) },
        chunk(0),
        me.init,
      );
      t.is((await t.throwsAsync(wrong, { instanceOf: RefusedError }))?.problem?.error_code, 'CHUNK_DIGEST_MISMATCH');
      const bytes = new Uint8Array(await chunk(0).arrayBuffer());
      const first = await uploadChunk({ file_id, chunk_id: 0, content_digest: contentDigest(bytes) }, bytes, me.init);
      t.like(first, { chunk_id: 0, status: 'uploaded', received_bytes: chunk_size });
      await uploadChunk({ file_id, chunk_id: 1 }, chunk(1).stream(), me.init);
      const place = await FileService.GetChunkUploadUrl({ file_id, chunk_id: 2 }, me.init);
      t.is(place.status, 'pending');
      await t.throwsAsync(putChunk(place.upload_url, chunk(0)), { instanceOf: RefusedError });
      await putChunk(place.upload_url, chunk(2));
      t.deepEqual((await FileService.GetFile({ file_id }, me.init)).missing_chunks, []);

      const checksum = await content.sha256();
      const completed = await FileService.CompleteUpload({ file_id, checksum }, me.init);
      t.is(completed.status, 'completed');
      const { conversation_id } = await ConversationService.CreateConversation(
        { type: 'private', members: ['user1', 'user2'] },
        me.init,
      );
      const payload = { type: 'file' as const, file_id };
      const message = { message_id: uuid(), conversation_id, from: me.userId, channels: ['all'], payload };
      await MessageService.SendMessage(message, me.init);

      const whole = await downloadFile({ file_id }, friend.init);
      t.is(sha256Of(Buffer.from(await whole.arrayBuffer())), checksum);
      const part = await downloadFile({ file_id, range: 'bytes=10-19' }, friend.init);
      t.is(part.status, 206);
      t.deepEqual(Buffer.from(await part.arrayBuffer()), content.bytes(10, 20));
      const stranger = await login(mesh.url, 'user3');
      const refusal = await t.throwsAsync(downloadFile({ file_id }, stranger.init), { instanceOf: RefusedError });
      t.like(refusal?.problem, { status: 403, error_code: 'NOT_A_READER' });

      const unsent = await FileService.InitiateUpload({ filename: 'x', file_size: 1 }, me.init);
      t.deepEqual(await FileService.DeleteFile({ file_id: unsent.file_id }, me.init), {});
    },
  );

  test.serial(`${bus}: with the client a field is the body, the rest of the request the path`, async (t) => {
    const { init } = await login(mesh.url, 'user1');
    const set = await SimulationService.SetProfile({ channel: 'instagram', profile: { latency: { p50_ms: 1 } } }, init);
    t.like(set, { rate_limit: 0, latency: { p50_ms: 1, p99_ms: 0 }, outages: [], receipts: null, record: false });
    t.deepEqual(await SimulationService.GetProfile({ channel: 'instagram' }, init), set);
    t.is((await SimulationService.ResetProfile({ channel: 'instagram' }, init)).latency?.p50_ms, 0);
    const unknown = SimulationService.GetProfile({ channel: 'a/b?c' }, init);
    t.is((await t.throwsAsync(unknown, { instanceOf: RefusedError }))?.problem?.error_code, 'CHANNEL_NOT_FOUND');
  });
}

test.serial("the client's example does what it says", async (t) => {
  const env = { ...process.env, HUB: meshes[0]!.url };
  const example = path.resolve(import.meta.dirname, '../../client/example.ts');
  const { stdout } = await promisify(execFile)(process.execPath, [example], { env, timeout: 60_000 });
  t.regex(stdout, /^the text is delivered: accepted, in_transit, delivered$/m);
  t.regex(stdout, /^user2 has downloaded it: the same 20000000 bytes$/m);
});
