import path from 'node:path';

/** All test files, below the root of the project. */
export const testFiles = '{bin,client,console,lib,services,gateway,dev,test}/**/*.test.ts';

/**
 * The files that take longest, the longest first: they begin before all others, so that none of them is left to run alone at
 * the end. Two files run at once. Of these two lists one is taken from each in turn, so that what waits most of its time, for
 * what it has killed or for a deadline, runs beside what computes.
 */
const waiting = [
  'test/flows/file-outages.test.ts',
  'test/flows/networks.test.ts',
  'test/flows/dead-letters.test.ts',
  'test/flows/file-lifetimes.test.ts',
  'lib/bus/kafka.test.ts',
  'lib/bus/postgres.test.ts',
  'bin/rotation.test.ts',
  'dev/supervisor.test.ts',
];
const computing = [
  'test/documents.test.ts',
  'test/deployment.test.ts',
  'test/flows/large-file.test.ts',
  'test/flows/files.test.ts',
  'test/flows/load.test.ts',
  'console/messages/messages.test.ts',
  'console/dashboard/dashboard.test.ts',
  'console/shell/session.test.ts',
  'console/assistant/assistant.test.ts',
  'test/flows/refusals.test.ts',
  'test/access.test.ts',
  'test/architecture.test.ts',
  'gateway/calls/upload.test.ts',
  'test/flows/file-refusals.test.ts',
];

/**
 * Files that each keep several processes busy and promise that something happens in time: a run of all tests has them one after
 * the other, before the rest. Beside another of their kind they would measure the machine.
 */
export const alone: readonly string[] = [
  'test/faults/faults.test.ts',
  'test/flows/restarts.test.ts',
  'test/flows/outages.test.ts',
  'test/flows/hostile-crowd.test.ts',
  // Its bounds of time are those of the release, and can't be mended.
  'test/previous-release.test.ts',
  // Up to thirty containers.
  'test/containers/containers.test.ts',
];

/** Below the root of the project. */
export const first: readonly string[] = computing.flatMap((file, index) => [waiting[index] ?? [], file].flat());

const root = path.resolve(import.meta.dirname, '..');

/** Compares two test files, as `toSorted` wants it: those above in their order, then all others by their names. */
export function inOrder(a: string, b: string): number {
  const places = [a, b].map((file) => first.indexOf(path.relative(root, file).split(path.sep).join('/')));
  const [placeA, placeB] = places.map((place) => (place < 0 ? first.length : place)) as [number, number];
  return placeA - placeB || (a < b ? -1 : 1);
}
