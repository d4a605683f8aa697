import type { TestFn } from 'ava';
import { open, readAll, write, type Check, type Engine } from './contract/fixtures.ts';
import { assemblingContract } from './contract/assembling.ts';
import { memoryContract } from './contract/memory.ts';
import { readingContract } from './contract/reading.ts';
import { uploadingContract } from './contract/uploading.ts';

export interface ContractOptions {
  /** A prefix of all titles. */
  prefix?: string;
  /** Titles of tests that this store is known to fail, and that are left out. */
  without?: readonly string[];
}

/** The contract of a store of contents. Each test has keys of its own, so that they may run at once. */
export function storageContract(test: TestFn, engine: Engine, options: ContractOptions = {}): void {
  const { prefix = '', without = [] } = options;
  const check: Check = (title, run) => {
    if (!without.includes(title)) test(`${prefix}${title}`, run);
  };

  memoryContract(test, engine, prefix);

  check('ping: a store that is there answers', async (t) => {
    await t.notThrowsAsync((await open(t, engine)).ping());
  });

  check('a key that is no name is refused everywhere', async (t) => {
    const storage = await open(t, engine);
    for (const key of ['', '.', '..', 'a/b', '../a', 'a\0', 'a.b', 'ä', 'a b', 'a%2Fb', 'a\n', 'x'.repeat(65)]) {
      const upload = { key, uploadId: 'x' };
      const works = [
        () => storage.open(key),
        () => write(storage, upload, 0, Buffer.from('x')),
        () => storage.parts(upload),
        () => storage.assemble(upload, 0),
        () => storage.size(key),
        () => readAll(storage, key, 0, 1),
        () => storage.remove(key),
        ...(storage.partUrl === undefined ? [] : [() => storage.partUrl!(upload, 0, 1, 60)]),
      ];
      for (const work of works) await t.throwsAsync<Error>(work, { instanceOf: TypeError, message: /is no key/ });
    }
  });

  uploadingContract(check, engine);
  readingContract(check, engine);
  assemblingContract(check, engine);
}
