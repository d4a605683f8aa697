import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { commandsPage } from './commands.ts';
import { configurationPage, envExample } from './configuration.ts';
import { errorsPage } from './errors.ts';
import { metricsPage } from './metrics.ts';

const root = path.resolve(import.meta.dirname, '../..');

/** The documents that are made of declarations, each by its path. */
async function pages(): Promise<Map<string, string>> {
  return new Map([
    ['docs/reference-configuration.md', await configurationPage()],
    ['.env.example', await envExample()],
    ['docs/reference-errors.md', errorsPage()],
    ['docs/reference-metrics.md', await metricsPage()],
    ['docs/reference-commands.md', await commandsPage()],
  ]);
}

export async function writePages(): Promise<void> {
  for (const [file, text] of await pages()) writeFileSync(path.join(root, file), text);
}

/** @throws Error naming the committed documents that differ from what the declarations say now */
export async function checkPages(): Promise<void> {
  const different = [...(await pages())].filter(([file, text]) => readFileSync(path.join(root, file), 'utf8') !== text);
  if (different.length > 0) throw new Error(`${different.map(([file]) => file).join(', ')}: out of date`);
}
