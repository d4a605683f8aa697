import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pg from 'pg';
import { opened } from '../opened.ts';
import { gofakes3, moto, type OtherS3 } from '../other-s3s/engines.ts';
import {
  chunkOf,
  complete,
  contentOf,
  download,
  everyChunk,
  initiate,
  mebibyte,
  put,
  readContent,
  sendChunks,
} from './files.ts';
import { startFlowMesh, type FlowMesh } from './meshes.ts';

/** Files on S3s that aren't MinIO, and have no AssumeRole of MinIO's kind. */
for (const engine of [moto, gofakes3]) {
  const { name } = engine;
  if (engine.isAvailable()) flowsOn(engine);
  else test.skip(`${name}: files: it needs ${engine.needs}`, (t) => t.pass());
}

function flowsOn(engine: OtherS3): void {
  const { name } = engine;
  const running = opened(
    async () => {
      await engine.install();
      const folder = await mkdtemp(path.join(tmpdir(), `chat4all-${name}-`));
      return { folder, ...(await engine.start(folder)) };
    },
    async ({ folder, server }) => {
      await server.stop();
      await rm(folder, { recursive: true });
    },
  );

  async function meshWith(t: ExecutionContext, env: NodeJS.ProcessEnv): Promise<FlowMesh> {
    const mesh = await startFlowMesh('embedded', { people: 2, env: { FILES_DIR: undefined, ...running.env, ...env } });
    t.teardown(() => mesh.stop());
    return mesh;
  }

  test.serial(
    `${name}: where it gives out no keys for upload URLs, beginning an upload says what to set, and nothing stays of it`,
    async (t) => {
      const mesh = await meshWith(t, { S3_BUCKET: 'without', MAX_OPEN_UPLOADS: '3' });
      const [owner] = mesh.people as [FlowMesh['people'][0]];
      for (let attempt = 0; attempt < 5; attempt++) {
        const { status, body } = await owner.rest.call('POST', '/v1/files/initiate', {
          json: { filename: 'a.bin', file_size: 1_000 },
        });
        t.is(status, 503);
        t.like(body, { error_code: 'STORE_UNAVAILABLE' });
        t.regex(JSON.stringify(body), /S3_UPLOAD_ACCESS_KEY.*S3_DIRECT_UPLOADS/);
      }
      const client = new pg.Client(mesh.adminDatabaseUrl);
      await client.connect();
      t.teardown(() => client.end());
      t.deepEqual((await client.query('select file_id from file.files')).rows, []);
      t.true(
        mesh.services.file!.lines.some((line) => line.includes('AssumeRole') && line.includes('S3_UPLOAD_ACCESS_KEY')),
        'the log says so, too',
      );
      // There is nothing to sign for an empty file.
      t.falsy((await initiate(owner, contentOf('empty', 0))).upload_url);
    },
  );

  test.serial(`${name}: with keys for uploads, URLs lead straight into it`, async (t) => {
    const keys = { S3_UPLOAD_ACCESS_KEY: 'uploads', S3_UPLOAD_SECRET_KEY: 'Qm3vXr8LzWv71TgBnRpK' };
    const mesh = await meshWith(t, { S3_BUCKET: 'direct', ...keys });
    const [owner] = mesh.people as [FlowMesh['people'][0]];
    const content = contentOf('direct', 5 * mebibyte + 1_234);
    const upload = await initiate(owner, content, { chunkSize: 5 * mebibyte });
    t.true(upload.upload_url!.startsWith(running.env.S3_ENDPOINT!), `${upload.upload_url}`);
    t.is((await put(upload.upload_url!, chunkOf(upload, 0))).status, 200);
    await sendChunks(upload, [1]);
    t.is((await complete(upload)).status, 'completed');
    await isReadable(t, mesh, upload.file_id, content);
  });

  test.serial(`${name}: without direct uploads, all of it goes through the gateway`, async (t) => {
    const mesh = await meshWith(t, { S3_BUCKET: 'through', S3_DIRECT_UPLOADS: 'false' });
    const [owner] = mesh.people as [FlowMesh['people'][0]];
    const content = contentOf('through', 11 * mebibyte + 77);
    const upload = await initiate(owner, content, { chunkSize: 5 * mebibyte });
    t.regex(upload.upload_url!, /\/v1\/files\/upload\?/);
    await sendChunks(upload, everyChunk(upload));
    t.is((await complete(upload)).status, 'completed');
    await isReadable(t, mesh, upload.file_id, content);
    t.is((await owner.rest.call('DELETE', `/v1/files/${upload.file_id}`)).status, 204);
    t.is((await owner.rest.call('GET', `/v1/files/${upload.file_id}`)).status, 404);
  });

  async function isReadable(
    t: ExecutionContext,
    mesh: FlowMesh,
    fileId: string,
    content: ReturnType<typeof contentOf>,
  ) {
    const [owner] = mesh.people as [FlowMesh['people'][0]];
    t.like(await download(owner, fileId), { status: 200, sha256: await content.sha256() });
    const part = await readContent(owner, fileId, { range: 'bytes=5242870-5242889' });
    t.is(part.status, 206);
    t.deepEqual(part.bytes, content.bytes(5_242_870, 5_242_890));
  }
}
