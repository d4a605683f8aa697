import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { createClient, isRefused, type UploadBegun, type UploadMemory, type UploadProgress } from './client.ts';

/** What a hub does with uploads, as far as a client sees it. What it does on disk and on S3: dev/upload.test.ts. */

const chunkSize = 1_000;

async function startHub(t: ExecutionContext, content: Uint8Array) {
  const chunkCount = Math.ceil(content.length / chunkSize);
  const hub = {
    url: '',
    /** How many uploads were begun, and the chunks that were sent, by id and in order. */
    begun: 0,
    sent: [] as number[],
    stored: new Map<number, Buffer>(),
    deleted: 0,
    status: 'initiated',
    mostAtOnce: 0,
    /** In the way of a chunk: the refusal that it gets, if it gets one. */
    intercept: async (_chunk: number): Promise<{ status: number; error_code: string } | undefined> => undefined,
  };
  let atOnce = 0;
  const missing = () => Array.from({ length: chunkCount }, (_, id) => id).filter((id) => !hub.stored.has(id));
  const refused = (status: number, error_code: string) => ({ status, body: { status, error_code, detail: 'No' } });

  async function answer(
    method: string,
    url: URL,
    body: Buffer,
    digest: unknown,
  ): Promise<{ status: number; body: object }> {
    if (url.pathname === '/v1/files/initiate') {
      hub.begun += 1;
      hub.stored.clear();
      hub.status = 'in_progress';
      return { status: 201, body: { file_id: `f${hub.begun}`, chunk_size: chunkSize, chunk_count: chunkCount } };
    }
    if (url.pathname === '/v1/files/upload') {
      const id = Number(url.searchParams.get('chunk_id'));
      hub.sent.push(id);
      const refusal = await hub.intercept(id);
      if (refusal !== undefined) return refused(refusal.status, refusal.error_code);
      const expected = `sha-256=:${createHash('sha256').update(body).digest('base64')}:`;
      if (digest !== expected) return refused(400, 'CHUNK_DIGEST_MISMATCH');
      hub.stored.set(id, body);
      return { status: 200, body: {} };
    }
    if (url.pathname === '/v1/files/complete') {
      if (missing().length > 0) return refused(400, 'CHUNKS_MISSING');
      const whole = Buffer.concat([...hub.stored].toSorted(([one], [other]) => one - other).map(([, bytes]) => bytes));
      const { file_id, checksum } = JSON.parse(body.toString()) as { file_id: string; checksum: string };
      if (createHash('sha256').update(whole).digest('hex') !== checksum) return refused(400, 'CHECKSUM_MISMATCH');
      return { status: 200, body: { file_id, checksum, status: 'completed' } };
    }
    if (method === 'DELETE') {
      hub.deleted += 1;
      return { status: 204, body: {} };
    }
    if (url.pathname !== `/v1/files/f${hub.begun}`) return refused(404, 'FILE_NOT_FOUND');
    const details = { file_id: `f${hub.begun}`, file_size: content.length, status: hub.status, error: 'it was ended' };
    const received_bytes = [...hub.stored.values()].reduce((sum, { length }) => sum + length, 0);
    const sizes = { chunk_size: chunkSize, chunk_count: chunkCount, received_bytes };
    return { status: 200, body: { ...details, ...sizes, missing_chunks: missing() } };
  }

  const server = createServer((request, response) => {
    void (async () => {
      const isChunk = request.url!.includes('chunk_id');
      if (isChunk) hub.mostAtOnce = Math.max(hub.mostAtOnce, (atOnce += 1));
      const body = Buffer.concat(await request.toArray().catch(() => []));
      const url = new URL(request.url!, 'http://hub');
      const { status, body: json } = await answer(request.method!, url, body, request.headers['content-digest']);
      if (isChunk) atOnce -= 1;
      response
        .writeHead(status, { 'content-type': 'application/json' })
        .end(status === 204 ? '' : JSON.stringify(json));
    })();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { hub, client: createClient({ baseUrl: hub.url }) };
}

function memoryOf(): UploadMemory & { items: Map<string, string> } {
  const items = new Map<string, string>();
  return {
    items,
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
  };
}

const content = randomBytes(9_500);
const file = () => new File([content], 'a.bin', { lastModified: 1 });
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test('uploadFile: chunks go up several at once, each with its digest, and the whole is verified', async (t) => {
  const { hub, client } = await startHub(t, content);
  const three = Promise.withResolvers<void>();
  hub.intercept = async () => {
    if (hub.sent.length === 3) three.resolve();
    await three.promise;
    return undefined;
  };
  const progress: UploadProgress[] = [];
  const completed = await client.uploadFile(file(), { parallel: 3, onProgress: (one) => progress.push(one) });
  t.is(completed.checksum, createHash('sha256').update(content).digest('hex'));
  t.is(hub.mostAtOnce, 3);
  t.deepEqual([hub.sent.length, new Set(hub.sent).size], [10, 10]);
  const done = progress.filter(({ phase }) => phase === 'uploading').map((one) => one.done);
  t.deepEqual(
    done,
    done.toSorted((one, other) => one - other),
  );
  t.deepEqual([done[0], done.at(-1)], [0, 9_500]);
  t.deepEqual(progress.at(-1), { phase: 'verifying', done: 9_500, total: 9_500 });
});

test('uploadFile: stopped, it leaves nothing under way, and goes on with what is missing', async (t) => {
  const { hub, client } = await startHub(t, content);
  const memory = memoryOf();
  const stopping = new AbortController();
  hub.intercept = async (chunk) => {
    if (chunk === 4) stopping.abort(new Error('enough'));
    return undefined;
  };
  const stopped = client.uploadFile(file(), { memory, parallel: 1, signal: stopping.signal });
  await t.throwsAsync(stopped, { message: 'enough' });
  t.deepEqual(hub.sent, [0, 1, 2, 3, 4]);
  t.deepEqual([...memory.items.values()], ['f1']);
  await pause(50);
  const there = hub.stored.size;
  hub.sent = [];
  const begun: UploadBegun[] = [];
  await client.uploadFile(file(), { memory, onBegin: (one) => begun.push(one) });
  t.deepEqual(begun, [{ file_id: 'f1', chunk_count: 10, missing: 10 - there, isResumed: true }]);
  t.deepEqual(
    [...new Set(hub.sent)].toSorted((one, other) => one - other),
    Array.from({ length: 10 - there }, (_, index) => index + there),
  );
  t.is(hub.begun, 1);
  // What is complete is not remembered any more.
  t.is(memory.items.size, 0);
});

test('uploadFile: an upload that has failed, or is gone, is begun anew, and says why', async (t) => {
  const { hub, client } = await startHub(t, content);
  for (const [status, id, why] of [
    ['failed', 'f1', 'The earlier upload has failed (it was ended)'],
    ['in_progress', 'f77', 'The earlier upload does not exist any more'],
  ] as const) {
    const memory = memoryOf();
    await memory.setItem('chat4all upload a.bin 9500 1', id);
    Object.assign(hub, { status, begun: 1 });
    const begun: UploadBegun[] = [];
    const { file_id } = await client.uploadFile(file(), { memory, onBegin: (one) => begun.push(one) });
    t.is(file_id, 'f2');
    t.deepEqual(begun, [{ file_id: 'f2', chunk_count: 10, missing: 10, isResumed: false, abandoned: why }]);
  }
});

test('uploadFile: what the store has lost is sent again, and what never comes right is an error', async (t) => {
  const { hub, client } = await startHub(t, content);
  let lost = 0;
  const losing = (times: number) => (progress: UploadProgress) => {
    if (progress.phase === 'verifying' && (lost += 1) <= times) hub.stored.delete(7);
  };
  await client.uploadFile(file(), { onProgress: losing(2) });
  t.is(hub.sent.filter((chunk) => chunk === 7).length, 3);
  const memory = memoryOf();
  lost = 0;
  const never = client.uploadFile(file(), { memory, onProgress: losing(10) });
  t.true(isRefused(await t.throwsAsync(never), 'CHUNKS_MISSING'));
  // That one may come right some other time; one with another content doesn't.
  t.is(memory.items.size, 1);
  const wrong = client.uploadFile(file(), {
    memory: memoryOf(),
    onProgress: ({ phase }) => void (phase === 'verifying' && hub.stored.set(0, Buffer.alloc(chunkSize))),
  });
  t.true(isRefused(await t.throwsAsync(wrong), 'CHECKSUM_MISMATCH'));
});

test('uploadFile: what passes is waited for, as long as its patience lasts, and what does not is thrown at once', async (t) => {
  const { hub, client } = await startHub(t, content);
  const failing = new Set([1, 2, 3]);
  hub.intercept = async (chunk) => {
    if (!failing.delete(chunk)) return undefined;
    return chunk === 3
      ? { status: 400, error_code: 'CHUNK_DIGEST_MISMATCH' }
      : { status: 503, error_code: 'STORE_UNAVAILABLE' };
  };
  const retries: number[] = [];
  await client.uploadFile(file(), { onRetry: (_error, wait) => retries.push(wait) });
  t.is(retries.length, 3);
  t.is(hub.sent.length, 13);

  hub.intercept = async () => ({ status: 503, error_code: 'STORE_UNAVAILABLE' });
  const began = performance.now();
  t.true(isRefused(await t.throwsAsync(client.uploadFile(file(), { patience: 500 })), 'STORE_UNAVAILABLE'));
  t.true(performance.now() - began < 10_000);

  const other = await startHub(t, content);
  other.hub.intercept = async () => ({ status: 403, error_code: 'NOT_THE_OWNER' });
  t.true(isRefused(await t.throwsAsync(other.client.uploadFile(file(), { parallel: 2 })), 'NOT_THE_OWNER'));
  t.true(other.hub.sent.length <= 2);
});

test('uploadFile: a Blob needs a name, and an aborted signal sends nothing', async (t) => {
  const { hub, client } = await startHub(t, content);
  await t.throwsAsync(client.uploadFile(new Blob(['x'])), { instanceOf: TypeError, message: /filename/ });
  await t.throwsAsync(client.uploadFile(file(), { signal: AbortSignal.abort() }), { name: 'AbortError' });
  t.is(hub.begun, 0);
});
