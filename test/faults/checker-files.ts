import type { Breach } from './breach.ts';
import type { Observations } from './observations.ts';

/** Completed files read as they were uploaded, and the store has nothing that no file needs. */
export function checkFiles({ journal, files, downloads }: Observations, uploadLifetime: number): Breach[] {
  const breaches: Breach[] = [];
  // Of what a folder has, nothing goes. A MinIO that is killed while it assembles an object may forget its parts.
  const isFolder = files.unfinished.keys !== undefined;
  for (const { fileId, checksum, told, again } of journal.files) {
    const found = downloads.get(fileId);
    if (again > 0 && isFolder)
      breaches.push({ rule: 'file lost', text: `${fileId}: chunks that had been taken were missing` });
    if (told !== 'completed')
      breaches.push({ rule: 'file lost', text: `${fileId} was uploaded, and refused: ${told}` });
    else if (found !== checksum)
      breaches.push({ rule: 'file lost', text: `${fileId} was completed, and reads: ${found}` });
  }
  const stored = new Set(files.objects);
  const needed = new Set(files.rows.flatMap(({ storageKey }) => (storageKey === null ? [] : [storageKey])));
  const open = files.rows.filter(({ status }) => status === 'initiated' || status === 'in_progress');
  const openIds = new Set(open.map(({ fileId }) => fileId));
  // One that is being completed has its object already.
  for (const fileId of openIds) needed.add(fileId);
  // It is known that it is to go.
  for (const key of files.laterRemovals) needed.add(key);
  for (const { fileId, status, storageKey } of files.rows) {
    if (status === 'completed' && (storageKey === null || !stored.has(storageKey))) {
      breaches.push({ rule: 'file lost', text: `${fileId} is completed, and ${storageKey} is not in the store` });
    }
  }
  for (const key of stored) {
    if (!needed.has(key)) breaches.push({ rule: 'orphan', text: `object ${key} is in the store, and no file has it` });
  }
  for (const key of files.unusedContents) breaches.push({ rule: 'orphan', text: `content ${key} belongs to no file` });
  for (const key of files.removals)
    breaches.push({ rule: 'orphan', text: `${key} is still to be removed from the store` });
  for (const { fileId, idle } of open) {
    if (idle > uploadLifetime) {
      breaches.push({
        rule: 'orphan',
        text: `upload ${fileId} is still open ${Math.round(idle / 1_000)} s after the last chunk`,
      });
    }
  }
  const { count, keys } = files.unfinished;
  // What the store was asked to open, and may have opened after it was given up: that is looked at once more later.
  const late = new Set(files.laterRemovals);
  for (const key of keys ?? []) {
    if (!openIds.has(key) && !late.has(key))
      breaches.push({ rule: 'orphan', text: `parts of ${key} are in the store, and it is not open` });
  }
  // One whose beginner was killed before it wrote down what the store had opened is open, until its time is up.
  if (keys === undefined && count > open.length + late.size) {
    breaches.push({
      rule: 'orphan',
      text: `${count} uploads are unfinished in the store, ${open.length} are open, and ${late.size} may have been late`,
    });
  }
  return breaches;
}
