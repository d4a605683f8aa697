import { once } from 'node:events';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { eventually } from '../eventually.ts';
import { openFiles, openedFileMeshes, stockAtRest } from './file-meshes.ts';
import {
  chunkOf,
  chunkPath,
  complete,
  contentOf,
  detailsOf,
  download,
  emptyChecksum,
  initiate,
  mebibyte,
  put,
  readContent,
  resume,
  sendChunk,
  sendChunks,
  sendPartly,
  sha256Of,
  uploadFile,
  type ChunkAnswer,
} from './files.ts';
import {
  deliveryLine,
  deliveryLines,
  ended,
  everyMessage,
  messageOf,
  openConversation,
  send,
  type Person,
} from './meshes.ts';

const meshes = openedFileMeshes(
  [
    ['embedded', 'disk'],
    ['kafka', 's3'],
  ],
  { people: 25 },
);

const smallest = 5 * mebibyte;
const largest = 2 * 1024 ** 3;

/** The chunk that a URL takes: on S3, parts are counted from 1. */
function chunkIn(url: string | null | undefined): number | undefined {
  if (url === null || url === undefined) return undefined;
  const { searchParams } = new URL(url);
  return searchParams.has('chunk_id')
    ? Number(searchParams.get('chunk_id'))
    : Number(searchParams.get('partNumber')) - 1;
}

/** A form with the file between other parts. */
function formOf(bytes: Uint8Array): { body: Buffer; headers: Record<string, string> } {
  const boundary = '----flow';
  const field = (name: string) => `--${boundary}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\nx\r\n`;
  const head = `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="chunk"\r\nContent-Type: application/octet-stream\r\n\r\n`;
  return {
    body: Buffer.concat([
      Buffer.from(field('before') + head),
      bytes,
      Buffer.from(`\r\n${field('after')}--${boundary}--\r\n`),
    ]),
    headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
  };
}

/** The name under which a browser saves a download. */
function savedAs(headers: Headers): string {
  const disposition = headers.get('content-disposition') ?? '';
  const [, extended] = /filename\*=UTF-8''([^;]*)/i.exec(disposition) ?? [];
  if (extended !== undefined) return decodeURIComponent(extended);
  const [, quoted, plain] = /filename=(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))/i.exec(disposition) ?? [];
  return quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '';
}

for (const mesh of meshes) {
  const { files, anonymous, store, newPeople } = mesh;

  test.serial(
    `${files}: a file of 100 MB comes in chunks in any order, is sent, delivered, and read by those who got it`,
    async (t) => {
      t.timeout(120_000);
      const [owner, member, other, outsider] = newPeople(4) as [Person, Person, Person, Person];
      const content = contentOf('holiday', 100_000_000);
      const label = { filename: 'Férias "de" verão.mp4', file_size: content.size, content_type: 'video/mp4' };
      const upload = await initiate(owner, content, { filename: label.filename, contentType: label.content_type });
      const { file_id: fileId, chunk_size: chunkSize } = upload;
      t.like(upload, { chunk_size: 16 * mebibyte, chunk_count: 6, status: 'initiated' });
      t.is(chunkIn(upload.upload_url), 0);
      t.true(Date.parse(upload.expires_at) > Date.now());
      t.like(await detailsOf(owner, fileId), {
        ...label,
        owner_id: owner.userId,
        status: 'initiated',
        checksum: '',
        received_bytes: 0,
        missing_chunks: [0, 1, 2, 3, 4, 5],
        expires_at: upload.expires_at,
        download_url: null,
      });

      const body = Buffer.alloc(chunkSize, 'other bytes');
      const first = (await owner.rest.call('PATCH', chunkPath(fileId, 3), { body })).body as ChunkAnswer;
      t.like(first, { file_id: fileId, chunk_id: 3, status: 'uploaded', received_bytes: chunkSize });
      t.is(chunkIn(first.next_upload_url), 0);
      await sendChunks(upload, [5, 0, 3, 2], 4);
      t.like(await detailsOf(owner, fileId), {
        status: 'in_progress',
        missing_chunks: [1, 4],
        received_bytes: content.size - 2 * chunkSize,
      });
      t.is((await member.rest.refused(403, 'GET', `/v1/files/${fileId}`)).error_code, 'NOT_A_READER');
      const early = await owner.rest.refused(409, 'GET', `/v1/files/${fileId}/content`);
      t.is(early.error_code, 'FILE_NOT_COMPLETED');
      t.is(chunkIn((await sendChunk(upload, 4)).next_upload_url), 1);
      const last = await sendChunk(upload, 1);
      t.is(last.received_bytes, content.size);
      t.is(last.next_upload_url, null);

      const checksum = await content.sha256();
      const downloadUrl = `${mesh.url}/v1/files/${fileId}/content`;
      t.deepEqual(await complete(upload), {
        file_id: fileId,
        status: 'completed',
        filename: label.filename,
        file_size: content.size,
        checksum,
        download_url: downloadUrl,
      });
      const details = await detailsOf(owner, fileId);
      t.like(details, {
        ...label,
        status: 'completed',
        error: '',
        checksum,
        received_bytes: content.size,
        missing_chunks: [],
        expires_at: null,
        download_url: downloadUrl,
      });

      const id = await openConversation([owner, member, other]);
      const messageId = await send(owner, id, { payload: { type: 'file', file_id: fileId }, channels: ['all'] });
      const message = await ended(member, messageId);
      t.is(message.status, 'delivered');
      t.like(message.payload, { type: 'file', file_id: fileId, ...label });
      t.deepEqual((await everyMessage(other, id))[0]!.payload, message.payload);
      t.deepEqual(
        deliveryLines(mesh, messageId).toSorted(),
        [member, other]
          .flatMap(({ userId }) => ['WhatsApp', 'Instagram'].map((network) => deliveryLine(messageId, userId, network)))
          .toSorted(),
      );

      t.deepEqual(await detailsOf(member, fileId), details);
      const got = await download(member, fileId);
      t.like(got, { status: 200, length: content.size, sha256: checksum });
      t.is(got.headers.get('content-length'), String(content.size));
      t.is(got.headers.get('content-type'), 'video/mp4');
      t.is(got.headers.get('etag'), `"${checksum}"`);
      t.is(got.headers.get('accept-ranges'), 'bytes');
      t.is(savedAs(got.headers), label.filename);

      for (const path of [`/v1/files/${fileId}`, `/v1/files/${fileId}/content`]) {
        t.is((await outsider.rest.refused(403, 'GET', path)).error_code, 'NOT_A_READER');
        t.is((await anonymous.refused(401, 'GET', path)).error_code, 'TOKEN_MISSING');
      }
      t.is((await readContent(outsider, fileId, {}, 'HEAD')).status, 403);
    },
  );

  test.serial(
    `${files}: any range of a file can be downloaded, several at once, and nothing that is known already`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const size = 2 * smallest + 1_000;
      const content = contentOf('ranges', size);
      const { file_id: fileId, checksum } = await uploadFile(owner, content, { chunkSize: smallest });
      const path = `/v1/files/${fileId}/content`;
      const ranges: [range: string, start: number, end: number][] = [
        ['bytes=0-0', 0, 1],
        ['bytes=0-', 0, size],
        [`bytes=${smallest - 10}-${smallest + 9}`, smallest - 10, smallest + 10],
        [`bytes=${size - 1}-`, size - 1, size],
        ['bytes=-500', size - 500, size],
        [`bytes=-${size + 1}`, 0, size],
        [`bytes=${size - 100}-${size + 100}`, size - 100, size],
      ];
      for (const [range, start, end] of ranges) {
        const got = await readContent(owner, fileId, { range });
        t.is(got.status, 206, range);
        t.is(got.headers.get('content-range'), `bytes ${start}-${end - 1}/${size}`, range);
        t.is(got.headers.get('content-length'), String(end - start), range);
        t.true(got.bytes.equals(content.bytes(start, end)), range);
      }
      for (const range of ['bytes=0-1,5-6', 'lines=1-2', 'bytes=', 'nonsense']) {
        const got = await readContent(owner, fileId, { range });
        t.is(got.status, 200, range);
        t.is(got.headers.get('content-range'), null, range);
        t.is(sha256Of(got.bytes), checksum, range);
      }
      for (const range of [`bytes=${size}-`, `bytes=${size + 5}-${size + 9}`, 'bytes=-0']) {
        const refused = await owner.rest.refused(416, 'GET', path, { headers: { range } });
        t.is(refused.error_code, 'RANGE_NOT_SATISFIABLE', range);
      }

      const width = Math.ceil(size / 8);
      const parts = await Promise.all(
        Array.from({ length: 8 }, (_, index) =>
          readContent(owner, fileId, { range: `bytes=${index * width}-${(index + 1) * width - 1}` }),
        ),
      );
      t.is(sha256Of(Buffer.concat(parts.map(({ bytes }) => bytes))), checksum);

      for (const known of [`"${checksum}"`, `W/"${checksum}"`, `"other", "${checksum}"`, '*']) {
        const got = await readContent(owner, fileId, { 'if-none-match': known });
        t.is(got.status, 304, known);
        t.is(got.bytes.length, 0, known);
        t.is(got.headers.get('etag'), `"${checksum}"`);
      }
      t.is((await readContent(owner, fileId, { 'if-none-match': '"other"' })).status, 200);

      const range = 'bytes=0-9';
      t.is((await readContent(owner, fileId, { range, 'if-range': `"${checksum}"` })).status, 206);
      for (const ifRange of ['"other"', `W/"${checksum}"`, 'Wed, 21 Oct 2026 07:28:00 GMT']) {
        const got = await readContent(owner, fileId, { range, 'if-range': ifRange });
        t.is(got.status, 200, ifRange);
        t.is(sha256Of(got.bytes), checksum, ifRange);
      }

      for (const headers of [{}, { range }] as Record<string, string>[]) {
        const got = await readContent(owner, fileId, headers, 'HEAD');
        t.is(got.status, 200);
        t.is(got.headers.get('content-length'), String(size));
        t.is(got.headers.get('etag'), `"${checksum}"`);
        t.is(got.bytes.length, 0);
      }
    },
  );

  test.serial(
    `${files}: a file keeps its name as it was given, and a download is saved under a safe one`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const names: [given: string, saved: string][] = [
        ['plain.txt', 'plain.txt'],
        ['with "quotes" and \\.txt', '.txt'],
        ['"quoted".txt', '"quoted".txt'],
        ['../../etc/passwd', 'passwd'],
        ['C:\\Users\\me\\Imagem 1.png', 'Imagem 1.png'],
        ['folder/', 'folder'],
        ['..', 'download'],
        ['//', 'download'],
        ['👩‍👩‍👧 çã%20.pdf', '👩‍👩‍👧 çã%20.pdf'],
        ['x; filename=evil.exe', 'x; filename=evil.exe'],
        ['safe\u202etxt.exe', 'safetxt.exe'],
        ['a'.repeat(255), 'a'.repeat(255)],
        [`${'ç'.repeat(127)}a`, `${'ç'.repeat(127)}a`],
      ];
      for (const [filename, saved] of names) {
        const made = await uploadFile(owner, contentOf('', 0), { filename, contentType: 'text/html; charset=utf-8' });
        t.is(made.filename, filename);
        t.is((await detailsOf(owner, made.file_id)).filename, filename);
        const { headers } = await readContent(owner, made.file_id);
        t.is(savedAs(headers), saved);
        t.regex(headers.get('content-disposition')!, /^attachment; /);
        t.is(headers.get('content-type'), 'text/html; charset=utf-8');
        t.is(headers.get('x-content-type-options'), 'nosniff');
      }
    },
  );

  test.serial(
    `${files}: a file of no bytes has no chunks, and is completed, sent and downloaded like any other`,
    async (t) => {
      const [owner, member] = newPeople(2) as [Person, Person];
      const upload = await initiate(owner, contentOf('', 0));
      t.like(upload, { upload_url: null, chunk_count: 0, status: 'initiated' });
      t.like(await detailsOf(owner, upload.file_id), {
        missing_chunks: [],
        received_bytes: 0,
        content_type: 'application/octet-stream',
      });
      const refused = await owner.rest.refused(400, 'PATCH', chunkPath(upload.file_id, 0), { body: Buffer.alloc(0) });
      t.deepEqual(Object.keys(refused.field_errors ?? {}), ['chunk_id']);
      t.like(await complete(upload), { status: 'completed', file_size: 0, checksum: emptyChecksum });

      const id = await openConversation([owner, member]);
      const message = await ended(
        member,
        await send(owner, id, { payload: { type: 'file', file_id: upload.file_id } }),
      );
      t.is(message.status, 'delivered');
      t.like(message.payload, { filename: 'file.bin', file_size: 0, content_type: 'application/octet-stream' });
      for (const method of ['GET', 'HEAD']) {
        const { status, headers, bytes } = await readContent(member, upload.file_id, {}, method);
        t.is(status, 200);
        t.is(headers.get('content-length'), '0');
        t.is(bytes.length, 0);
      }
      await member.rest.refused(416, 'GET', `/v1/files/${upload.file_id}/content`, { headers: { range: 'bytes=0-0' } });
    },
  );

  test.serial(`${files}: 2 GiB are accepted, a byte more is too large, before any of it is sent`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const begin = (size: unknown) => ({ json: { filename: 'large.bin', file_size: size } });
    for (const size of [largest + 1, String(largest + 1), 2 ** 53 - 1, '9223372036854775807']) {
      const refused = await owner.rest.refused(413, 'POST', '/v1/files/initiate', begin(size));
      t.like(refused, { title: 'Payload Too Large', error_code: 'FILE_TOO_LARGE' });
      t.deepEqual(Object.keys(refused.field_errors ?? {}), ['file_size']);
    }
    const { status, body } = await owner.rest.call('POST', '/v1/files/initiate', begin(largest));
    t.is(status, 201);
    t.like(body as object, { chunk_size: 16 * mebibyte, chunk_count: 128 });
    const { file_id: fileId } = body as { file_id: string };
    t.is((await owner.rest.call('DELETE', `/v1/files/${fileId}`)).status, 204);
  });

  test.serial(`${files}: chunks are of 5 to 64 MiB, and of 16 where the client doesn't say`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const begin = (size: unknown) => ({ json: { filename: 'x', file_size: 130 * mebibyte, chunk_size: size } });
    for (const size of [smallest - 1, 64 * mebibyte + 1, 0, -smallest, 2 ** 31, 5.5, 'x']) {
      const refused = await owner.rest.refused(400, 'POST', '/v1/files/initiate', begin(size));
      t.deepEqual(Object.keys(refused.field_errors ?? {}), ['chunk_size'], String(size));
    }
    for (const [size, chunks] of [
      [smallest, 26],
      [64 * mebibyte, 3],
      [undefined, 9],
    ]) {
      const { status, body } = await owner.rest.call('POST', '/v1/files/initiate', begin(size));
      t.is(status, 201);
      t.like(body as object, { chunk_size: size ?? 16 * mebibyte, chunk_count: chunks });
    }
  });

  test.serial(`${files}: chunks can be PUT to their URLs without a token, and completing notices them`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const content = contentOf(`${files} presigned`, 2 * smallest + 1_000);
    const upload = await initiate(owner, content, { chunkSize: smallest });
    const { file_id: fileId } = upload;
    const urlOf = async (chunkId: number) => {
      const asked = await owner.rest.call('PATCH', chunkPath(fileId, chunkId), { json: {} });
      t.is(asked.status, 200);
      return asked.body as ChunkAnswer;
    };

    const asked = await urlOf(1);
    t.like(asked, { file_id: fileId, chunk_id: 1, status: 'pending', received_bytes: 0 });
    t.is(chunkIn(asked.upload_url), 1);
    t.is(chunkIn(asked.next_upload_url), 0);
    t.like(await detailsOf(owner, fileId), { status: 'initiated', missing_chunks: [0, 1, 2], received_bytes: 0 });

    const plain = await fetch(upload.upload_url!, { method: 'PUT', body: new Uint8Array(chunkOf(upload, 0)) });
    t.is(plain.status, 200, await plain.text());
    t.like(await detailsOf(owner, fileId), { status: 'in_progress', missing_chunks: [1, 2], received_bytes: smallest });

    // As often as one likes: the last one counts.
    t.is((await put(asked.upload_url!, Buffer.alloc(smallest, 'x'))).status, 200);
    const second = await put(asked.upload_url!, chunkOf(upload, 1));
    t.is(second.status, 200, second.text);
    const next = await urlOf(0);
    t.is(next.received_bytes, 2 * smallest);
    t.is(chunkIn(next.next_upload_url), 2);
    const third = await put(next.next_upload_url!, chunkOf(upload, 2));
    t.is(third.status, 200, third.text);
    await complete(upload);
    t.like(await download(owner, fileId), { length: content.size, sha256: await content.sha256() });
    t.true((await put(asked.upload_url!, chunkOf(upload, 1))).status >= 400);
    t.is((await download(owner, fileId)).sha256, await content.sha256());
  });

  test.serial(
    `${files}: a chunk may come in a form, without a content type or a length, and by an id in any case`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const content = contentOf(`${files} forms`, 3 * smallest + 1_000);
      const upload = await initiate(owner, content, { chunkSize: smallest });
      const { file_id: fileId } = upload;
      async function* inPieces(bytes: Buffer) {
        for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
      }
      const sent: [chunkId: number, call: object][] = [
        [0, formOf(chunkOf(upload, 0))],
        [1, { body: chunkOf(upload, 1) }],
        [2, { body: inPieces(chunkOf(upload, 2)) }],
        [3, { body: chunkOf(upload, 3), headers: { 'content-type': 'image/png', expect: '100-continue' } }],
      ];
      for (const [chunkId, call] of sent) {
        const { status, body } = await owner.rest.call('PATCH', chunkPath(fileId.toUpperCase(), chunkId), call);
        t.is(status, 200, JSON.stringify(body));
        t.like(body as object, { file_id: fileId, chunk_id: chunkId, status: 'uploaded' });
      }
      await complete(upload);
      t.is((await download(owner, fileId.toUpperCase())).sha256, await content.sha256());
    },
  );

  test.serial(
    `${files}: of a chunk whose connection is cut nothing counts, and the upload goes on where it was`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const content = contentOf(`${files} cut`, 3 * smallest + 1_000);
      const upload = await initiate(owner, content, { chunkSize: smallest });
      const { file_id: fileId } = upload;
      await sendChunk(upload, 0);
      // In the middle of a new chunk, just before its last byte, and in the middle of one that is there already.
      for (const [chunkId, heldBack] of [
        [1, 2 * mebibyte],
        [2, 1],
        [0, 1],
      ] as const) {
        const requestId = uuid();
        const part = await sendPartly(upload, chunkId, { heldBack, headers: { 'x-request-id': requestId } });
        part.cut();
        t.is(await part.ended, undefined);
        const line = await eventually(
          'the call has ended',
          () => mesh.services.file!.lines.find((each) => each.includes(requestId) && each.includes('UploadChunk')),
          (found) => found !== undefined,
        );
        t.not((JSON.parse(line!) as { code: string }).code, 'OK');
        t.like(await detailsOf(owner, fileId), { missing_chunks: [1, 2, 3], received_bytes: smallest });
      }
      await resume(upload);
      t.like(await download(owner, fileId), { length: content.size, sha256: await content.sha256() });
    },
  );

  test.serial(
    `${files}: who received a file may send it on, and who has left all its conversations reads it no more`,
    async (t) => {
      const [owner, member, third, outsider] = newPeople(4) as [Person, Person, Person, Person];
      const { file_id: fileId, checksum } = await uploadFile(owner, contentOf(`${files} forwarded`, 1_000));
      const payload = { type: 'file', file_id: fileId };
      const first = await openConversation([owner, member, third]);
      const second = await openConversation([member, outsider]);
      const notYet = { json: messageOf(member, second, { payload }) };
      t.deepEqual(Object.keys((await member.rest.refused(400, 'POST', '/v1/messages', notYet)).field_errors ?? {}), [
        'payload.file_id',
      ]);
      await outsider.rest.refused(403, 'GET', `/v1/files/${fileId}/content`);

      t.is((await ended(member, await send(owner, first, { payload }))).status, 'delivered');
      await outsider.rest.refused(403, 'GET', `/v1/files/${fileId}/content`);
      const forwarded = await ended(outsider, await send(member, second, { payload }));
      t.is(forwarded.status, 'delivered');
      t.like(forwarded.payload, { file_id: fileId, filename: 'file.bin', file_size: 1_000 });
      t.is((await download(outsider, fileId)).sha256, checksum);

      await third.rest.post(`/v1/conversations/${first}/leave`, {});
      for (const path of [`/v1/files/${fileId}`, `/v1/files/${fileId}/content`]) {
        t.is((await third.rest.refused(403, 'GET', path)).error_code, 'NOT_A_READER');
      }
      await member.rest.post(`/v1/conversations/${first}/leave`, {});
      await owner.rest.post(`/v1/conversations/${first}/leave`, {});
      for (const reader of [owner, member, outsider]) t.is((await download(reader, fileId)).sha256, checksum);
    },
  );

  test.serial(
    `${files}: a client that goes in the middle of a download: nothing is read for it any more`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const content = contentOf(`${files} left`, 24 * mebibyte);
      const { file_id: fileId, checksum } = await uploadFile(owner, content);
      const requestId = uuid();
      const { status, body } = await owner.rest.raw('GET', `/v1/files/${fileId}/content`, {
        headers: { 'x-request-id': requestId },
      });
      t.is(status, 200);
      await once(body, 'readable');
      const folder = store.env.FILES_DIR;
      if (folder !== undefined && process.platform === 'linux') t.true((await openFiles(folder)).length > 0);
      body.destroy();
      const line = await eventually(
        'the call has ended',
        () => mesh.services.file!.lines.find((each) => each.includes(requestId) && each.includes('DownloadFile')),
        (found) => found !== undefined,
      );
      // The gateway gets the bytes by itself: the call was only about where.
      t.like(JSON.parse(line!), { code: 'OK' });
      if (folder !== undefined) {
        await eventually(
          'nothing is open',
          () => openFiles(folder),
          (places) => places.length === 0,
        );
      }
      t.is((await download(owner, fileId)).sha256, checksum);
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
