import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { openRest, type Call, type Problem } from '../rest.ts';
import { openedFileMeshes, stockAtRest } from './file-meshes.ts';
import {
  chunkOf,
  chunkPath,
  complete,
  contentDigest,
  contentOf,
  detailsOf,
  download,
  emptyChecksum,
  everyChunk,
  initiate,
  put,
  sendChunk,
  sendChunks,
  uploadFile,
  type ChunkAnswer,
  type Upload,
} from './files.ts';
import { messageOf, openConversation, type Person } from './meshes.ts';

const meshes = openedFileMeshes(
  [
    ['embedded', 'disk'],
    ['kafka', 's3'],
  ],
  { people: 40, small: true },
);

/** The paths of the wrong fields, in order. */
function wrong({ field_errors: errors = {} }: Problem): string[] {
  return Object.keys(errors).toSorted();
}

/** Bytes piece by piece, and so without a length. */
function* inPieces(bytes: Uint8Array) {
  for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
}

/** A URL with another value of a parameter, or without it. */
function changed(url: string, name: string, value?: string): string {
  const other = new URL(url);
  if (!other.searchParams.has(name)) throw new Error(`${url} has no ${name}`);
  if (value === undefined) other.searchParams.delete(name);
  else other.searchParams.set(name, value);
  return other.href;
}

/** Another text of the same length: its middle character is another one. */
function misspelt(text: string): string {
  const middle = Math.floor(text.length / 2);
  return `${text.slice(0, middle)}${text[middle] === 'a' ? 'b' : 'a'}${text.slice(middle + 1)}`;
}

/** What is PUT: the body and headers. */
type PutArguments = [body: Call['body'], headers?: Record<string, string>];

for (const mesh of meshes) {
  const { files, anonymous, newPeople, smallestChunk } = mesh;

  /** An upload of a chunk that is full, and one of 1,000 bytes. */
  const twoChunks = (owner: Person, seed: string) =>
    initiate(owner, contentOf(`${files} ${seed}`, smallestChunk + 1_000), { chunkSize: smallestChunk });
  const begin = (person: Person, json: unknown) => person.rest.refused(400, 'POST', '/v1/files/initiate', { json });
  const nothingCounts = async (t: ExecutionContext, { owner, file_id: fileId, chunk_count: count }: Upload) => {
    const { status, received_bytes: received, missing_chunks: missing } = await detailsOf(owner, fileId);
    t.deepEqual(
      { status, received, missing },
      { status: 'initiated', received: 0, missing: everyChunk({ chunk_count: count }) },
    );
  };

  test.serial(`${files}: every call about files needs a token`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const { file_id: fileId } = await twoChunks(owner, 'token');
    const calls: [method: string, path: string, call?: Call][] = [
      ['POST', '/v1/files/initiate', { json: {} }],
      ['PATCH', chunkPath(fileId, 0), { json: {} }],
      ['PATCH', chunkPath(fileId, 0), { body: Buffer.alloc(1_000) }],
      ['PATCH', chunkPath('x', 'y'), { body: Buffer.alloc(2 * smallestChunk) }],
      ['POST', '/v1/files/complete', { json: { file_id: fileId, checksum: emptyChecksum } }],
      ['GET', `/v1/files/${fileId}`],
      ['GET', `/v1/files/${fileId}/content`],
      ['DELETE', `/v1/files/${fileId}`],
    ];
    const expired = openRest(mesh.url, await mesh.userToken(owner, new Date(Date.now() - 1_000)));
    for (const [method, path, call] of calls) {
      t.is((await anonymous.refused(401, method, path, call)).error_code, 'TOKEN_MISSING', `${method} ${path}`);
      t.is((await expired.refused(401, method, path, call)).error_code, 'TOKEN_EXPIRED', `${method} ${path}`);
    }
  });

  test.serial(`${files}: every wrong field of a new file is named, all of them at once`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    t.deepEqual((await begin(owner, {})).field_errors, { filename: ['is required'], file_size: ['is required'] });
    const everything = await begin(owner, {
      filename: 'a\u0000',
      file_size: -1,
      content_type: 'text',
      checksum: 'abc',
      chunk_size: 'x',
    });
    t.deepEqual(wrong(everything), ['checksum', 'chunk_size', 'content_type', 'file_size', 'filename']);

    const right = { filename: 'x', file_size: 1 };
    const single: [field: string, values: unknown[]][] = [
      [
        'filename',
        ['', null, 5, ['x'], 'a\nb', 'a\tb', '\u007f', 'a'.repeat(256), `${'ç'.repeat(127)}aa`, 'half \ud83d'],
      ],
      ['file_size', [-1, 1.5, '', 'x', null, true, [1], 2 ** 64, '-9223372036854775809']],
      ['content_type', ['text', 'text/', '/plain', 'text/plain\r\nx: y', 'text/plain; ç', `a/${'b'.repeat(254)}`, 5]],
      ['checksum', ['abc', emptyChecksum.slice(1), `${emptyChecksum}0`, emptyChecksum.replace(/^./, 'g'), 5]],
      ['chunk_size', [smallestChunk - 1, 64 * 1024 ** 2 + 1, 0, -1, 1.5, 'x']],
    ];
    for (const [field, values] of single) {
      for (const value of values) {
        t.deepEqual(wrong(await begin(owner, { ...right, [field]: value })), [field], `${field}: ${String(value)}`);
      }
    }
    t.deepEqual(await mesh.rows('select from file.files where owner_id = $1', [owner.userId]), []);
  });

  test.serial(`${files}: a chunk that the file doesn't have, or no chunk at all, is named`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const upload = await twoChunks(owner, 'chunk ids');
    const { file_id: fileId } = upload;
    const body = Buffer.alloc(1_000);
    for (const chunkId of ['2', '10000', '2147483647', '-1', '2147483648', 'x', '1.5', '']) {
      for (const call of [{ body }, { json: {} }]) {
        const refused = await owner.rest.refused(400, 'PATCH', chunkPath(fileId, chunkId), call);
        t.deepEqual(wrong(refused), ['chunk_id'], `chunk ${chunkId}`);
      }
    }
    for (const call of [{ body }, { json: {} }]) {
      const refused = (query: string) => owner.rest.refused(400, 'PATCH', `/v1/files/upload${query}`, call);
      t.deepEqual((await refused(`?file_id=${fileId}`)).field_errors, { chunk_id: ['is required'] });
      t.deepEqual(wrong(await refused('')), ['chunk_id', 'file_id']);
      t.deepEqual(wrong(await refused('?file_id=x&chunk_id=y')), ['chunk_id', 'file_id']);
    }
    await nothingCounts(t, upload);
  });

  test.serial(`${files}: a file that isn't there is 404, one of others 403, an id that is none 400`, async (t) => {
    const [owner, other] = newPeople(2) as [Person, Person];
    const upload = await twoChunks(owner, 'of others');
    const body = chunkOf(upload, 1);
    const calls = (id: string): [method: string, path: string, call?: Call][] => [
      ['PATCH', chunkPath(id, 1), { body }],
      ['PATCH', chunkPath(id, 1), { json: {} }],
      ['POST', '/v1/files/complete', { json: { file_id: id, checksum: emptyChecksum } }],
      ['GET', `/v1/files/${id}`],
      ['GET', `/v1/files/${id}/content`],
      ['DELETE', `/v1/files/${id}`],
    ];
    for (const [method, path, call] of calls(upload.file_id)) {
      const { error_code: code } = await other.rest.refused(403, method, path, call);
      t.is(code, method === 'GET' ? 'NOT_A_READER' : 'NOT_THE_OWNER', `${method} ${path}`);
    }
    for (const [method, path, call] of calls(uuid())) {
      t.is((await owner.rest.refused(404, method, path, call)).error_code, 'FILE_NOT_FOUND', `${method} ${path}`);
    }
    for (const id of ['x', upload.file_id.slice(1), `${upload.file_id}0`]) {
      for (const [method, path, call] of calls(id)) {
        t.deepEqual(wrong(await owner.rest.refused(400, method, path, call)), ['file_id'], `${method} ${path}`);
      }
    }
    await nothingCounts(t, upload);
  });

  test.serial(`${files}: a chunk has exactly its size, whether the client says how much it sends or not`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const upload = await twoChunks(owner, 'sizes');
    const sizes: [chunkId: number, size: number][] = [
      [0, 0],
      [0, 1],
      [0, smallestChunk - 1],
      [0, smallestChunk + 1],
      [0, 3 * smallestChunk],
      [1, 0],
      [1, 999],
      [1, 1_001],
      [1, smallestChunk],
    ];
    for (const [chunkId, size] of sizes) {
      const bytes = Buffer.alloc(size, 'x');
      const boundary = 'b';
      const form = Buffer.concat([
        Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n`),
        bytes,
        Buffer.from(`\r\n--${boundary}--\r\n`),
      ]);
      const calls: Record<string, Call> = {
        'with a length': { body: bytes },
        'in pieces': { body: inPieces(bytes) },
        'in a form': { body: form, headers: { 'content-type': `multipart/form-data; boundary=${boundary}` } },
      };
      for (const [how, call] of Object.entries(calls)) {
        const refused = await owner.rest.refused(400, 'PATCH', chunkPath(upload.file_id, chunkId), call);
        t.is(refused.error_code, 'CHUNK_SIZE_MISMATCH', `${size} bytes for chunk ${chunkId} ${how}`);
      }
    }
    await nothingCounts(t, upload);
    await sendChunks(upload, [0, 1]);
    // What doesn't fit doesn't replace what did.
    await owner.rest.refused(400, 'PATCH', chunkPath(upload.file_id, 1), { body: inPieces(Buffer.alloc(999)) });
    await complete(upload);
    t.is((await download(owner, upload.file_id)).sha256, await upload.content.sha256());
  });

  test.serial(
    `${files}: a chunk with another digest than was said is not stored, and a digest that is none is named`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const upload = await twoChunks(owner, 'digests');
      const patch = (digest: string, body: Call['body']): Call => ({ body, headers: { 'content-digest': digest } });
      const bytes = chunkOf(upload, 1);
      const path = chunkPath(upload.file_id, 1);
      const sha512 = `sha-512=:${createHash('sha512').update(bytes).digest('base64')}:`;
      for (const digest of [contentDigest(Buffer.from('x')), sha512.replace(/=:./, '=:!').replace('!', 'A')]) {
        for (const body of [bytes, inPieces(bytes)]) {
          const refused = await owner.rest.refused(400, 'PATCH', path, patch(digest, body));
          t.is(refused.error_code, 'CHUNK_DIGEST_MISMATCH', digest);
        }
      }
      for (const digest of ['x', 'sha-256', `sha-256=${emptyChecksum}`, `sha-256=:${emptyChecksum}:`, 'md5=:YWJj:']) {
        const refused = await owner.rest.refused(400, 'PATCH', path, patch(digest, bytes));
        t.is(wrong(refused).length, 1, digest);
        t.regex(wrong(refused)[0]!, /^content.digest$/, digest);
      }
      await nothingCounts(t, upload);
      for (const digest of [contentDigest(bytes), `${contentDigest(bytes)}, ${sha512}`, sha512]) {
        t.is((await owner.rest.call('PATCH', path, patch(digest, bytes))).status, 200, digest);
      }
      // What doesn't match doesn't replace what did.
      await owner.rest.refused(400, 'PATCH', path, patch(contentDigest(bytes), Buffer.alloc(1_000)));
      await sendChunk(upload, 0);
      await complete(upload);
      t.is((await download(owner, upload.file_id)).sha256, await upload.content.sha256());
    },
  );

  test.serial(
    `${files}: a body that is compressed, or no whole form, is refused, and other methods are not there`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const upload = await twoChunks(owner, 'bodies');
      const path = chunkPath(upload.file_id, 1);
      const body = chunkOf(upload, 1);
      const gzip = { body, headers: { 'content-encoding': 'gzip' } };
      t.is((await owner.rest.refused(415, 'PATCH', path, gzip)).error_code, 'UNSUPPORTED_MEDIA_TYPE');
      const form = (text: string) => ({
        body: Buffer.from(text),
        headers: { 'content-type': 'multipart/form-data; boundary=b' },
      });
      const head = '--b\r\nContent-Disposition: form-data; name=';
      t.deepEqual(
        wrong(await owner.rest.refused(400, 'PATCH', path, form(`${head}"other"; filename="x"\r\n\r\nx\r\n--b--\r\n`))),
        ['file'],
      );
      const cutOff = await owner.rest.refused(
        400,
        'PATCH',
        path,
        form(`${head}"file"; filename="x"\r\n\r\n${'x'.repeat(1_000)}`),
      );
      t.is(cutOff.error_code, 'MALFORMED_FORM');
      for (const json of ['{', '[]', '5', '"x"']) {
        const headers = { 'content-type': 'application/json' };
        const refused = await owner.rest.refused(400, 'PATCH', path, { body: json, headers });
        t.true(['MALFORMED_JSON', 'INVALID_ARGUMENT'].includes(refused.error_code), json);
      }
      for (const method of ['GET', 'DELETE', 'POST']) {
        const refused = await owner.rest.refused(405, method, path);
        t.deepEqual(refused.headers.get('allow')?.split(', ').toSorted(), ['OPTIONS', 'PATCH', 'PUT'], method);
      }
      await nothingCounts(t, upload);
    },
  );

  test.serial(`${files}: what is wrong with the end of an upload is named`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const { file_id: fileId } = await twoChunks(owner, 'end');
    const refused = async (json: unknown) =>
      wrong(await owner.rest.refused(400, 'POST', '/v1/files/complete', { json }));
    t.deepEqual(await refused({}), ['checksum', 'file_id']);
    t.deepEqual(await refused({ file_id: 'x', checksum: 'y' }), ['checksum', 'file_id']);
    t.deepEqual(await refused({ file_id: fileId }), ['checksum']);
    t.deepEqual(await refused({ file_id: fileId, checksum: emptyChecksum.slice(1) }), ['checksum']);
    t.deepEqual(await refused({ file_id: fileId, checksum: 5 }), ['checksum']);
  });

  test.serial(`${files}: a URL takes its own chunk and nothing else, and only as it was given`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const upload = await twoChunks(owner, 'urls');
    const victim = await twoChunks(owner, 'victim');
    const bytes = chunkOf(upload, 1);
    const { upload_url: url } = (await owner.rest.call('PATCH', chunkPath(upload.file_id, 1), { json: {} }))
      .body as ChunkAnswer as { upload_url: string };
    const onDisk = files === 'disk';
    const params = [...new URL(url).searchParams.keys()];
    const [signature, chunk, until] = onDisk
      ? ['signature', 'chunk_id', 'expires']
      : ['X-Amz-Signature', 'partNumber', 'X-Amz-Expires'];
    const valueOf = (name: string) => new URL(url).searchParams.get(name)!;
    const altered: Record<string, string> = {
      'another signature': changed(url, signature!, misspelt(valueOf(signature!))),
      'another chunk': changed(url, chunk!, String(Number(valueOf(chunk!)) - 1)),
      'another spelling of the chunk': changed(url, chunk!, `0${valueOf(chunk!)}`),
      'another file': url.replaceAll(upload.file_id, victim.file_id),
      'another upload': (victim.upload_url ?? '').replace(/(signature=)[^&]*/i, `$1${valueOf(signature!)}`),
      'a longer time': changed(url, until!, String(Number(valueOf(until!)) + 1_000)),
    };
    const incomplete: Record<string, string> = {
      'an empty signature': changed(url, signature!, ''),
      'no query at all': url.slice(0, url.indexOf('?')),
      ...Object.fromEntries(params.map((name) => [`no ${name}`, changed(url, name)])),
    };
    const refusedWith = async (statuses: number[], what: string, to: string, ...[body, headers]: PutArguments) => {
      const { status, text } = await put(to, body, headers);
      t.true(statuses.includes(status), `${what}: ${status} ${text}`);
    };
    for (const [what, to] of Object.entries(altered)) await refusedWith([403], what, to, bytes);
    // MinIO says of some parameters that the request is malformed without them.
    for (const [what, to] of Object.entries(incomplete)) {
      await refusedWith(onDisk ? [403] : [400, 403], what, to, bytes);
    }
    const bodies: Record<string, PutArguments> = {
      'a smaller body': [bytes.subarray(1)],
      'a larger body': [Buffer.concat([bytes, Buffer.from('x')])],
      'an empty body': [Buffer.alloc(0)],
      'a smaller body without a length': [inPieces(Buffer.alloc(999))],
      'a larger body without a length': [inPieces(Buffer.alloc(1_001))],
      'another digest': [
        bytes,
        onDisk
          ? { 'content-digest': contentDigest(Buffer.from('x')) }
          : { 'content-md5': createHash('md5').update('x').digest('base64') },
      ],
    };
    // S3 takes nothing without a length.
    for (const [what, sent] of Object.entries(bodies)) {
      await refusedWith(onDisk ? [400] : [400, 403, 411], what, url, ...sent);
    }
    for (const method of ['GET', 'DELETE', 'POST']) {
      const { status } = await fetch(url, { method });
      t.true(status >= 400 && status < 500, `${method}: ${status}`);
    }
    await nothingCounts(t, upload);
    await nothingCounts(t, victim);

    t.is((await put(url, bytes)).status, 200);
    await sendChunk(upload, 0);
    await complete(upload);
    t.is((await download(owner, upload.file_id)).sha256, await upload.content.sha256());
  });

  if (files === 's3') {
    test.serial('s3: a URL for a chunk reads nothing of others, neither by copying nor by asking', async (t) => {
      const [owner, thief] = newPeople(2) as [Person, Person];
      const secret = await uploadFile(owner, contentOf('secret', 1_000));
      const upload = await initiate(thief, contentOf('cover', 1_000));
      const bucket = mesh.store.env.S3_BUCKET!;
      const source = `/${bucket}/${secret.file_id}`;
      t.true((await mesh.store.objects()).includes(secret.file_id));
      const url = upload.upload_url!;
      const tricks: [what: string, body: Buffer | undefined, headers: Record<string, string>][] = [
        ['copy', undefined, { 'x-amz-copy-source': source, 'content-length': '0' }],
        ['copy with a body', chunkOf(upload, 0), { 'x-amz-copy-source': source }],
        [
          'copy of a range',
          chunkOf(upload, 0),
          { 'x-amz-copy-source': source, 'x-amz-copy-source-range': 'bytes=0-999' },
        ],
        [
          'unsigned trailer',
          chunkOf(upload, 0),
          { 'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER', 'x-amz-copy-source': source },
        ],
      ];
      for (const [what, body, headers] of tricks) {
        const { status, text } = await put(url, body, headers);
        t.true(status >= 400 && status < 500, `${what}: ${status} ${text}`);
      }
      const query = new URL(url).search;
      const { origin } = new URL(url);
      for (const at of [`${source}${query}`, source, `/${bucket}${query}`, `/${bucket}/${upload.file_id}${query}`]) {
        for (const method of ['GET', 'HEAD', 'DELETE']) {
          const { status } = await fetch(`${origin}${at}`, { method });
          t.true(status >= 400 && status < 500, `${method} ${at}: ${status}`);
        }
      }
      await nothingCounts(t, upload);
      t.is((await download(owner, secret.file_id)).sha256, secret.checksum);
    });
  }

  test.serial(`${files}: a URL is of no use once its time is over`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    // Another process of the file service on the same tables and store.
    await mesh.startService('file', {
      FILES_DIR: undefined,
      ...mesh.store.env,
      MIN_CHUNK_SIZE: String(smallestChunk),
      UPLOAD_URL_TTL: '1s',
    });
    const gateway = await mesh.startGateway();
    const there: Person = { ...owner, rest: openRest(`http://${gateway.address}`, await mesh.userToken(owner)) };
    const upload = await twoChunks(there, 'expired');
    const { searchParams } = new URL(upload.upload_url!);
    const signedAt = searchParams.get('X-Amz-Date')?.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5');
    const over =
      signedAt === undefined
        ? Number(searchParams.get('expires')) * 1_000
        : Date.parse(signedAt) + Number(searchParams.get('X-Amz-Expires')) * 1_000;
    t.true(over < Date.now() + 3_000);
    // S3 counts in whole seconds.
    await sleep(over + 1_000 - Date.now());
    const { status, text } = await put(upload.upload_url!, chunkOf(upload, 0));
    t.is(status, 403, text);
    await nothingCounts(t, upload);
    const again = (await there.rest.call('PATCH', chunkPath(upload.file_id, 0), { json: {} })).body as ChunkAnswer;
    t.is((await put(again.upload_url!, chunkOf(upload, 0))).status, 200);
    // What one process began the other one ends.
    await sendChunk({ ...upload, owner }, 1);
    await complete({ ...upload, owner });
    t.is((await download(there, upload.file_id)).sha256, await upload.content.sha256());
  });

  test.serial(
    `${files}: a message with a file that isn't there, whole, or the sender's to send, is refused by name`,
    async (t) => {
      const [owner, member, other] = newPeople(3) as [Person, Person, Person];
      const id = await openConversation([owner, member]);
      const theirs = await openConversation([member, other]);
      const unfinished = await twoChunks(owner, 'unfinished');
      const failed = await twoChunks(owner, 'failed');
      await owner.rest.call('DELETE', `/v1/files/${failed.file_id}`);
      const foreign = await uploadFile(other, contentOf(`${files} foreign`, 1_000));
      const unknown = uuid();
      for (const fileId of [unknown, unfinished.file_id, failed.file_id, foreign.file_id]) {
        const payload = { type: 'file', file_id: fileId };
        const alone = messageOf(owner, id, { payload });
        const refused = await owner.rest.refused(400, 'POST', '/v1/messages', { json: alone });
        t.deepEqual(wrong(refused), ['payload.file_id']);
        await owner.rest.refused(404, 'GET', `/v1/messages/${alone.message_id}`);

        const json = messageOf(owner, id, { payload, channels: ['sms'], priority: 'urgent', to: ['x'] });
        t.deepEqual(wrong(await owner.rest.refused(400, 'POST', '/v1/messages', { json })), [
          'channels[0]',
          'payload.file_id',
          'priority',
          'to[0]',
        ]);
      }
      // What others were sent is not the owner's to send either.
      await other.rest.post(
        '/v1/messages',
        messageOf(other, theirs, { payload: { type: 'file', file_id: foreign.file_id } }),
      );
      const json = messageOf(owner, id, { payload: { type: 'file', file_id: foreign.file_id } });
      t.deepEqual(wrong(await owner.rest.refused(400, 'POST', '/v1/messages', { json })), ['payload.file_id']);
      const elsewhere = messageOf(owner, theirs, { payload: { type: 'file', file_id: unfinished.file_id } });
      await owner.rest.refused(403, 'POST', '/v1/messages', { json: elsewhere });
      t.is((await owner.rest.refused(403, 'GET', `/v1/files/${foreign.file_id}`)).error_code, 'NOT_A_READER');
    },
  );

  // The last one: it is about what all of them have left.
  test.serial(`${files}: what was refused has left nothing in the store`, async (t) => {
    const { objects, uploads, expected, strayRows } = await stockAtRest(mesh);
    t.deepEqual({ objects, uploads }, expected);
    t.deepEqual(strayRows, []);
  });
}
