import { existsSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { v4 as uuid } from 'uuid';
import { openDatabase } from '#lib/database.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { startRemoving } from './cleaning.ts';
import { openDiskStorage } from './storage/disk.ts';
import { unavailable } from './storage/failures.ts';
import type { Storage } from './storage/storage.ts';
import { database, openStore, type NewFile } from './store.ts';
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
  largestFile: 2048 * mebibyte,
  smallestChunk: mebibyte,
  largestChunk: 64 * mebibyte,
  usualChunk: 8 * mebibyte,
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

test('begin: what the store opens though it had not answered is removed, too', async (t) => {
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
  const removing = startRemoving({ store, storage: late, log, lifetime: 500 });
  t.teardown(() => removing.stop());
  const uploads = openUploads({ store, storage: late, limits, log, onRemoval: () => removing.wake() });
  await t.throwsAsync(uploads.begin(file), { message: /not available/ });
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
