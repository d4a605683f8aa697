import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

/** `npm run console:build`: the console's files as the gateway serves them. They are committed (decision 44). */

const root = path.resolve(import.meta.dirname, '..');
/** Where the gateway finds them, below the root of the project. */
export const consoleFiles = 'console/dist';

/**
 * Bundles the console: a script, a style sheet and the script of a worker, whose names have a hash of their content, and the page that
 * loads them.
 *
 * @param folder where to; emptied before
 */
export async function buildConsole(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const worker = await bundle('console/messages/checksum-worker.ts', folder);
  const script = await bundle('console/main.tsx', folder, { checksumWorkerUrl: `/console/assets/${worker}` });
  const style = await bundle('console/main.css', folder);
  const template = readFileSync(path.join(root, 'console/index.html'), 'utf8');
  writeFileSync(path.join(folder, 'index.html'), template.replace('{{style}}', style).replace('{{script}}', script));
}

/** @param texts by the names that stand for them in the source. @returns the name of the bundle in the folder of assets */
async function bundle(source: string, folder: string, texts: Readonly<Record<string, string>> = {}): Promise<string> {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [source],
    outdir: path.join(folder, 'assets'),
    entryNames: '[name]-[hash]',
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    legalComments: 'none',
    tsconfig: path.join(root, 'console/tsconfig.json'),
    define: Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, JSON.stringify(text)])),
    metafile: true,
    logLevel: 'warning',
  });
  const names = Object.keys(metafile.outputs);
  if (names.length !== 1) throw new Error(`${source} must become one file, not ${names.join(', ')}`);
  return path.basename(names[0]!);
}

if (import.meta.main) await buildConsole(path.join(root, consoleFiles));
