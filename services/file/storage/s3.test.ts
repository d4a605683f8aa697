import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { inspect } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { Client } from 'minio';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { storageContract } from './contract.ts';
import { openStorage, storageSettings } from './open.ts';
import type { Bytes, OpenUpload, Storage } from './storage.ts';

const endpoint = process.env['TEST_S3_ENDPOINT'] ?? '';
const accessKey = process.env['TEST_S3_ACCESS_KEY'] ?? '';
const secretKey = process.env['TEST_S3_SECRET_KEY'] ?? '';
const log = openLog({ name: 'test', format: 'json', level: 'silent' });
const never = new AbortController().signal;
const mebibyte = 1024 * 1024;

const given = {
  S3_ENDPOINT: endpoint,
  S3_ACCESS_KEY: accessKey,
  S3_SECRET_KEY: secretKey,
  S3_BUCKET: `test-${randomBytes(6).toString('hex')}`,
};

const anyKeys = { S3_ACCESS_KEY: 'some-key', S3_SECRET_KEY: 'Kq8fJx2LzWv71TgBnRpM' };

function open(env: Record<string, string> = {}): Promise<Storage> {
  return openStorage(loadConfig(storageSettings, { ...given, ...env }), { log });
}

for (const [title, env, message] of [
  ['neither a folder nor an S3', {}, /set one of FILES_DIR and S3_ENDPOINT/],
  ['both a folder and an S3', { FILES_DIR: '/tmp/files', S3_ENDPOINT: 'http://localhost:9000' }, /not both/],
  [
    'an S3 without its keys',
    { S3_ENDPOINT: 'http://localhost:9000' },
    /S3_ACCESS_KEY is required[^]*S3_SECRET_KEY is required/,
  ],
  [
    'one half of the keys for uploads',
    {
      S3_ENDPOINT: 'http://localhost:9000',
      S3_ACCESS_KEY: 'a',
      S3_SECRET_KEY: 'half-of-what-it-takes',
      S3_UPLOAD_ACCESS_KEY: 'c',
    },
    /S3_UPLOAD_SECRET_KEY/,
  ],
  ['an endpoint with a path', { S3_ENDPOINT: 'http://localhost:9000/s3' }, /S3_ENDPOINT must be/],
] as const) {
  test(`openStorage: ${title} is refused`, async (t) => {
    const opened = async () => openStorage(loadConfig(storageSettings, env), { log });
    await t.throwsAsync(opened, { instanceOf: ConfigError, message });
  });
}

test('whatever a server answers that is no S3, or none that we know, is UNAVAILABLE, and nothing is taken for missing', async (t) => {
  const answers: [status: number, headers: Record<string, string>, body: string][] = [
    [200, {}, ''],
    [200, { 'content-type': 'text/html' }, '<html><body>It works!</body></html>'],
    [200, { 'content-type': 'application/json' }, '{"uploads": null}'],
    [200, {}, '<?xml version="1.0"?><Error><Code>NotImplemented</Code><Message>not yet</Message></Error>'],
    [200, {}, `<ListPartsResult><Part><PartNumber>one</PartNumber></Part></ListPartsResult>`],
    [204, {}, ''],
    [302, { location: '/login' }, ''],
    [400, {}, '<Error><Code>InvalidRequest</Code></Error>'],
    [401, { 'www-authenticate': 'Basic' }, 'who are you?'],
    [403, {}, 'no'],
    [405, {}, ''],
    [411, {}, '<<<'],
    [418, {}, '<Error><Code>Teapot</Code><Message>&#x41; &lt;pot&gt;</Message></Error>'],
    [500, {}, '<html>Traceback</html>'],
    [501, {}, '<Error><Code>NotImplemented</Code></Error>'],
  ];
  for (const [status, headers, body] of answers) {
    const server = http.createServer((request, response) => {
      request.resume();
      response.writeHead(status, headers).end(body);
    });
    t.teardown(() => {
      server.closeAllConnections();
      server.close();
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const storage = await open({
      S3_ENDPOINT: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
      ...anyKeys,
    });
    const upload = { key: 'key', uploadId: 'id' };
    const works = {
      open: () => storage.open('key'),
      parts: () => storage.parts(upload),
      writePart: () => storage.writePart(upload, 0, 4, of(Buffer.from('text')), never),
      assemble: () => storage.assemble(upload, 1),
      read: () => readAll(storage, 'key', 4),
      remove: () => storage.remove('key'),
      partUrl: () => storage.partUrl!(upload, 0, 4, 60),
    };
    // A store that takes parts with any 200 has taken them.
    const fine: string[] = status === 200 ? ['writePart'] : [];
    for (const [name, work] of Object.entries(works)) {
      if (fine.includes(name)) continue;
      const what = `${name}: ${status} ${body}`;
      const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError }, what);
      t.like(error, { kind: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE' }, what);
      t.truthy(error.cause, what);
      if (name === 'partUrl' && ![500, 501].includes(status)) t.regex(error.message, /S3_DIRECT_UPLOADS=false/);
    }
    t.is(await storage.innerPartUrl!(upload, 0, 4), undefined);
    t.is(await storage.innerUrl!('key'), undefined);
    await storage.close();
  }
});

if (endpoint !== '') {
  testAgainst(new URL(endpoint));
} else if (process.env['CI'] === 'true') {
  test('there is an S3 to test against', (t) => t.fail('TEST_S3_ENDPOINT is not set'));
} else {
  test.skip('the contract of the store on S3: TEST_S3_ENDPOINT is not set', (t) => t.pass());
}

function testAgainst({ hostname, port, protocol }: URL): void {
  const bucket = given.S3_BUCKET;
  const client = new Client({
    endPoint: hostname,
    port: Number(port),
    useSSL: protocol === 'https:',
    accessKey,
    secretKey,
  });

  async function remains(key: string): Promise<string[]> {
    const found: string[] = [];
    for await (const object of client.listObjectsV2(bucket, key, true)) found.push(`object ${object.name}`);
    const { uploads } = await client.listIncompleteUploadsQuery(bucket, key, '', '', '');
    for (const upload of uploads) found.push(`upload ${upload.uploadId}`);
    return found;
  }

  async function dropBucket(name: string): Promise<void> {
    for await (const object of client.listObjectsV2(name, '', true)) await client.removeObject(name, object.name!);
    await client.removeBucket(name);
  }

  test.after.always(() => dropBucket(bucket));

  storageContract(test, { open, remains });

  async function begin(t: ExecutionContext, storage: Storage): Promise<OpenUpload> {
    const key = randomUUID();
    t.teardown(async () => {
      await storage.remove(key);
      await storage.close();
    });
    return { key, uploadId: await storage.open(key) };
  }

  test('the bucket is made at the first need, also if it vanishes later', async (t) => {
    const name = `test-${randomBytes(6).toString('hex')}`;
    const [one, two] = [await open({ S3_BUCKET: name }), await open({ S3_BUCKET: name })];
    t.false(await client.bucketExists(name));
    await Promise.all([one.open('first'), two.open('second')]);
    await one.remove('first');
    await one.remove('second');
    await client.removeBucket(name);
    await isAway(t, () => one.size('first'));
    await one.open('third');
    await one.remove('third');
    await client.removeBucket(name);
    await one.ping();
    t.true(await client.bucketExists(name));
    await client.removeBucket(name);
  });

  test('partUrl: takes its part by a plain PUT, as often as one likes', async (t) => {
    const storage = await open();
    const upload = await begin(t, storage);
    const contents = [randomBytes(5 * mebibyte), randomBytes(1_000)];
    for (const [number, content] of contents.entries()) {
      const url = await storage.partUrl!(upload, number, content.byteLength, 60);
      t.is((await request(url, { body: randomBytes(content.byteLength) })).status, 200);
      t.is((await request(url, { body: content })).status, 200);
    }
    await storage.assemble(upload, 2);
    const whole = Buffer.concat(contents);
    t.true((await readAll(storage, upload.key, whole.byteLength)).equals(whole));
    const url = await storage.partUrl!(upload, 0, 5, 60);
    t.is((await request(url, { body: Buffer.from('after') })).status, 404);
  });

  test('partUrl: is good for nothing else', async (t) => {
    const storage = await open();
    const [upload, other] = [await begin(t, storage), await begin(t, storage)];
    const secret = { key: randomUUID(), uploadId: '' };
    t.teardown(() => storage.remove(secret.key));
    await client.putObject(bucket, secret.key, 'secret');
    const url = await storage.partUrl!(upload, 0, 6, 60);
    const body = Buffer.from('forged');
    const changed = (change: (url: URL) => void) => {
      const copy = new URL(url);
      change(copy);
      return copy.href;
    };
    const set = (name: string, value: string) => changed((copy) => copy.searchParams.set(name, value));
    const cases: [string, string, RequestOptions][] = [
      ['another part', set('partNumber', '2'), { body }],
      ['another upload', set('uploadId', other.uploadId), { body }],
      ['another key', url.replace(upload.key, other.key), { body }],
      ['another upload of another key', set('uploadId', other.uploadId).replace(upload.key, other.key), { body }],
      ['the object itself', changed((copy) => copy.searchParams.delete('uploadId')), { body }],
      ['another signature', url.replace(/.$/, (last) => (last === '0' ? '1' : '0')), { body }],
      ['no signature', changed((copy) => copy.searchParams.delete('X-Amz-Signature')), { body }],
      ['a longer life', set('X-Amz-Expires', '3600'), { body }],
      ['fewer signed headers', set('X-Amz-SignedHeaders', 'host'), { body: Buffer.from('too large') }],
      ['a larger body', url, { body: Buffer.from('too large') }],
      ['a smaller body', url, { body: Buffer.from('small') }],
      ['a body of unknown size', url, { body, chunked: true }],
      ['a body of unknown size, its size in the query', `${url}&content-length=6`, { body, chunked: true }],
      ['a copy of another object', url, { body, headers: { 'x-amz-copy-source': `/${bucket}/${secret.key}` } }],
      [
        'a copy without a body',
        url,
        { headers: { 'x-amz-copy-source': `/${bucket}/${secret.key}`, 'content-length': '6' } },
      ],
      ['a GET', url, { method: 'GET' }],
      ['a GET of the object', url.replace(upload.key, secret.key), { method: 'GET' }],
      ['a HEAD', url, { method: 'HEAD' }],
      ['a DELETE', url, { method: 'DELETE' }],
      ['a POST', url, { method: 'POST', body }],
    ];
    for (const [what, url, options] of cases) {
      const { status, text } = await request(url, options);
      t.true(status >= 400 && status < 500, `${what}: ${status} ${text}`);
    }
    t.deepEqual(await storage.parts(upload), []);
    t.deepEqual(await storage.parts(other), []);
    t.is(await storage.size(upload.key), undefined);
    t.is((await readAll(storage, secret.key, 6)).toString(), 'secret');
    t.is((await request(url, { body })).status, 200, 'and yet it is good');
  });

  test('partUrl: the credentials that it shows are of no use where MinIO checks no signature', async (t) => {
    // CVE-2026-41145, and 40344 where an archive is to be unpacked.
    const storage = await open();
    const [upload, other] = [await begin(t, storage), await begin(t, storage)];
    const url = await storage.partUrl!(upload, 0, 6, 60);
    const headers = {
      'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
      'x-amz-decoded-content-length': '6',
    };
    const body = Buffer.from('6\r\nforged\r\n0\r\n\r\n\r\n');
    const snowball = { 'x-amz-meta-snowball-auto-extract': 'true' };
    for (const target of [
      url,
      url.replace(upload.key, other.key).replace(upload.uploadId, other.uploadId),
      url.replace(upload.key, other.key).replace(/(partNumber|uploadId)=[^&]*&/g, ''),
      `${url}&authType=REST-QUERY-STRING&x-amz-content-sha256=UNSIGNED-PAYLOAD`,
    ]) {
      const forged = target.replace(/.$/, (last) => (last === '0' ? '1' : '0'));
      for (const more of [{}, snowball]) {
        const { status, text } = await request(forged, { body, headers: { ...headers, ...more } });
        t.is(status, 403, text);
      }
    }
    t.deepEqual(await storage.parts(upload), []);
    t.deepEqual(await storage.parts(other), []);
    t.is(await storage.size(other.key), undefined);
  });

  test('partUrl: ends when its life is over', async (t) => {
    const storage = await open();
    const upload = await begin(t, storage);
    const url = await storage.partUrl!(upload, 0, 6, 1);
    // MinIO counts whole seconds, from the one in which the URL was signed.
    await wait(2_100);
    t.is((await request(url, { body: Buffer.from('late!!') })).status, 403);
    t.deepEqual(await storage.parts(upload), []);
    for (const lifetime of [0, -1, Number.NaN, 8 * 24 * 3600]) {
      await t.throwsAsync(storage.partUrl!(upload, 0, 6, lifetime), { instanceOf: RangeError });
    }
  });

  test('partUrl: names the address that clients know, and is signed with the keys that are meant for it', async (t) => {
    const publicEndpoint = 'https://files.example.org';
    const storage = await open({
      S3_PUBLIC_ENDPOINT: publicEndpoint,
      S3_UPLOAD_ACCESS_KEY: 'uploader',
      S3_UPLOAD_SECRET_KEY: 'uploader-secret',
    });
    const upload = await begin(t, storage);
    const url = new URL(await storage.partUrl!(upload, 4, 6, 60));
    t.is(url.origin, publicEndpoint);
    t.is(url.pathname, `/${bucket}/${upload.key}`);
    t.is(url.searchParams.get('partNumber'), '5');
    t.is(url.searchParams.get('X-Amz-SignedHeaders'), 'content-length;host');
    t.regex(url.searchParams.get('X-Amz-Credential')!, /^uploader\//);
    t.false(url.searchParams.has('X-Amz-Security-Token'));
    t.false(url.href.includes('uploader-secret'));
  });

  test('partUrl: one set of temporary credentials serves many URLs, and outlives each', async (t) => {
    const storage = await open();
    const upload = await begin(t, storage);
    const keyOf = async (lifetime: number) =>
      new URL(await storage.partUrl!(upload, 0, 6, lifetime)).searchParams.get('X-Amz-Credential');
    const [one, two] = await Promise.all([keyOf(60), keyOf(900)]);
    t.is(one, two);
    t.is(await keyOf(60), one);
    t.not(await keyOf(7 * 24 * 3600), one);
  });

  test('innerPartUrl: takes its part at the inner address, and is good for nothing else', async (t) => {
    const storage = await open({ S3_PUBLIC_ENDPOINT: 'https://files.example.org', S3_DIRECT_UPLOADS: 'false' });
    const upload = await begin(t, storage);
    t.is(storage.partUrl, undefined, 'clients are not to reach it');
    // So little that it has left before a refusal comes: what is still on its way then may cost the answer.
    const content = randomBytes(1_000);
    const url = (await storage.innerPartUrl!(upload, 1, content.byteLength))!;
    t.is(new URL(url).origin, endpoint);
    t.is((await request(url, { body: content.subarray(1) })).status, 403);
    t.is((await request(url, { body: content })).status, 200);
    const copy = { 'x-amz-copy-source': `/${bucket}/${upload.key}`, 'content-length': String(content.byteLength) };
    t.is((await request(url, { headers: copy })).status, 403);
    t.like(await storage.parts(upload), [{ number: 1, size: content.byteLength }]);
    await storage.remove(upload.key);
    t.is((await request(url, { body: content })).status, 404);
  });

  test('innerUrl: gives an object and ranges of it at the inner address, and is good for nothing else', async (t) => {
    const storage = await open({ S3_PUBLIC_ENDPOINT: 'https://files.example.org', S3_DIRECT_UPLOADS: 'false' });
    const upload = await begin(t, storage);
    const content = randomBytes(1_000);
    await storage.writePart(upload, 0, content.byteLength, of(content), never);
    await storage.assemble(upload, 1);
    const other = { key: randomUUID(), uploadId: '' };
    t.teardown(() => storage.remove(other.key));
    await client.putObject(bucket, other.key, 'secret');
    const url = (await storage.innerUrl!(upload.key))!;
    t.is(new URL(url).origin, endpoint);
    t.not(new URL(url).searchParams.get('X-Amz-Credential')?.split('/')[0], accessKey, 'it shows no lasting key');
    const part = await fetch(url, { headers: { range: 'bytes=10-19' } });
    t.is(part.status, 206);
    t.is(part.headers.get('content-range'), 'bytes 10-19/1000');
    t.true(Buffer.from(await part.arrayBuffer()).equals(content.subarray(10, 20)));
    t.is((await fetch(url, { headers: { range: 'bytes=10-19', 'if-match': '"other"' } })).status, 412);
    const body = Buffer.from('forged');
    const cases: [string, string, RequestOptions][] = [
      ['another object', url.replace(upload.key, other.key), { method: 'GET' }],
      ['the list of objects', url.replace(`/${upload.key}`, '/'), { method: 'GET' }],
      ['a PUT', url, { body }],
      [
        'a PUT that MinIO should not take without a signature',
        url,
        { body, headers: { 'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER' } },
      ],
      ['a DELETE', url, { method: 'DELETE' }],
      ['a longer life', url.replace('X-Amz-Expires=21600', 'X-Amz-Expires=604800'), { method: 'GET' }],
    ];
    for (const [what, target, options] of cases) {
      const { status, text } = await request(target, options);
      t.true(status >= 400 && status < 500, `${what}: ${status} ${text}`);
    }
    t.true((await readAll(storage, upload.key, content.byteLength)).equals(content));
    await storage.remove(upload.key);
    t.is((await request(url, { method: 'GET' })).status, 404);
  });

  test('wrong credentials are named as what they are in the cause, and no secret is shown', async (t) => {
    const storage = await open({ S3_SECRET_KEY: 'not-the-secret-of-this' });
    const works = [
      () => storage.ping(),
      () => storage.open('key'),
      () => storage.parts({ key: 'key', uploadId: 'id' }),
      () => storage.writePart({ key: 'key', uploadId: 'id' }, 0, 4, of(Buffer.from('text')), never),
      () => readAll(storage, 'key', 4),
      () => storage.remove('key'),
      () => storage.partUrl!({ key: 'key', uploadId: 'id' }, 0, 4, 60),
    ];
    for (const work of works) {
      const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError });
      t.like(error, { kind: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE' });
      t.regex((error.cause as Error).message, /S3 store .*(AccessDenied|SignatureDoesNotMatch)/);
      t.false(inspect(error, { depth: 9 }).includes('not-the-secret-of-this'));
    }
    t.is(await storage.innerPartUrl!({ key: 'key', uploadId: 'id' }, 0, 4), undefined);
    t.is(await storage.innerUrl!('key'), undefined);
    await storage.close();
  });

  test('a store that goes away and comes back: every call fails clearly and works again', async (t) => {
    const proxy = await startProxy(t, hostname, Number(port));
    const storage = await open({ S3_ENDPOINT: proxy.url });
    const upload = await begin(t, storage);
    const content = randomBytes(6 * mebibyte);
    const write = () => storage.writePart(upload, 0, content.byteLength, of(content), never);
    await write();
    const done = await begin(t, storage);
    await storage.writePart(done, 0, content.byteLength, of(content), never);
    await storage.assemble(done, 1);

    const works = {
      open: () => storage.open(randomUUID()),
      writePart: write,
      parts: () => storage.parts(upload),
      assemble: () => storage.assemble(upload, 1),
      size: () => storage.size(done.key),
      read: () => readAll(storage, done.key, content.byteLength),
      remove: () => storage.remove(randomUUID()),
      partUrl: () => storage.partUrl!(upload, 0, 1, 60),
      ping: () => storage.ping(),
    };
    await proxy.stop();
    for (const [name, work] of Object.entries(works)) await isAway(t, work, name);
    await proxy.start();
    for (const work of Object.values(works)) await t.notThrowsAsync(work);
    t.is(await storage.size(upload.key), content.byteLength);

    // In the middle of what it does.
    const another = await begin(t, storage);
    async function* cut(): Bytes {
      yield content.subarray(0, mebibyte);
      await proxy.stop();
      yield content.subarray(mebibyte);
    }
    await isAway(t, () => storage.writePart(another, 0, content.byteLength, cut(), never));
    await proxy.start();
    t.deepEqual(await storage.parts(another), []);
  });

  test('read: goes on where it was if the connection is lost, unless the store is', async (t) => {
    const proxy = await startProxy(t, hostname, Number(port));
    const storage = await open({ S3_ENDPOINT: proxy.url });
    const upload = await begin(t, storage);
    // More than there is on its way.
    const content = randomBytes(40 * mebibyte);
    await storage.writePart(upload, 0, content.byteLength, of(content), never);
    await storage.assemble(upload, 1);
    const range = { start: 5, end: content.byteLength - 5 };

    const read = createHash('sha256');
    let pieces = 0;
    for await (const piece of storage.read(upload.key, range, never)) {
      if (++pieces % 10 === 0) proxy.cut();
      read.update(piece);
    }
    t.is(read.digest('hex'), createHash('sha256').update(content.subarray(range.start, range.end)).digest('hex'));

    let stopped = false;
    await isAway(t, async () => {
      for await (const _ of storage.read(upload.key, range, never)) {
        if (!stopped) await proxy.stop();
        stopped = true;
      }
    });
    await proxy.start();
  });

  test('a store that does not answer: control calls and ping end in time', async (t) => {
    const proxy = await startProxy(t, hostname, Number(port));
    const storage = await open({ S3_ENDPOINT: proxy.url });
    const upload = await begin(t, storage);
    proxy.stall(true);
    const begun = Date.now();
    await isAway(t, () => storage.ping());
    t.true(Date.now() - begun < 2_500);
    await Promise.all([
      isAway(t, () => storage.parts(upload), 'parts'),
      isAway(t, () => storage.open(randomUUID()), 'open'),
      isAway(t, () => storage.remove(upload.key), 'remove'),
    ]);
    t.true(Date.now() - begun < 9_000);
    proxy.stall(false);
    t.deepEqual(await storage.parts(upload), []);
  });

  test('writePart: takes no more bytes than a store that is slow does', async (t) => {
    const proxy = await startProxy(t, hostname, Number(port));
    const storage = await open({ S3_ENDPOINT: proxy.url });
    const upload = await begin(t, storage);
    const stop = new AbortController();
    let taken = 0;
    async function* source(): Bytes {
      for (; taken < 64; taken++) {
        if (taken === 1) proxy.stall(true);
        yield Buffer.alloc(mebibyte);
      }
    }
    const writing = storage.writePart(upload, 0, 64 * mebibyte, source(), stop.signal);
    const stopped = t.throwsAsync(writing, { message: 'enough' });
    await wait(1_000);
    // What fits into the kernel's buffers, here and in the proxy.
    t.true(taken < 24, `${taken} MiB were taken`);
    stop.abort(new Error('enough'));
    await stopped;
    proxy.stall(false);
    t.deepEqual(await storage.parts(upload), []);
  });
}

interface RequestOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: Buffer;
  /** Says nothing of the size before. */
  chunked?: boolean;
}

/** A request as a client may make it, that has no idea of S3. */
async function request(url: string, { method = 'PUT', headers = {}, body, chunked = false }: RequestOptions) {
  const size = chunked ? { 'transfer-encoding': 'chunked' } : body && { 'content-length': String(body.byteLength) };
  const sent = http.request(url, { method, headers: { ...size, ...headers }, agent: false });
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [http.IncomingMessage];
  const text = Buffer.concat(await response.toArray()).toString();
  return { status: response.statusCode!, text };
}

async function isAway(t: ExecutionContext, work: () => Promise<unknown>, what = ''): Promise<void> {
  const error = await t.throwsAsync<HubError>(work, { instanceOf: HubError }, what);
  t.like(error, { kind: 'UNAVAILABLE', reason: 'STORE_UNAVAILABLE', retryAfter: 2 });
}

async function* of(...pieces: Buffer[]): Bytes {
  yield* pieces;
}

async function readAll(storage: Storage, key: string, end: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of storage.read(key, { start: 0, end }, never)) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces);
}

/** A way to the store that can be cut, and blocked. */
async function startProxy(t: ExecutionContext, host: string, port: number) {
  const sockets = new Set<net.Socket>();
  let stalled = false;
  const server = net.createServer((inner) => {
    const outer = net.connect(port, host);
    for (const [one, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      sockets.add(one);
      one.on('data', (piece) => {
        if (!other.write(piece)) one.pause();
      });
      one.on('drain', () => stalled || other.resume());
      one.on('end', () => other.end());
      one.on('error', () => other.destroy());
      one.on('close', () => {
        other.destroy();
        sockets.delete(one);
      });
      if (stalled) one.pause();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: own } = server.address() as net.AddressInfo;
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const stop = async () => {
    cut();
    server.close();
    await once(server, 'close');
  };
  t.teardown(() => {
    cut();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${own}`,
    /** Ends all connections; new ones can be made. */
    cut,
    stop,
    async start() {
      server.listen(own, '127.0.0.1');
      await once(server, 'listening');
    },
    stall(is: boolean) {
      stalled = is;
      for (const socket of sockets) socket[is ? 'pause' : 'resume']();
    },
  };
}
