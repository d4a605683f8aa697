import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';

/** `npm run console:build`: the console's files as the gateway serves them. They are committed (decision 44). */

const root = path.resolve(import.meta.dirname, '..');
/** Where the gateway finds them, below the root of the project. */
export const consoleFiles = 'console/dist';

/**
 * Bundles the console: one script and one style sheet, whose names have a hash of their content, and the page that loads them.
 *
 * @param folder where to; emptied before
 */
export async function buildConsole(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['console/main.tsx', 'console/main.css'],
    outdir: path.join(folder, 'assets'),
    entryNames: '[name]-[hash]',
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    legalComments: 'none',
    tsconfig: path.join(root, 'console/tsconfig.json'),
    metafile: true,
    logLevel: 'warning',
  });
  const nameOf = (extension: string) => {
    const names = Object.keys(metafile.outputs).filter((name) => name.endsWith(extension));
    if (names.length !== 1) throw new Error(`There must be one ${extension} file, not ${names.join(', ')}`);
    return path.basename(names[0]!);
  };
  const template = readFileSync(path.join(root, 'console/index.html'), 'utf8');
  const page = template.replace('{{style}}', nameOf('.css')).replace('{{script}}', nameOf('.js'));
  writeFileSync(path.join(folder, 'index.html'), page);
}

if (import.meta.main) await buildConsole(path.join(root, consoleFiles));
