import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { Client } from 'minio';
import { loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { opened } from '../../../test/opened.ts';
import { gofakes3, moto } from '../../../test/other-s3s/engines.ts';
import { storageContract } from './contract.ts';
import { openStorage, storageSettings } from './open.ts';

/** The contract of the store on S3s that aren't MinIO, and what each of them does otherwise than an S3 should. */
const others = [
  {
    engine: moto,
    without: [
      // It lists the parts of an upload also for another key.
      'an upload without parts has none; one that was never opened is not there',
      // A part for an upload that is closed is 500.
      'an upload that was assembled takes no parts any more, also those on their way',
      'an upload that was removed takes no parts any more, also those on their way, and leaves nothing',
      'assemble: no parts make an empty object',
      // Of calls for the same key at once some may be 500.
      'parts that were written in any order and at once make one object, for every process',
      'writePart: of one part written twice at once, one is there, whole',
      'assemble: repeated, at once and by another process, it changes nothing',
      'remove: an object goes with all that there is of it; repeated, it changes nothing',
    ],
  },
  // It takes no part of 0 bytes.
  { engine: gofakes3, without: ['assemble: no parts make an empty object'] },
];
const log = openLog({ name: 'test', format: 'json', level: 'silent' });

for (const { engine, without } of others) {
  const { name } = engine;
  if (!engine.isAvailable()) {
    test.skip(`${name}: the contract of the store: it needs ${engine.needs}`, (t) => t.pass());
    continue;
  }
  const running = opened(
    async () => {
      await engine.install();
      const folder = await mkdtemp(path.join(tmpdir(), `chat4all-${name}-`));
      const { server, env } = await engine.start(folder);
      const { hostname, port } = new URL(env.S3_ENDPOINT!);
      const [accessKey, secretKey] = [env.S3_ACCESS_KEY!, env.S3_SECRET_KEY!];
      const client = new Client({ endPoint: hostname, port: Number(port), useSSL: false, accessKey, secretKey });
      return { folder, server, env, client };
    },
    async ({ folder, server }) => {
      await server.stop();
      await rm(folder, { recursive: true });
    },
  );
  const S3_BUCKET = 'contents';

  async function remains(key: string): Promise<string[]> {
    const found: string[] = [];
    for await (const object of running.client.listObjectsV2(S3_BUCKET, key, true)) found.push(`object ${object.name}`);
    const { uploads } = await running.client.listIncompleteUploadsQuery(S3_BUCKET, key, '', '', '');
    for (const upload of uploads) found.push(`upload ${upload.uploadId}`);
    return found;
  }

  storageContract(
    test,
    { open: () => openStorage(loadConfig(storageSettings, { ...running.env, S3_BUCKET }), { log }), remains },
    { prefix: `${name}: `, without },
  );
}
