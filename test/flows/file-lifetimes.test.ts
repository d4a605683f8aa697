import { eventually } from '../eventually.ts';
import type { Problem } from '../rest.ts';
import { inTurn, isFreed, openedFileMeshes, stockAtRest } from './file-meshes.ts';
import {
  chunkOf,
  chunkPath,
  complete,
  contentOf,
  detailsOf,
  download,
  initiate,
  put,
  sendChunk,
  tryChunk,
  uploadFile,
  type ChunkAnswer,
  type Upload,
} from './files.ts';
import type { Person } from './meshes.ts';

/** Milliseconds: longer than anything here pauses, also on a machine that is busy. */
const lifetime = 4_000;
const testLimit = 120_000;
const meshes = openedFileMeshes(
  [
    ['embedded', 'disk'],
    ['embedded', 's3'],
  ],
  { people: 6, small: true, env: { UPLOAD_TTL: `${lifetime}ms` } },
);

for (const mesh of meshes) {
  const { files, newPeople, smallestChunk, rows } = mesh;
  // Most of the time they wait.
  const declare = inTurn(testLimit);
  const statusOf = async ({ owner, file_id: fileId }: Upload) => (await detailsOf(owner, fileId)).status;

  declare(
    `${files}: an upload without activity fails after a while, and nothing stays of it; one that goes on stays open`,
    async (t) => {
      const [owner] = newPeople(1) as [Person];
      const twoChunks = (seed: string) =>
        initiate(owner, contentOf(`${files} ${seed}`, smallestChunk + 1_000), { chunkSize: smallestChunk });
      const untouched = await twoChunks('untouched');
      const begun = await twoChunks('begun');
      await sendChunk(begun, 0);
      const byUrl = await twoChunks('begun by URL');
      t.is((await put(byUrl.upload_url!, chunkOf(byUrl, 0))).status, 200);
      const [active, activeByUrl] = [await twoChunks('active'), await twoChunks('active by URL')];
      const { upload_url: url } = (await owner.rest.call('PATCH', chunkPath(activeByUrl.file_id, 1), { json: {} }))
        .body as ChunkAnswer;

      const idle = [untouched, begun, byUrl];
      const finished = await uploadFile(owner, contentOf(`${files} finished`, 1_000));
      const [enough, began] = [1.5 * lifetime, Date.now()];
      const goOn = async () => {
        const [, { status }] = await Promise.all([sendChunk(active, 1), put(url!, chunkOf(activeByUrl, 1))]);
        t.is(status, 200);
        return Promise.all(idle.map(statusOf));
      };
      await eventually('they have failed', goOn, (found) => {
        return Date.now() > began + enough && found.every((status) => status === 'failed');
      });

      for (const upload of [active, activeByUrl]) {
        const { status, expires_at: until } = await detailsOf(owner, upload.file_id);
        t.is(status, 'in_progress');
        t.true(Date.parse(until!) > Date.now());
        await sendChunk(upload, 0);
        await complete(upload);
        t.is((await download(owner, upload.file_id)).sha256, await upload.content.sha256());
      }

      for (const upload of idle) {
        const { file_id: fileId } = upload;
        const details = await detailsOf(owner, fileId);
        t.like(details, { received_bytes: 0, missing_chunks: [], expires_at: null });
        t.not(details.error, '');
        await isFreed(mesh, fileId);
        const late = await tryChunk(upload, 1);
        t.is(late.status, 409);
        t.is((late.body as Problem).error_code, 'UPLOAD_FAILED');
        t.deepEqual(await rows('select from file.chunks where file_id = $1', [fileId]), []);
      }
      const refused = await put(byUrl.upload_url!, chunkOf(byUrl, 0));
      t.true(refused.status >= 400 && refused.status < 500, refused.text);
      t.is((await download(owner, finished.file_id)).sha256, finished.checksum);
    },
  );

  declare(`${files}: uploads that have failed by themselves make room for others`, async (t) => {
    const [owner] = newPeople(1) as [Person];
    const json = { filename: 'x', file_size: 1_000 };
    const begin = async () => (await owner.rest.call('POST', '/v1/files/initiate', { json })).status;
    t.deepEqual(
      await Promise.all(Array.from({ length: 10 }, begin)),
      Array.from({ length: 10 }, () => 201),
    );
    t.is(await begin(), 429);
    await eventually('there is room', begin, (status) => status === 201);
  });

  declare(`${files}: in the end nothing is left, neither in the store nor in the tables`, async (t) => {
    const open = () => rows(`select file_id from file.files where status in ('initiated', 'in_progress')`);
    await eventually('all have failed', open, (found) => found.length === 0);
    const { objects, uploads, expected, strayRows } = await stockAtRest(mesh);
    t.deepEqual(uploads, []);
    t.deepEqual(objects, expected.objects);
    t.is(objects.length, 3);
    t.deepEqual(strayRows, []);
  });
}
