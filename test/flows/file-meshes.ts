import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readlink, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Client as S3 } from 'minio';
import pg from 'pg';
import { eventually } from '../eventually.ts';
import { kafkaIsThere, s3IsThere } from '../harness.ts';
import { openedTogether } from '../opened.ts';
import { mebibyte } from './files.ts';
import { startFlowMesh, type FlowMesh, type Person } from './meshes.ts';

/** What contents of files are kept in, from behind the hub's back. */
export interface StoreView {
  /** How a file service is told. */
  env: NodeJS.ProcessEnv;
  /** The keys of all objects, in order. */
  objects(): Promise<string[]>;
  /**
   * The keys of everything else: uploads with what belongs to them, and what should have been cleared away.
   *
   * @param known keys to look at in any case: MinIO lists all uploads only as far as they were opened since its own start
   */
  uploads(known?: readonly string[]): Promise<string[]>;
  /** Loses an object. */
  lose(key: string): Promise<void>;
  /** Does the first half of making an object of an upload, as a process that is then killed. Missing where it is one step. */
  assembleHalf?(key: string): Promise<void>;
  /** Gets rid of everything. */
  drop(): Promise<void>;
}

/** A folder of its own. */
export async function openDiskView(): Promise<StoreView> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-flow-files-'));
  return { ...diskView(folder), drop: () => rm(folder, { recursive: true, force: true }) };
}

/** A folder that somebody else gets rid of. */
export function diskView(folder: string): StoreView {
  const namesIn = async (place: string): Promise<string[]> => {
    try {
      return await readdir(path.join(folder, place));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
  };
  return {
    env: { FILES_DIR: folder },
    objects: async () => (await namesIn('objects')).toSorted(),
    uploads: async () => [...(await namesIn('uploads')), ...(await namesIn('removed'))].toSorted(),
    lose: (key) => rm(path.join(folder, 'objects', key), { recursive: true }),
    assembleHalf: (key) => rename(path.join(folder, 'uploads', key, 'parts'), path.join(folder, 'objects', key)),
    drop: async () => {},
  };
}

export interface S3Access {
  endpoint: string;
  accessKey: string;
  secretKey: string;
}

/** A bucket of its own, which the file service makes. */
export function openS3View({ endpoint, accessKey, secretKey }: S3Access): StoreView {
  const bucket = `flow-${randomBytes(6).toString('hex')}`;
  const { hostname: endPoint, port, protocol } = new URL(endpoint);
  const s3 = new S3({ endPoint, port: Number(port), useSSL: protocol === 'https:', accessKey, secretKey });
  const uploads = async (known: readonly string[] = []) => {
    const found = new Map<string, string>();
    for (const prefix of ['', ...known]) {
      for await (const upload of s3.listIncompleteUploads(bucket, prefix, true)) {
        const { key, uploadId } = upload as { key: string; uploadId: string };
        found.set(uploadId, key);
      }
    }
    return found;
  };
  const objects = async () => {
    const names: string[] = [];
    for await (const { name } of s3.listObjectsV2(bucket, '', true)) names.push(name!);
    return names.toSorted();
  };
  return {
    env: { S3_ENDPOINT: endpoint, S3_ACCESS_KEY: accessKey, S3_SECRET_KEY: secretKey, S3_BUCKET: bucket },
    objects,
    uploads: async (known) => [...(await uploads(known)).values()].toSorted(),
    lose: (key) => s3.removeObject(bucket, key),
    async drop() {
      if (!(await s3.bucketExists(bucket))) return;
      for (const [uploadId, key] of await uploads()) await s3.abortMultipartUpload(bucket, key, uploadId);
      await s3.removeObjects(bucket, await objects());
      await s3.removeBucket(bucket);
    },
  };
}

/** A mesh with a look into its store. */
export interface FileMesh extends FlowMesh {
  /** Stands before the titles of its tests. */
  files: 'disk' | 's3';
  store: StoreView;
  /** The smallest chunk that it takes, in bytes. */
  smallestChunk: number;
  /** People who have done nothing so far, and so have no uploads. */
  newPeople(count: number): Person[];
  /** Rows of the file service's tables. */
  rows<Row extends pg.QueryResultRow>(sql: string, values?: unknown[]): Promise<Row[]>;
}

export interface FileMeshOptions {
  people?: number;
  env?: NodeJS.ProcessEnv;
  /** Takes small chunks where the store does. */
  small?: boolean;
}

/** Small, and yet 2 GiB are no more than 10,000 of them. */
const smallChunk = 256 * 1024;

/** A mesh on each of these pairs of engines that is there, for the tests of a file. */
export function openedFileMeshes(
  pairs: readonly (readonly [bus: FlowMesh['bus'], files: FileMesh['files']])[],
  options: FileMeshOptions = {},
): FileMesh[] {
  const there = pairs.filter(([, files]) => files === 'disk' || s3IsThere);
  return openedTogether(
    there.map(([bus, files]) => ({
      open: () => startFileMesh(bus === 'kafka' && !kafkaIsThere ? 'embedded' : bus, files, options),
      close: (mesh: FileMesh) => mesh.stop(),
      known: { files, smallestChunk: smallestChunkOn(files, options) },
    })),
  );
}

function smallestChunkOn(files: FileMesh['files'], { small = false }: FileMeshOptions): number {
  return small && files === 'disk' ? smallChunk : 5 * mebibyte;
}

async function startFileMesh(
  bus: FlowMesh['bus'],
  files: FileMesh['files'],
  options: FileMeshOptions,
): Promise<FileMesh> {
  const { people = 40, env = {}, small = false } = options;
  const store = files === 'disk' ? await openDiskView() : openS3View(testS3());
  const smallestChunk = smallestChunkOn(files, options);
  const sizes = { MIN_CHUNK_SIZE: String(smallestChunk), CHUNK_SIZE: String(smallestChunk) };
  const mesh = await startFlowMesh(bus, {
    people,
    env: { FILES_DIR: undefined, S3_ENDPOINT: undefined, ...store.env, ...(small && sizes), ...env },
  }).catch(async (error: unknown) => {
    await store.drop();
    throw error;
  });
  const pool = new pg.Pool({ connectionString: mesh.adminDatabaseUrl, max: 2 });
  const unused = [...mesh.people];
  return {
    ...mesh,
    files,
    store,
    smallestChunk,
    newPeople(count) {
      if (unused.length < count) throw new Error('There are no more new people: start the mesh with more of them');
      return unused.splice(0, count);
    },
    rows: async <Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []) =>
      (await pool.query<Row>(sql, values)).rows,
    async stop() {
      await pool.end();
      await mesh.stop();
      await store.drop();
    },
  };
}

/** The S3 that `test/run.ts` has started. */
function testS3(): S3Access {
  return {
    endpoint: process.env.TEST_S3_ENDPOINT!,
    accessKey: process.env.TEST_S3_ACCESS_KEY!,
    secretKey: process.env.TEST_S3_SECRET_KEY!,
  };
}

/** What is in the store, and what should be there by the tables. */
export interface Stock {
  objects: string[];
  uploads: string[];
  expected: { objects: string[]; uploads: string[] };
  /** What is still to be removed. */
  removals: string[];
  /** Rows that belong to nothing: contents that no file has, and chunks of what is not open. */
  strayRows: string[];
}

/** Looks into store and tables. In a mesh at rest they agree. */
export async function takeStock({ store, rows }: Pick<FileMesh, 'store' | 'rows'>): Promise<Stock> {
  const keys = async (sql: string) => (await rows<{ key: string }>(sql)).map(({ key }) => key).toSorted();
  const open = `select file_id from file.files where status in ('initiated', 'in_progress')`;
  // First of all: what is removed while the store is looked through would be there, and not to be removed any more.
  const removals = await keys('select storage_key as key from file.removals where due_at <= now()');
  return {
    objects: await store.objects(),
    uploads: await store.uploads(),
    expected: {
      objects: await keys('select storage_key as key from file.contents'),
      uploads: await keys(`select file_id as key from (${open})`),
    },
    removals,
    strayRows: await keys(
      `select storage_key as key from file.contents c
          where not exists (select from file.files f where f.checksum = c.checksum)
        union select file_id || ' ' || chunk_id from file.chunks where file_id not in (${open})`,
    ),
  };
}

/** Waits until what is to be removed is gone, and returns what there is then. */
export function stockAtRest(mesh: Pick<FileMesh, 'store' | 'rows'>): Promise<Stock> {
  return eventually(
    'everything is removed',
    () => takeStock(mesh),
    ({ removals }) => removals.length === 0,
  );
}

/** The files below a folder that this process has open. Only Linux tells; elsewhere none. */
export async function openFiles(folder: string): Promise<string[]> {
  const own = '/proc/self/fd';
  const numbers = await readdir(own).catch(() => []);
  const places = await Promise.all(numbers.map((number) => readlink(path.join(own, number)).catch(() => '')));
  return places.filter((place) => place.startsWith(`${folder}${path.sep}`));
}

/** Waits until nothing is left in the store under a key: neither an object nor an upload. */
export async function isFreed({ store }: Pick<FileMesh, 'store'>, key: string): Promise<void> {
  const remains = async () =>
    [...(await store.objects()), ...(await store.uploads([key]))].filter((name) => name.startsWith(key));
  await eventually(`nothing is left of ${key}`, remains, (names) => names.length === 0);
}

/** Declares tests that run one after the other, beside those that others declare so. */
export function inTurn(limit: number): (title: string, run: (t: ExecutionContext) => Promise<void>) => void {
  let last: Promise<unknown> = Promise.resolve();
  return (title, run) => {
    const before = last;
    const ended = Promise.withResolvers<void>();
    last = ended.promise;
    test(title, async (t) => {
      t.timeout(limit);
      await before;
      try {
        await run(t);
      } finally {
        ended.resolve();
      }
    });
  };
}
