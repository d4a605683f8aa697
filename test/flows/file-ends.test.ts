import test from 'ava';
import { eventually } from '../eventually.ts';
import type { Problem } from '../rest.ts';
import { isFreed, openedFileMeshes, stockAtRest } from './file-meshes.ts';
import {
  chunkOf,
  chunkPath,
  complete,
  contentOf,
  detailsOf,
  download,
  emptyChecksum,
  everyChunk,
  initiate,
  mebibyte,
  put,
  sendChunk,
  sendChunks,
  sendPartly,
  tryChunk,
  uploadFile,
  type Completed,
} from './files.ts';
import { deliveryLines, ended, openConversation, send, type Person } from './meshes.ts';

const meshes = openedFileMeshes(
  [
    ['embedded', 'disk'],
    ['kafka', 's3'],
  ],
  { people: 25 },
);

const smallest = 5 * mebibyte;

for (const mesh of meshes) {
  const { files, store, rows, newPeople } = mesh;

  /** A file that is all there, of a few bytes. */
  const smallFile = async (owner: Person, text: string, options: Parameters<typeof initiate>[2] = {}) => {
    const content = contentOf(`${files} ${text}`, 1_000);
    return { content, ...(await uploadFile(owner, content, options)) };
  };
  const keyOf = async (checksum: string) => {
    const [row] = await rows<{ key: string }>('select storage_key as key from file.contents where checksum = $1', [
      checksum,
    ]);
    return row?.key;
  };
  const completeWith = (person: Person, fileId: string, checksum: string) =>
    person.rest.call('POST', '/v1/files/complete', { json: { file_id: fileId, checksum }, timeout: 60_000 });

  test.serial(`${files}: a checksum that doesn't fit fails the file, and all that was stored of it goes`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const content = contentOf(`${files} wrong checksum`, smallest + 1_000);
    const actual = await content.sha256();
    // Another one at the end; another one at the beginning; the wrong one both times.
    for (const [atFirst, atLast] of [
      [undefined, emptyChecksum],
      [emptyChecksum, actual],
      [emptyChecksum, emptyChecksum],
    ]) {
      const upload = await initiate(owner, content, { chunkSize: smallest, ...(atFirst && { checksum: atFirst }) });
      const { file_id: fileId } = upload;
      await sendChunks(upload, everyChunk(upload));
      const { status, body } = await completeWith(owner, fileId, atLast!);
      t.is(status, 400);
      t.is((body as Problem).error_code, 'CHECKSUM_MISMATCH');
      const details = await detailsOf(owner, fileId);
      t.like(details, { status: 'failed', checksum: '', download_url: null, expires_at: null, received_bytes: 0 });
      t.not(details.error, '');
      await isFreed(mesh, fileId);

      for (const refused of [
        await tryChunk(upload, 0),
        await owner.rest.call('PATCH', chunkPath(fileId, 0), { json: {} }),
        await completeWith(owner, fileId, actual),
      ]) {
        t.is(refused.status, 409);
        t.is((refused.body as Problem).error_code, 'UPLOAD_FAILED');
      }
      t.true((await put(upload.upload_url!, chunkOf(upload, 0))).status >= 400);
      const unread = await owner.rest.refused(409, 'GET', `/v1/files/${fileId}/content`);
      t.is(unread.error_code, 'FILE_NOT_COMPLETED');
      t.is((await owner.rest.call('DELETE', `/v1/files/${fileId}`)).status, 204);
      await owner.rest.refused(404, 'GET', `/v1/files/${fileId}`);
      await isFreed(mesh, fileId);
    }
    const checked = await uploadFile(owner, content, { chunkSize: smallest, checksum: actual.toUpperCase() });
    t.is(checked.checksum, actual);
  });

  test.serial(`${files}: an upload that lacks chunks is told which, and goes on`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const content = contentOf(`${files} missing`, 3 * smallest);
    const upload = await initiate(owner, content, { chunkSize: smallest });
    await sendChunk(upload, 1);
    const { status, body } = await completeWith(owner, upload.file_id, await content.sha256());
    t.is(status, 400);
    t.is((body as Problem).error_code, 'CHUNKS_MISSING');
    t.regex((body as Problem).detail, /\b0, 2$/);
    t.like(await detailsOf(owner, upload.file_id), { status: 'in_progress', missing_chunks: [0, 2] });
    await sendChunks(upload, [2, 0]);
    await complete(upload);
    t.is((await download(owner, upload.file_id)).sha256, await content.sha256());
  });

  test.serial(
    `${files}: who completes at once, or again, hears the same; with another checksum it is refused`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const content = contentOf(`${files} at once`, 2 * smallest);
      const upload = await initiate(owner, content, { chunkSize: smallest });
      const { file_id: fileId } = upload;
      await sendChunks(upload, [0, 1]);
      const answers = await Promise.all(Array.from({ length: 4 }, () => complete(upload)));
      for (const answer of answers) t.deepEqual(answer, answers[0]);
      t.deepEqual(await complete(upload), answers[0]);
      const upper = await completeWith(owner, fileId.toUpperCase(), answers[0]!.checksum.toUpperCase());
      t.deepEqual(upper.body as Completed, answers[0]);
      for (const refused of [await completeWith(owner, fileId, emptyChecksum), await tryChunk(upload, 0)]) {
        t.is(refused.status, 409);
        t.is((refused.body as Problem).error_code, 'FILE_COMPLETED');
      }
      await owner.rest.refused(409, 'PATCH', chunkPath(fileId, 0), { json: {} });
      t.is((await download(owner, fileId)).sha256, answers[0]!.checksum);
    },
  );

  test.serial(
    `${files}: completed with two checksums at once, a file is right or failed, and everybody hears so`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      let completed = 0;
      for (let round = 0; round < 10; round++) {
        const content = contentOf(`${files} round ${round}`, 1_000);
        const upload = await initiate(owner, content);
        const { file_id: fileId } = upload;
        await sendChunk(upload, 0);
        const checksum = await content.sha256();
        const tries = [checksum, emptyChecksum];
        if (round % 2 === 1) tries.reverse();
        const outcomes = await Promise.all(
          tries.map(async (each) => [each, await completeWith(owner, fileId, each)] as const),
        );
        const { [checksum]: right, [emptyChecksum]: wrong } = Object.fromEntries(outcomes);
        const details = await detailsOf(owner, fileId);
        if (right!.status === 200) {
          completed += 1;
          t.is(wrong!.status, 409);
          t.is((wrong!.body as Problem).error_code, 'FILE_COMPLETED');
          t.like(details, { status: 'completed', checksum });
          t.is((await download(owner, fileId)).sha256, checksum);
        } else {
          t.is(right!.status, 409);
          t.is((right!.body as Problem).error_code, 'UPLOAD_FAILED');
          t.is(wrong!.status, 400);
          t.is((wrong!.body as Problem).error_code, 'CHECKSUM_MISMATCH');
          t.is(details.status, 'failed');
          await isFreed(mesh, fileId);
        }
      }
      t.log(`${completed} of 10 were completed`);
    },
  );

  // Of what S3 does in one step no half can be left.
  if (files === 'disk') {
    test.serial(
      `${files}: what somebody died over while completing it is completed by the next, and cleared away`,
      async (t) => {
        const [owner] = newPeople(1) as [Person];
        const upload = await initiate(owner, contentOf(`${files} half`, 1_000));
        const { file_id: fileId } = upload;
        await sendChunk(upload, 0);
        await store.assembleHalf!(fileId);
        await complete(upload);
        t.is((await download(owner, fileId)).sha256, await upload.content.sha256());
        const uploads = async () => (await store.uploads()).filter((key) => key.startsWith(fileId));
        await eventually('only the object is left', uploads, (keys) => keys.length === 0);
      },
    );
  }

  test.serial(`${files}: the same content of two people is stored once, until both have deleted it`, async (t) => {
    const [one, other] = newPeople(2) as [Person, Person];
    const content = contentOf(`${files} shared content`, smallest + 1_000);
    const checksum = await content.sha256();
    const begun = await Promise.all([one, other].map((owner) => initiate(owner, content, { chunkSize: smallest })));
    await Promise.all(begun.map((upload) => sendChunks(upload, everyChunk(upload))));
    const made = await Promise.all(begun.map((upload) => complete(upload)));
    const key = await keyOf(checksum);
    const ids = made.map(({ file_id: fileId }) => fileId);
    t.true(ids.includes(key!));
    const spare = ids.find((id) => id !== key)!;
    await isFreed(mesh, spare);
    t.deepEqual(
      (await store.objects()).filter((object) => ids.includes(object)),
      [key!],
    );
    for (const [index, owner] of [one, other].entries()) t.is((await download(owner, ids[index]!)).sha256, checksum);

    // First the one whose upload is the object.
    const [first, second] = key === ids[0] ? [0, 1] : [1, 0];
    const people = [one, other];
    t.is((await people[first]!.rest.call('DELETE', `/v1/files/${ids[first]}`)).status, 204);
    await people[first]!.rest.refused(404, 'GET', `/v1/files/${ids[first]}/content`);
    await stockAtRest(mesh);
    t.is((await download(people[second]!, ids[second]!)).sha256, checksum);
    t.is((await people[second]!.rest.call('DELETE', `/v1/files/${ids[second]}`)).status, 204);
    await isFreed(mesh, key!);
    t.is(await keyOf(checksum), undefined);
  });

  test.serial(
    `${files}: an upload that is deleted while a chunk is on its way fails, and nothing stays of it`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const upload = await initiate(owner, contentOf(`${files} deleted`, 2 * smallest), { chunkSize: smallest });
      const { file_id: fileId } = upload;
      await sendChunk(upload, 1);
      const part = await sendPartly(upload, 0);
      t.is((await owner.rest.call('DELETE', `/v1/files/${fileId}`)).status, 204);
      t.like(await detailsOf(owner, fileId), { status: 'failed', received_bytes: 0, missing_chunks: [] });
      part.finish();
      const late = await part.ended;
      t.is(late?.status, 409);
      t.is((late!.body as Problem).error_code, 'UPLOAD_FAILED');
      await isFreed(mesh, fileId);
      t.deepEqual(await rows('select from file.chunks where file_id = $1', [fileId]), []);
      t.is((await owner.rest.call('DELETE', `/v1/files/${fileId}`)).status, 204);
      for (const [method, path] of [
        ['GET', `/v1/files/${fileId}`],
        ['DELETE', `/v1/files/${fileId}`],
        ['GET', `/v1/files/${fileId}/content`],
      ] as const) {
        t.is((await owner.rest.refused(404, method, path)).error_code, 'FILE_NOT_FOUND');
      }
    },
  );

  test.serial(`${files}: a completed file can be deleted by its owner until it is sent`, async (t) => {
    const [owner, member] = newPeople(2) as [Person, Person];
    const unsent = await smallFile(owner, 'unsent');
    t.is((await member.rest.refused(403, 'DELETE', `/v1/files/${unsent.file_id}`)).error_code, 'NOT_THE_OWNER');
    t.is((await owner.rest.call('DELETE', `/v1/files/${unsent.file_id}`)).status, 204);
    await owner.rest.refused(404, 'GET', `/v1/files/${unsent.file_id}`);
    await owner.rest.refused(404, 'DELETE', `/v1/files/${unsent.file_id}`);
    await isFreed(mesh, unsent.file_id);

    const sent = await smallFile(owner, 'sent');
    const id = await openConversation([owner, member]);
    await ended(member, await send(owner, id, { payload: { type: 'file', file_id: sent.file_id } }));
    t.is((await owner.rest.refused(409, 'DELETE', `/v1/files/${sent.file_id}`)).error_code, 'FILE_SENT');
    t.is((await member.rest.refused(403, 'DELETE', `/v1/files/${sent.file_id}`)).error_code, 'NOT_THE_OWNER');
    t.is((await download(member, sent.file_id)).sha256, sent.checksum);
  });

  test.serial(
    `${files}: a file that the store has lost fails its message with that reason, and is healed by another upload`,
    async (t) => {
      const [owner, member] = newPeople(2) as [Person, Person];
      const { file_id: fileId, checksum, content } = await smallFile(owner, 'lost');
      await store.lose((await keyOf(checksum))!);
      const id = await openConversation([owner, member]);
      const payload = { type: 'file', file_id: fileId };
      const messageId = await send(owner, id, { payload });
      const message = await ended(member, messageId);
      t.is(message.status, 'failed');
      const reason = message.history.at(-1)!;
      t.is(reason.status, 'failed');
      t.regex(reason.note, /file/i);
      t.like(message.deliveries, { length: 1, 0: { recipient: member.userId, status: 'failed', error: reason.note } });
      t.deepEqual(deliveryLines(mesh, messageId), []);
      const errors = mesh.services
        .router!.lines.map(
          (line) => JSON.parse(line) as { level: number | string; message_id?: string; reason?: string },
        )
        .filter((line) => line.message_id === messageId && (line.level === 50 || line.level === 'error'));
      t.like(errors, { length: 1, 0: { reason: reason.note } });
      await member.rest.refused(404, 'GET', `/v1/files/${fileId}/content`);

      await uploadFile(member, content);
      t.is((await download(owner, fileId)).sha256, checksum);
      t.is((await ended(member, await send(owner, id, { payload }))).status, 'delivered');
    },
  );

  test.serial(
    `${files}: ten uploads may be open, also if thirty begin at once; one that ends makes room`,
    async (t) => {
      const [owner, other] = newPeople(2) as [Person, Person];
      const content = contentOf(`${files} many`, 1_000);
      const json = { filename: 'x', file_size: content.size };
      const begin = () => owner.rest.call('POST', '/v1/files/initiate', { json });
      const answers = await Promise.all(Array.from({ length: 30 }, begin));
      const open = answers
        .filter(({ status }) => status === 201)
        .map(({ body }) => (body as { file_id: string }).file_id);
      t.is(open.length, 10);
      for (const { status, headers, body } of answers.filter((answer) => answer.status !== 201)) {
        t.is(status, 429);
        t.is((body as Problem).error_code, 'TOO_MANY_UPLOADS');
        t.true(Number(headers.get('retry-after')) >= 1);
      }
      t.is((await other.rest.call('POST', '/v1/files/initiate', { json })).status, 201);

      await owner.rest.call('PATCH', chunkPath(open[0]!, 0), { body: content.bytes() });
      t.is((await completeWith(owner, open[0]!, await content.sha256())).status, 200);
      t.is((await begin()).status, 201);
      t.is((await begin()).status, 429);
      t.is((await owner.rest.call('DELETE', `/v1/files/${open[1]}`)).status, 204);
      t.is((await begin()).status, 201);
      t.is((await begin()).status, 429);
    },
  );

  // The last one: it is about what all of them have left.
  test.serial(`${files}: in the end the store has what the tables say, and nothing else`, async (t) => {
    const { objects, uploads, expected, strayRows } = await stockAtRest(mesh);
    t.deepEqual({ objects, uploads }, expected);
    t.deepEqual(strayRows, []);
    t.true(objects.length > 5);
  });
}
