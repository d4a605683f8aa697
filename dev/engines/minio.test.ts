import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import baseTest, { type ExecutionContext } from 'ava';
import { Client } from 'minio';
import { eventually } from '../../test/eventually.ts';
import { minioAvailable, startMinio, type Minio } from './minio.ts';

// In CI it must be there. One after the other, for each has servers of its own.
const test = minioAvailable() || process.env.CI === 'true' ? baseTest.serial : baseTest.serial.skip;

test('startMinio: answers S3, and keeps objects, unfinished uploads and credentials over a SIGKILL', async (t) => {
  const dataDir = await scratch(t);
  const first = await start(t, { dataDir });
  t.is(first.endpoint, `http://127.0.0.1:${first.port}`);
  const before = open(first);
  await before.makeBucket('things');
  await before.putObject('things', 'a/b.txt', 'ação');
  const uploadId = await before.initiateNewMultipartUpload('things', 'big', {});
  const part = { bucketName: 'things', objectName: 'big', uploadID: uploadId, partNumber: 1, headers: {} };
  const { etag } = await before.uploadPart(part, Buffer.alloc(1_000, 'x'));
  await first.kill();
  t.false(isAlive(first.pid));

  const second = await start(t, { dataDir, port: first.port });
  const { endpoint, accessKey, secretKey } = first;
  t.like(second, { endpoint, accessKey, secretKey });
  // The same client, as a service that lives on has it.
  t.is(await text(await before.getObject('things', 'a/b.txt')), 'ação');
  await before.completeMultipartUpload('things', 'big', uploadId, [{ part: 1, etag }]);
  t.is((await before.statObject('things', 'big')).size, 1_000);
});

test('startMinio: each folder has credentials of its own, in a file of its owner and not in the log', async (t) => {
  const [dataDir, other] = await Promise.all([scratch(t), scratch(t)]);
  const [minio, second] = await Promise.all([start(t, { dataDir }), start(t, { dataDir: other })]);
  t.not(minio.accessKey, second.accessKey);
  t.not(minio.secretKey, second.secretKey);
  const wrong = open({ ...minio, secretKey: second.secretKey });
  await t.throwsAsync(wrong.listBuckets(), { message: /signature/ });

  const file = path.join(dataDir, 'credentials.json');
  t.deepEqual(JSON.parse(await readFile(file, 'utf8')), { accessKey: minio.accessKey, secretKey: minio.secretKey });
  t.is((await stat(file)).mode & 0o777, 0o600);
  const read = () => readFile(path.join(dataDir, 'server.log'), 'utf8');
  // It takes calls before it has written all that it says at its start.
  const log = await eventually('it has said who it is', read, (text) => text.includes('MinIO'));
  t.false(log.includes(minio.secretKey));
});

test('startMinio: takes credentials that it is given', async (t) => {
  const given = { accessKey: 'somebody', secretKey: 'a secret of theirs' };
  const minio = await start(t, { dataDir: await scratch(t), ...given });
  t.like(minio, given);
  t.deepEqual(await open(minio).listBuckets(), []);
});

test('startMinio: says so when its port is taken', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => void taken.close());
  const { port } = taken.address() as AddressInfo;
  const starting = startMinio({ dataDir: await scratch(t), port });
  await t.throwsAsync(starting, { message: `MinIO can't start on port ${port}: another program listens there.` });
});

test('startMinio: stops in order, and then nothing is left', async (t) => {
  const minio = await start(t, { dataDir: await scratch(t) });
  await open(minio).makeBucket('things');
  await minio.stop();
  t.false(isAlive(minio.pid));
  await minio.exited;
  await t.throwsAsync(fetch(minio.endpoint));
});

test('startMinio: a server whose process was killed ends by itself', async (t) => {
  const dataDir = await scratch(t);
  const program = `
    import { startMinio } from ${JSON.stringify(import.meta.resolve('./minio.ts'))};
    const { pid } = await startMinio({ dataDir: ${JSON.stringify(dataDir)} });
    process.stdout.write(String(pid), () => process.kill(process.pid, 'SIGKILL'));`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pid = Number(await text(child.stdout));
  t.true(pid > 1);
  await eventually(
    'the server has ended',
    () => isAlive(pid),
    (alive) => !alive,
  );
  // What it leaves behind is whole.
  await open(await start(t, { dataDir })).makeBucket('things');
});

async function scratch(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-minio-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function start(t: ExecutionContext, options: Parameters<typeof startMinio>[0]): Promise<Minio> {
  const minio = await startMinio(options);
  t.teardown(() => minio.stop());
  return minio;
}

function open({ port, accessKey, secretKey }: Pick<Minio, 'port' | 'accessKey' | 'secretKey'>): Client {
  return new Client({ endPoint: '127.0.0.1', port, useSSL: false, accessKey, secretKey });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
