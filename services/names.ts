import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';

/** The services that there are: the folders beside this file with an index.ts. */
export const serviceNames: readonly string[] = readdirSync(import.meta.dirname)
  .filter((name) => existsSync(path.join(import.meta.dirname, name, 'index.ts')))
  .toSorted();
