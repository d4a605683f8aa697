import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { Breaker } from '#lib/breaker.ts';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { startLapsing, startRemoving } from './cleaning.ts';
import type { File } from './file.ts';
import { openDiskStorage } from './storage/disk.ts';
import { unavailable } from './storage/failures.ts';
import type { Storage } from './storage/storage.ts';
import { database } from './database.ts';
import { openStore, type NewFile, type Store } from './store.ts';
import { openUploads } from './uploads.ts';

const hub = opened(openHarness, (hub) => hub.stop());
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('file'), poolSize: 3, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);
const folder = openedFolder('chat4all-');
const disk = openDiskStorage({ folder });
const log = openLog({ name: 'test', format: 'json', level: 'info', destination: { write: () => {} } });

const mebibyte = 1024 * 1024;
const limits = {
  maxFileBytes: 2048 * mebibyte,
  minChunkBytes: mebibyte,
  maxChunkBytes: 64 * mebibyte,
  defaultChunkBytes: 8 * mebibyte,
  openUploads: 10,
};

function newFile(): NewFile {
  return {
    fileId: uuid(),
    ownerId: uuid(),
    filename: 'holiday.jpg',
    fileSize: 5 * mebibyte,
    contentType: 'image/jpeg',
    expectedChecksum: null,
    chunkSize: 8 * mebibyte,
    chunkCount: 1,
    createdAt: new Date(),
  };
}

const asIs = async (begun: File) => begun;

test.serial(
  'begin: of an upload whose beginning can not be answered nothing stays, and none counts as open',
  async (t) => {
    const uploads = openUploads({ store, storage: disk, limits, log, onRemoval: () => {} });
    const [first, ...files] = Array.from({ length: limits.openUploads + 2 }, newFile);
    const { ownerId } = first!;
    const fails = () => Promise.reject(unavailable(new Error('no keys')));
    for (const file of files) {
      await t.throwsAsync(uploads.begin({ ...file, ownerId }, fails), { message: /not available/ });
      t.is(await store.find(file.fileId), undefined);
      t.truthy(await removalOf(file.fileId));
    }
    // Processes that died while they opened them.
    for (const file of files.slice(0, limits.openUploads)) {
      const createdAt = new Date(Date.now() - 61_000);
      t.true(await store.begin({ ...file, ownerId, createdAt }, limits.openUploads));
    }
    t.like(await uploads.begin(first!, asIs), { status: 'initiated' });
    await db.sql('delete from removals');
  },
);

test.serial('begin: what the store opens though it had not answered is removed, too', async (t) => {
  const file = newFile();
  const opened = path.join(folder, 'uploads', file.fileId);
  let looks = 0;
  // As one that was frozen: it does what it was asked to, but after it was first asked to remove it.
  const late: Storage = {
    ...disk,
    open: () => Promise.reject(unavailable(new Error('no answer'))),
    async remove(key) {
      await disk.remove(key);
      if (key === file.fileId && looks++ === 0) await disk.open(key);
    },
  };
  const removing = startRemoving({ store, storage: late, log, lifetimeMs: 500 });
  t.teardown(() => removing.stop());
  const uploads = openUploads({ store, storage: late, limits, log, onRemoval: () => removing.wake() });
  await t.throwsAsync(uploads.begin(file, asIs), { message: /not available/ });
  t.is(await store.find(file.fileId), undefined);

  await eventually(
    'it is looked for',
    () => looks,
    (count) => count === 1,
  );
  t.true(existsSync(opened));
  await eventually(
    'it is looked for again',
    () => {
      removing.wake();
      return looks;
    },
    (count) => count === 2,
  );
  await eventually(
    'nothing is left to be removed',
    () => db.sql('select from removals where storage_key = $1', [file.fileId]),
    (rows) => rows.length === 0,
  );
  t.false(existsSync(opened));
});

/** The removals of a replica: a process of its own would do nothing else. */
function startReplica(t: ExecutionContext, storage: Storage, lifetime = 60_000, given = store) {
  const lines: Record<string, unknown>[] = [];
  const replicaLog = openLog({
    name: 'test',
    format: 'json',
    level: 'info',
    destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
  });
  const removing = startRemoving({ store: given, storage, log: replicaLog, lifetimeMs: lifetime });
  t.teardown(() => removing.stop());
  return { removing, lines };
}

/** How a key is to be removed. */
async function removalOf(key: string) {
  const [row] = await db.sql<{ again: boolean; attempts: number; isHeld: boolean }>(
    'select again, attempts, held_by is not null as "isHeld" from removals where storage_key = $1',
    [key],
  );
  return row;
}

test.serial(
  'two replicas: what the store opens late is removed, also if both were looking while it was frozen',
  async (t) => {
    const file = newFile();
    const thawed = Promise.withResolvers<void>();
    let looks = 0;
    const frozen: Storage = {
      ...disk,
      open: () => Promise.reject(unavailable(new Error('no answer'))),
      async remove(key) {
        if (key !== file.fileId) return disk.remove(key);
        looks += 1;
        await thawed.promise;
        await disk.remove(key);
      },
    };
    const replicas = [startReplica(t, frozen, 500), startReplica(t, frozen, 500)];
    const wake = () => replicas.forEach(({ removing }) => removing.wake());
    const uploads = openUploads({ store, storage: frozen, limits, log, onRemoval: wake });
    await t.throwsAsync(uploads.begin(file, asIs), { message: /not available/ });
    // Each of them has looked for what is due once it is there for something that was written down later.
    const other = uuid();
    await db.sql('insert into removals (storage_key, due_at, again) values ($1, now(), false)', [other]);
    await eventually(
      'both have looked',
      async () => {
        wake();
        return { looks, other: await removalOf(other) };
      },
      (found) => found.looks > 0 && found.other === undefined,
    );
    t.is(looks, 1);

    thawed.resolve();
    await eventually(
      'it was looked for once',
      () => removalOf(file.fileId),
      (row) => row?.again === false,
    );
    // Only now the store does what it was asked to.
    await disk.open(file.fileId);
    await eventually(
      'it was looked for again',
      async () => {
        wake();
        return removalOf(file.fileId);
      },
      (row) => row === undefined,
    );
    t.false(existsSync(path.join(folder, 'uploads', file.fileId)));
  },
);

test.serial('a removal that somebody else has taken over meanwhile is not crossed out', async (t) => {
  const key = uuid();
  const [one, other] = [uuid(), uuid()];
  await db.sql('insert into removals (storage_key, due_at, again) values ($1, now(), true)', [key]);
  t.deepEqual(await store.holdRemovals({ by: one, ms: 1 }, 10), [{ storageKey: key, attempts: 0 }]);
  const taken = await eventually(
    'the lease has run out',
    () => store.holdRemovals({ by: other, ms: 60_000 }, 10),
    (found) => found.length > 0,
  );
  t.deepEqual(taken, [{ storageKey: key, attempts: 0 }]);
  await store.removed(key, one, 60_000);
  await store.releaseRemoval(key, one, 0, 1);
  t.deepEqual(await removalOf(key), { again: true, attempts: 0, isHeld: true });
  await store.releaseRemoval(key, other, 60_000, 1);
  t.deepEqual(await removalOf(key), { again: true, attempts: 1, isHeld: false });
  t.deepEqual(await store.holdRemovals({ by: one, ms: 60_000 }, 10), [], 'nobody tries it before its time');
  await db.sql('update removals set held_until = now() where storage_key = $1', [key]);
  t.is((await store.holdRemovals({ by: other, ms: 60_000 }, 10)).length, 1);
  await store.removed(key, other, 0);
  t.deepEqual(await removalOf(key), { again: false, attempts: 0, isHeld: false });
  t.is((await store.holdRemovals({ by: other, ms: 60_000 }, 10)).length, 1);
  await store.removed(key, other, 0);
  t.is(await removalOf(key), undefined);
});

test.serial('what is written down for removal while somebody removes it is removed once more', async (t) => {
  const file = newFile();
  t.true(await store.begin(file, 10));
  t.true(await store.fail(file.fileId, 'given up'));
  const by = uuid();
  t.is((await store.holdRemovals({ by, ms: 60_000 }, 10)).length, 1);
  // A chunk that came into the store after that had been looked through.
  t.is(await store.recordChunk(file.fileId, { chunkId: 0, size: 1, uploadedAt: new Date() }), undefined);
  await store.removed(file.fileId, by, 0);
  const next = await store.holdRemovals({ by, ms: 60_000 }, 10);
  t.deepEqual(next, [{ storageKey: file.fileId, attempts: 0 }]);
  await store.removed(file.fileId, by, 0);
  t.is(await removalOf(file.fileId), undefined);
});

test.serial('keys that can not be removed hold up no other, and are tried less and less often', async (t) => {
  const broken = Array.from({ length: 25 }, () => uuid());
  const tries: string[] = [];
  const storage: Storage = {
    ...disk,
    async remove(key) {
      tries.push(key);
      if (broken.includes(key)) throw unavailable(new Error('not permitted'));
      await disk.remove(key);
    },
  };
  const good = Array.from({ length: 25 }, () => uuid());
  await db.sql(
    `insert into removals (storage_key, due_at, again)
      select unnest($1::text[]), now() - interval '1 hour', false union all select unnest($2::text[]), now(), false`,
    [broken, good],
  );
  const pauses = new Map<string, number[]>();
  const noting: Store = {
    ...store,
    async releaseRemoval(key, by, pause, failures) {
      pauses.set(key, [...(pauses.get(key) ?? []), pause]);
      await store.releaseRemoval(key, by, pause, failures);
    },
  };
  const { removing, lines } = startReplica(t, storage, 60_000, noting);
  await eventually(
    'the others are removed',
    () => db.sql('select from removals where storage_key = any($1)', [good]),
    (rows) => rows.length === 0,
  );
  t.is(new Set(tries).size, 50);
  await eventually(
    'each was tried again',
    () => {
      removing.wake();
      return broken.map((key) => pauses.get(key)?.length ?? 0);
    },
    (counts) => counts.every((count) => count >= 2),
  );
  for (const key of broken) t.deepEqual(pauses.get(key)!.slice(0, 2), [1_000, 2_000]);
  t.true(lines.some(({ msg, failed }) => msg === 'not removed from the store' && failed === 10));
  await db.sql('delete from removals where storage_key = any($1)', [broken]);
});

test.serial(
  'while the whole store is away no removal counts as failed, and all are made once it is back',
  async (t) => {
    const keys = Array.from({ length: 5 }, () => uuid());
    let isAway = true;
    let refused = 0;
    const storage: Storage = {
      ...disk,
      async remove(key) {
        if (isAway) refused += 1;
        if (isAway) throw unavailable(new Error('away'));
        await disk.remove(key);
      },
      async ping() {
        if (isAway) throw unavailable(new Error('away'));
      },
    };
    await db.sql('insert into removals (storage_key, due_at, again) select unnest($1::text[]), now(), false', [keys]);
    startReplica(t, storage);
    await eventually(
      'it was tried several times',
      () => refused,
      (count) => count >= 3 * keys.length,
    );
    const attempts = await db.sql<{ attempts: number }>('select attempts from removals where storage_key = any($1)', [
      keys,
    ]);
    t.deepEqual(
      attempts.map((row) => row.attempts),
      keys.map(() => 0),
    );
    isAway = false;
    await eventually(
      'all are removed',
      () => db.sql('select from removals where storage_key = any($1)', [keys]),
      (rows) => rows.length === 0,
    );
  },
);

test.serial('begin: what the store was never asked for leaves nothing to be removed', async (t) => {
  const breaker = new Breaker({ name: 'test', reason: 'STORE_UNAVAILABLE', minSpanMs: 0, pauseMs: 60_000 });
  let asked = 0;
  const storage: Storage = {
    ...disk,
    open: () =>
      breaker.run(async () => {
        asked += 1;
        throw unavailable(new Error('no answer'));
      }),
  };
  const uploads = openUploads({ store, storage, limits, log, onRemoval: () => {} });
  const files = Array.from({ length: 20 }, newFile);
  for (const file of files) {
    await t.throwsAsync(uploads.begin(file, asIs), { message: /not available/ });
    t.is(await store.find(file.fileId), undefined);
  }
  t.is(asked, 5);
  const written = await db.sql<{ key: string }>('select storage_key as key from removals where storage_key = any($1)', [
    files.map(({ fileId }) => fileId),
  ]);
  t.deepEqual(
    written.map(({ key }) => key).toSorted(),
    files
      .slice(0, asked)
      .map(({ fileId }) => fileId)
      .toSorted(),
  );
  await db.sql('delete from removals');
});

test.serial('an upload is completed, failed and let go of only by who holds it', async (t) => {
  const file = newFile();
  const { fileId } = file;
  t.true(await store.begin(file, 10));
  t.true(await store.opened(fileId, 'upload'));
  const [one, other] = [uuid(), uuid()];
  const long = 60_000;
  const checksum = fileId.replaceAll('-', '').repeat(2);
  t.true(await store.holdCompletion(fileId, { by: one, ms: long }));
  t.true(await store.holdCompletion(fileId, { by: one, ms: long }), 'it is kept by being held again');
  t.false(await store.holdCompletion(fileId, { by: other, ms: long }));
  t.false(await store.fail(fileId, 'Nothing was uploaded'));
  t.false(await store.fail(fileId, 'It is wrong', other));
  t.false(await store.complete(fileId, other, checksum, undefined));
  await store.releaseCompletion(fileId, other);
  const idle = await store.idle(new Date(Date.now() + long), 100);
  t.deepEqual(idle.filter((each) => each.fileId === fileId), [], 'the sweep leaves it alone'); // prettier-ignore

  // Its holder was frozen for longer than it held it.
  await store.holdCompletion(fileId, { by: one, ms: 1 });
  await eventually(
    'it can be taken over',
    () => store.holdCompletion(fileId, { by: other, ms: long }),
    (held) => held,
  );
  t.false(await store.complete(fileId, one, checksum, undefined));
  t.false(await store.fail(fileId, 'It is wrong', one));
  await store.releaseCompletion(fileId, one);
  t.false(await store.holdCompletion(fileId, { by: one, ms: long }));
  t.like(await store.find(fileId), { status: 'initiated', checksum: null });
  t.is(await store.findContent(checksum), undefined);
  t.true(await store.complete(fileId, other, checksum, undefined));
  t.like(await store.find(fileId), { status: 'completed', checksum });
  t.false(await store.complete(fileId, other, checksum, undefined), 'once');
});

test.serial('complete: of two that hold an upload one after the other, only the last one completes it', async (t) => {
  const content = Buffer.from('what was uploaded');
  const file = { ...newFile(), fileSize: content.byteLength };
  const reading = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  // As a process that was frozen in the middle of it.
  const slow: Storage = {
    ...disk,
    async *read(...given) {
      reading.resolve();
      await goOn.promise;
      yield* disk.read(...given);
    },
  };
  const options = { store, limits, log, onRemoval: () => {} };
  const [frozen, next] = [openUploads({ ...options, storage: slow }), openUploads({ ...options, storage: disk })];
  const begun = await next.begin(file, asIs);
  async function* bytes() {
    yield content;
  }
  const chunk = { chunkId: 0, contentDigest: '', announced: content.byteLength, bytes: bytes() };
  await next.put(begun, chunk, new AbortController().signal);
  const checksum = createHash('sha256').update(content).digest('hex');
  const complete = (uploads: typeof next) =>
    uploads.complete(file.fileId, file.ownerId, checksum, new AbortController().signal);
  const first = complete(frozen);
  await reading.promise;
  await db.sql(`update files set completing_by = $2, completing_until = now() where file_id = $1`, [
    file.fileId,
    uuid(),
  ]);
  t.like(await complete(next), { status: 'completed', checksum });
  const { updatedAt } = (await store.find(file.fileId))!;
  goOn.resolve();
  t.like(await t.throwsAsync(first), { reason: 'UPLOAD_COMPLETING' });
  t.like(await store.find(file.fileId), { status: 'completed', checksum, updatedAt });
});

test.serial(
  'complete: what reads back otherwise than it was said is failed, and never shown as completed',
  async (t) => {
    const content = Buffer.from('what was uploaded');
    const checksum = createHash('sha256').update(content).digest('hex');
    // The store has taken all of it and gives something else.
    const damaged: Storage = {
      ...disk,
      async *read() {
        yield Buffer.from('what was UPLOADED');
      },
    };
    const file = { ...newFile(), fileSize: content.byteLength, expectedChecksum: checksum };
    const uploads = openUploads({ store, storage: damaged, limits, log, onRemoval: () => {} });
    const begun = await uploads.begin(file, asIs);
    async function* bytes() {
      yield content;
    }
    const signal = new AbortController().signal;
    await uploads.put(begun, { chunkId: 0, contentDigest: '', announced: undefined, bytes: bytes() }, signal);
    t.like(await t.throwsAsync(uploads.complete(file.fileId, file.ownerId, checksum, signal)), {
      reason: 'CHECKSUM_MISMATCH',
    });
    t.like(await store.find(file.fileId), { status: 'failed', checksum: null });
    t.truthy(await removalOf(file.fileId));
    await db.sql('delete from removals');
  },
);

test.serial(
  'reconcile: a chunk that came after the store was asked stays, one that the store has not goes',
  async (t) => {
    const file = newFile();
    t.true(await store.begin(file, 10));
    const asked = new Date();
    const chunk = { chunkId: 0, size: file.fileSize, uploadedAt: new Date(asked.getTime() + 1) };
    await store.recordChunk(file.fileId, chunk);
    await store.reconcile(file.fileId, [], asked);
    t.deepEqual(await store.chunks(file.fileId), [chunk]);
    await store.reconcile(file.fileId, [], new Date(asked.getTime() + 2));
    t.deepEqual(await store.chunks(file.fileId), []);
  },
);

test.serial('share: only what is completed, and not deleted after that', async (t) => {
  const file = newFile();
  const { fileId } = file;
  const conversation = uuid();
  t.true(await store.begin(file, 10));
  t.false(await store.share(fileId, conversation));
  const by = uuid();
  t.true(await store.holdCompletion(fileId, { by, ms: 60_000 }));
  t.true(await store.complete(fileId, by, fileId.replaceAll('-', '').repeat(2), undefined));
  // Whichever comes first.
  const [shared, outcome] = await Promise.all([store.share(fileId, conversation), store.delete(fileId)]);
  t.deepEqual([shared, outcome], shared ? [true, 'sent'] : [false, 'deleted']);
  t.deepEqual(await store.sharedWith(fileId, '00000000-0000-0000-0000-000000000000', 10), shared ? [conversation] : []);
  t.is(await store.find(fileId).then((found) => found !== undefined), shared);
  t.false(await store.share(uuid(), conversation));
  await db.sql('delete from removals');
});

test.serial(
  'lapsing: a file goes with the last message that it was sent in, and its content with the last file',
  async (t) => {
    const hours = (count: number) => new Date(Date.now() - count * 3_600_000);
    const retention = 24 * 3_600_000;
    const checksum = createHash('sha256').update(uuid()).digest('hex');
    const key = uuid();
    const [once, twice, unsent] = [newFile(), newFile(), newFile()];
    await db.sql('insert into contents (checksum, storage_key, size, created_at) values ($1, $2, 3, now())', [
      checksum,
      key,
    ]);
    for (const file of [once, twice, unsent]) {
      await store.begin(file, 10);
      await db.sql(`update files set status = 'completed', checksum = $2 where file_id = $1`, [file.fileId, checksum]);
    }
    const [here, there] = [uuid(), uuid()];
    const share = (file: NewFile, conversationId: string, at: Date) =>
      db.sql('insert into shares (file_id, conversation_id, shared_at) values ($1, $2, $3)', [
        file.fileId,
        conversationId,
        at,
      ]);
    await share(once, here, hours(30));
    await share(twice, here, hours(30));
    await share(twice, there, hours(30));
    t.true(await store.share(twice.fileId, there), 'sent once more');
    let removals = 0;
    const lapsing = startLapsing({ store, log, retentionMs: retention, onRemoval: () => (removals += 1) });
    t.teardown(() => lapsing.stop());
    await eventually(
      'it is gone',
      () => store.find(once.fileId),
      (file) => file === undefined,
    );
    await eventually(
      'the share of the other one',
      () => store.sharedWith(twice.fileId, '00000000-0000-0000-0000-000000000000', 10),
      (found) => found.length === 1 && found[0] === there,
    );
    t.is((await store.find(twice.fileId))?.status, 'completed');
    t.is((await store.find(unsent.fileId))?.status, 'completed', 'what was never sent is its owner\u2019s');
    t.is(removals, 1);
    t.truthy(await store.findContent(checksum));
  },
);
