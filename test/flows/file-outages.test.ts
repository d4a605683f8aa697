import { mkdir, rename } from 'node:fs/promises';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import pg from 'pg';
import { minioAvailable, startMinio } from '../../dev/engines/minio.ts';
import { eventually } from '../eventually.ts';
import { openedFolder, openedTogether } from '../opened.ts';
import type { Answer, Call } from '../rest.ts';
import { diskView, inTurn, isFreed, openS3View, type StoreView } from './file-meshes.ts';
import {
  chunkOf,
  chunkPath,
  complete,
  contentOf,
  detailsOf,
  download,
  everyChunk,
  initiate,
  mebibyte,
  sendChunk,
  sendChunks,
  sendPartly,
  tryChunk,
  uploadFile,
  type FileDetails,
  type Upload,
} from './files.ts';
import { startProcessHub, type ProcessHub } from './hubs.ts';
import { ended, openConversation, send, type Person } from './meshes.ts';

/** Milliseconds, with those of the tests before it. */
const testLimit = 300_000;
/** Milliseconds for what was killed to be back: whoever completed a file and died is waited for as well. */
const backLimit = 60_000;

const root = openedFolder('chat4all-file-outages-');

/** A hub in processes, and its store, which can go away. */
interface Scene {
  files: 'disk' | 's3';
  hub: ProcessHub;
  store: StoreView;
  takeAway(): Promise<void>;
  bringBack(): Promise<void>;
  /** Sends a signal to the store, where it is a process. */
  signal?(signal: NodeJS.Signals): void;
  stop(): Promise<unknown>;
}

async function startHub(files: Scene['files'], env: Record<string, string>): Promise<ProcessHub> {
  const folder = path.join(root, files);
  await mkdir(folder);
  return startProcessHub(folder, env);
}

async function onDisk(): Promise<Scene> {
  const hub = await startHub('disk', {});
  const folder = path.join(root, 'disk/data/files');
  return {
    files: 'disk',
    hub,
    store: diskView(folder),
    takeAway: () => rename(folder, `${folder}.away`),
    bringBack: () => rename(`${folder}.away`, folder),
    stop: () => hub.stop(),
  };
}

async function onS3(): Promise<Scene> {
  const dataDir = path.join(root, 'minio');
  let minio = await startMinio({ dataDir });
  const store = openS3View(minio);
  const hub = await startHub('s3', store.env as Record<string, string>).catch(async (error: unknown) => {
    await minio.stop();
    throw error;
  });
  return {
    files: 's3',
    hub,
    store,
    takeAway: () => minio.kill(),
    async bringBack() {
      minio = await startMinio({ dataDir, port: minio.port });
    },
    signal: (name) => process.kill(minio.pid, name),
    async stop() {
      await hub.stop();
      await minio.stop();
    },
  };
}

const stop = (scene: Scene) => scene.stop();
const scenes = openedTogether<Scene>([
  { open: onDisk, close: stop, known: { files: 'disk' } },
  ...(minioAvailable() ? [{ open: onS3, close: stop, known: { files: 's3' as const } }] : []),
]);

/** What a call answers once nothing is away any more. */
function onceBack(person: Person, method: string, at: string, call?: Call): Promise<Answer> {
  const ask = () => person.rest.call(method, at, { timeout: backLimit, ...call }).catch(() => undefined);
  const isAnswer = (answer: Answer | undefined) => answer !== undefined && answer.status !== 503;
  return eventually(`${method} ${at} is answered`, ask, isAnswer, backLimit) as Promise<Answer>;
}

async function detailsOnceBack(person: Person, fileId: string): Promise<FileDetails> {
  return (await onceBack(person, 'GET', `/v1/files/${fileId}`)).body as FileDetails;
}

/** What a client does after an interruption, which tries again what it is asked to try again. */
async function resume(t: ExecutionContext, upload: Upload): Promise<void> {
  const { owner, file_id: fileId } = upload;
  for (const chunkId of (await detailsOf(owner, fileId)).missing_chunks) {
    const body = chunkOf(upload, chunkId);
    const { status, body: answer } = await onceBack(owner, 'PATCH', chunkPath(fileId, chunkId), { body });
    t.is(status, 200, JSON.stringify(answer));
  }
  await complete(upload);
}

function isAway(
  t: ExecutionContext,
  answer: Pick<Answer, 'status' | 'headers' | 'body'> | undefined,
  what: string,
): void {
  t.is(answer?.status, 503, `${what}: ${JSON.stringify(answer?.body)}`);
  t.true(Number(answer?.headers.get('retry-after')) >= 1, what);
}

for (const scene of scenes) {
  const { files, hub, store, takeAway, bringBack } = scene;
  const [owner, reader] = hub.people as [Person, Person];
  const chunkSize = 5 * mebibyte;
  /** All that was uploaded to the end. */
  const whole: string[] = [];
  const threeChunks = (seed: string) =>
    initiate(owner, contentOf(`${files} ${seed}`, 2 * chunkSize + 1_000), { chunkSize });
  const isWhole = async (t: ExecutionContext, upload: Upload) => {
    const { sha256, length, status } = await download(owner, upload.file_id);
    t.deepEqual(
      { sha256, length, status },
      { sha256: await upload.content.sha256(), length: upload.content.size, status: 200 },
    );
    whole.push(upload.file_id);
  };

  const declare = inTurn(testLimit);

  declare(
    `${files}: the gateway is killed in the middle of a chunk: nothing of it counts, and the upload goes on`,
    async (t) => {
      const upload = await threeChunks('gateway');
      await sendChunk(upload, 0);
      const part = await sendPartly(upload, 1);
      await hub.kill('gateway');
      t.is(await part.ended, undefined);
      t.like(await detailsOnceBack(owner, upload.file_id), { missing_chunks: [1, 2], received_bytes: chunkSize });
      await resume(t, upload);
      await isWhole(t, upload);
    },
  );

  declare(
    `${files}: the file service is killed in the middle of a chunk: the client hears of it, and goes on`,
    async (t) => {
      const upload = await threeChunks('service');
      await sendChunk(upload, 0);
      const part = await sendPartly(upload, 1);
      await hub.kill('file');
      isAway(t, await part.ended, 'the chunk');
      t.like(await detailsOnceBack(owner, upload.file_id), { missing_chunks: [1, 2], received_bytes: chunkSize });
      await resume(t, upload);
      await isWhole(t, upload);
    },
  );

  declare(`${files}: the file service is killed while it completes a file: repeated, that ends well`, async (t) => {
    const upload = await initiate(owner, contentOf(`${files} completing`, 20 * mebibyte));
    const { file_id: fileId, content } = upload;
    const json = { file_id: fileId, checksum: await content.sha256() };
    await sendChunks(upload, everyChunk(upload), 2);
    // It is put together and hashed, and can't be recorded until the lock is gone.
    const locking = new pg.Client({ connectionString: hub.databaseUrl });
    await locking.connect();
    await locking.query('begin; lock table file.contents in access exclusive mode');
    const completing = owner.rest.call('POST', '/v1/files/complete', { json, timeout: backLimit });
    const objects = () => store.objects();
    await eventually('it is put together', objects, (keys) => keys.includes(fileId));
    await hub.kill('file');
    isAway(t, await completing, 'completing');
    await locking.end();
    const again = await onceBack(owner, 'POST', '/v1/files/complete', { json });
    t.is(again.status, 200, JSON.stringify(again.body));
    await isWhole(t, upload);
  });

  declare(`${files}: the store goes away: files wait, texts go on; it is back, and nothing is lost`, async (t) => {
    const before = await uploadFile(owner, contentOf(`${files} before`, 1_000));
    whole.push(before.file_id);
    const large = contentOf(`${files} large`, 11 * mebibyte);
    const { file_id: largeId } = await uploadFile(owner, large);
    whole.push(largeId);
    const id = await openConversation([owner, reader]);
    const upload = await threeChunks('store');
    const full = await initiate(owner, contentOf(`${files} full`, 1_000));
    await sendChunk(full, 0);
    await sendChunk(upload, 0);
    const part = await sendPartly(upload, 1);

    await takeAway();
    part.finish();
    isAway(t, await part.ended, 'a chunk on its way');
    isAway(t, await tryChunk(upload, 2), 'a new chunk');
    // More than may be open: what isn't begun doesn't count.
    for (let count = 0; count < 12; count++) {
      const json = { filename: 'x', file_size: 1_000 };
      isAway(t, await owner.rest.call('POST', '/v1/files/initiate', { json }), 'initiate');
    }
    const json = { file_id: full.file_id, checksum: await full.content.sha256() };
    isAway(t, await owner.rest.call('POST', '/v1/files/complete', { json }), 'complete');
    isAway(t, await owner.rest.call('GET', `/v1/files/${before.file_id}/content`), 'a download');
    t.like(await detailsOf(owner, before.file_id), { status: 'completed', file_size: 1_000 });
    const readiness = () =>
      fetch(`${hub.url}/ready`).then(async (answer) => ({
        ...((await answer.json()) as Record<'dependencies' | 'features', Record<string, string>>),
        status: answer.status,
      }));
    const unready = await eventually('/ready tells it', readiness, ({ status }) => status === 503);
    t.is(unready.dependencies['file.store'], 'down');
    t.is(unready.dependencies['message'], 'up');
    t.like(unready.features, { files: 'down', messages: 'up', conversations: 'up', accounts: 'up' });
    t.is((await fetch(`${hub.url}/live`)).status, 200);
    t.is((await ended(reader, await send(owner, id))).status, 'delivered');

    await bringBack();
    const isReady = await eventually(
      '/ready tells it',
      readiness,
      (found) => found.dependencies['file.store'] === 'up',
    );
    t.is(isReady.status, 200);
    t.like(await detailsOf(owner, upload.file_id), { missing_chunks: [1, 2], received_bytes: chunkSize });
    await resume(t, upload);
    await isWhole(t, upload);
    await complete(full);
    await isWhole(t, full);
    t.is((await download(owner, before.file_id)).sha256, before.checksum);
    const message = await ended(reader, await send(owner, id, { payload: { type: 'file', file_id: largeId } }));
    t.is(message.status, 'delivered');
    t.is((await download(reader, largeId)).sha256, await large.sha256());
  });

  declare(
    `${files}: the file service is killed in the middle of a download: it is cut off, and never looks whole`,
    async (t) => {
      const content = contentOf(`${files} download`, 32 * mebibyte);
      const { file_id: fileId } = await uploadFile(owner, content);
      const { status, headers, body } = await owner.rest.raw('GET', `/v1/files/${fileId}/content`, {
        timeout: backLimit,
      });
      t.is(status, 200);
      t.is(headers.get('content-length'), String(content.size));
      let length = 0;
      await t.throwsAsync(async () => {
        for await (const piece of body) {
          if (length === 0) await hub.kill('file');
          length += (piece as Buffer).length;
        }
      });
      t.true(length < content.size);
      const rest = await onceBack(owner, 'GET', `/v1/files/${fileId}`);
      t.is(rest.status, 200);
      // The client goes on where it was.
      const goOn = () => download(owner, fileId, { headers: { range: `bytes=${length}-` } });
      const more = await eventually('the rest is there', goOn, ({ status }) => status !== 503, backLimit);
      t.is(more.status, 206);
      t.is(more.length, content.size - length);
      whole.push(fileId);
    },
  );

  // Of a folder nothing can be taken away while a file is open.
  if (files === 's3') {
    for (const [what, stopIt, goOn] of [
      ['killed', takeAway, bringBack],
      ['frozen', async () => scene.signal!('SIGSTOP'), async () => scene.signal!('SIGCONT')],
    ] as const) {
      declare(
        `${files}: the store is ${what} in the middle of a download: it is cut off, and never looks whole`,
        async (t) => {
          const content = contentOf(`${files} ${what}`, 64 * mebibyte);
          const { file_id: fileId } = await uploadFile(owner, content);
          whole.push(fileId);
          const { status, body } = await owner.rest.raw('GET', `/v1/files/${fileId}/content`, { timeout: backLimit });
          t.is(status, 200);
          let length = 0;
          await t.throwsAsync(async () => {
            for await (const piece of body) {
              if (length === 0) await stopIt();
              length += (piece as Buffer).length;
            }
          });
          t.true(length < content.size, `${length} of ${content.size}`);
          const sent = await send(owner, await openConversation([owner, reader]));
          t.is((await ended(reader, sent)).status, 'delivered');
          await goOn();
          const rest = () => download(owner, fileId, { headers: { range: `bytes=${length}-` } });
          const more = await eventually('the rest is there', rest, ({ status }) => status !== 503, backLimit);
          t.is(more.status, 206);
          t.is(more.length, content.size - length);
        },
      );
    }
  }

  declare(`${files}: after all that the store has the files that are there, and nothing else`, async (t) => {
    const given = await threeChunks('given up');
    await sendChunk(given, 1);
    t.is((await owner.rest.call('DELETE', `/v1/files/${given.file_id}`)).status, 204);
    await isFreed({ store }, given.file_id);
    t.deepEqual(await store.objects(), whole.toSorted());
    await eventually(
      'no upload is left',
      () => store.uploads(whole),
      (keys) => keys.length === 0,
    );
    for (const fileId of whole) t.is((await detailsOf(owner, fileId)).status, 'completed');
  });
}
