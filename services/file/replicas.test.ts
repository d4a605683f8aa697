import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import { FileServiceService } from '#gen/chat4all/file/v1/file.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';

/**
 * As much of S3 as beginning and removing uploads needs, and a store that can be frozen: then it takes requests and answers none of
 * them. Those that were to open an upload it does later than all others, whether anybody still waits or not.
 */
class FreezingS3 {
  /** The keys of open uploads, by their ids. */
  readonly uploads = new Map<string, string>();
  /** The access keys of those who have asked for the uploads of a key while the store was frozen. */
  readonly lookers = new Set<string>();
  #isFrozen = false;
  #held: (() => void)[] = [];
  #late: (() => void)[] = [];

  readonly server: Server = createServer((request, response) => {
    request.resume();
    const { pathname, searchParams } = new URL(request.url!, 'http://s3');
    const isOpening = request.method === 'POST' && searchParams.has('uploads');
    const isLooking = request.method === 'GET' && searchParams.has('uploads');
    const answer = () => this.#answer(request, response, pathname.split('/')[2], searchParams);
    if (!this.#isFrozen) return answer();
    if (isLooking) this.lookers.add(/Credential=(\w+)\//.exec(request.headers.authorization ?? '')![1]!);
    (isOpening ? this.#late : this.#held).push(answer);
  });

  freeze(): void {
    this.#isFrozen = true;
  }

  thaw(): void {
    this.#isFrozen = false;
    for (const answer of this.#held.splice(0)) answer();
  }

  /** Opens what it was asked to open while it was frozen. @returns how many uploads that were */
  openLate(): number {
    const late = this.#late.splice(0);
    for (const answer of late) answer();
    return late.length;
  }

  #answer(request: IncomingMessage, response: ServerResponse, key: string | undefined, query: URLSearchParams): void {
    const send = (status: number, xml = '') =>
      void response.writeHead(status, { 'content-type': 'application/xml' }).end(xml);
    if (request.method === 'POST') {
      const id = uuid();
      this.uploads.set(id, key!);
      const names = `<Bucket>files</Bucket><Key>${key}</Key><UploadId>${id}</UploadId>`;
      return send(200, `<InitiateMultipartUploadResult>${names}</InitiateMultipartUploadResult>`);
    }
    if (request.method === 'DELETE') {
      this.uploads.delete(query.get('uploadId') ?? '');
      return send(204);
    }
    if (query.has('uploadId')) return send(200, '<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>');
    if (!query.has('uploads')) return send(200);
    const found = [...this.uploads].filter(([, name]) => name.startsWith(query.get('prefix')!));
    const uploads = found.map(([id, name]) => `<Upload><Key>${name}</Key><UploadId>${id}</UploadId></Upload>`);
    send(
      200,
      `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>${uploads.join('')}</ListMultipartUploadsResult>`,
    );
  }
}

const hub = opened(openHarness, (hub) => hub.stop());
const pool = opened(
  () => new pg.Pool({ connectionString: hub.adminDatabaseUrl, max: 1 }),
  (pool) => pool.end(),
);
const s3 = opened(
  async () => {
    const store = new FreezingS3();
    store.server.listen(0, '127.0.0.1');
    await once(store.server, 'listening');
    return store;
  },
  ({ server }) => {
    server.close();
    server.closeAllConnections();
  },
);

/** Starts a file service on an S3. */
async function startReplica(name: string, endpoint: string) {
  const { address } = await hub.startService('file', {
    FILES_DIR: undefined,
    S3_ENDPOINT: endpoint,
    S3_ACCESS_KEY: name,
    S3_SECRET_KEY: 'of-no-consequence-here',
    S3_BUCKET: 'files',
    S3_DIRECT_UPLOADS: 'false',
    UPLOAD_TTL: '10s',
  });
  const token = await hub.userToken({ userId: uuid(), username: name });
  return hub.client(FileServiceService, address, { token });
}

/** The keys in the table of what is to be removed. */
async function removals(condition: string): Promise<string[]> {
  const { rows } = await pool.query<{ key: string }>(`select storage_key as key from file.removals where ${condition}`);
  return rows.map(({ key }) => key);
}

const begin = { filename: 'x', fileSize: 5n, contentType: '', checksum: '', chunkSize: undefined };

test.serial('what never left for a store that is not there leaves nothing to be removed', async (t) => {
  const store = new FreezingS3().server;
  await once(store.listen(0, '127.0.0.1'), 'listening');
  const replica = await startReplica('alone', `http://127.0.0.1:${(store.address() as AddressInfo).port}`);
  store.close();
  store.closeAllConnections();
  for (let count = 0; count < 10; count += 1) {
    t.like(await t.throwsAsync(replica.initiateUpload(begin)), { reason: 'STORE_UNAVAILABLE' });
  }
  t.deepEqual(await removals('true'), []);
});

test.serial('two file services on one store that freezes: whatever it opens when it thaws is removed', async (t) => {
  t.timeout(120_000);
  const { port } = s3.server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  const replicas = await Promise.all(['replica1', 'replica2'].map((name) => startReplica(name, endpoint)));
  for (const replica of replicas) t.truthy((await replica.initiateUpload(begin)).fileId);
  t.is(s3.uploads.size, 2);

  s3.freeze();
  const failures = await Promise.all(
    replicas.flatMap((replica) => [1, 2].map(() => t.throwsAsync(replica.initiateUpload(begin)))),
  );
  for (const failure of failures) t.like(failure, { reason: 'STORE_UNAVAILABLE' });
  await eventually(
    'both have looked for what is to be removed',
    () => [...s3.lookers].toSorted(),
    (found) => found.length === 2,
    60_000,
  );
  s3.thaw();
  await eventually(
    'each has been looked for once',
    () => removals('again'),
    (found) => found.length === 0,
    60_000,
  );
  t.is(s3.openLate(), 4);
  await eventually(
    'nothing is left, not even of the uploads that nothing happened to',
    async () => ({ uploads: [...s3.uploads.values()], removals: await removals('true') }),
    (found) => found.uploads.length === 0 && found.removals.length === 0,
    60_000,
  );
});
