import { execFileSync } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** `npm run client:build`: the package `@chat4all/client`, and what is told of its API in client/api.md. */

const root = path.resolve(import.meta.dirname, '../..');
/** Where the API of the package is written down. */
export const apiFile = 'client/api.md';

/** Compiles the client: `.js`, and `.d.ts` beside it. @param folder where to; emptied before */
export function buildClient(folder: string, options: readonly string[] = []): void {
  rmSync(folder, { recursive: true, force: true });
  const project = path.join(root, 'client/tsconfig.build.json');
  const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
  execFileSync(process.execPath, [compiler, '-p', project, '--outDir', folder, ...options], { stdio: 'inherit' });
  for (const name of globSync('**/*.d.ts', { cwd: folder })) {
    const file = path.join(folder, name);
    // The compiler does that in what it makes of the code only.
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll(/(from '\.[^']*)\.ts'/g, "$1.js'"));
  }
}

/** All that the package exports, as TypeScript declares it, without comments. */
export function apiReport(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'chat4all-api-'));
  try {
    buildClient(folder, ['--emitDeclarationOnly', '--removeComments']);
    const texts = new Map<string, string>();
    /** What a file declares, and what that is made of. What nothing leads to is no part of the API. */
    const add = (file: string) => {
      if (texts.has(file)) return;
      const text = readFileSync(path.join(folder, file), 'utf8').trim();
      texts.set(file, text);
      for (const [, imported] of text.matchAll(/from '(\.[^']*)\.js'/g)) {
        add(path.posix.join(path.posix.dirname(file), `${imported}.d.ts`));
      }
    };
    for (const file of ['client.d.ts', ...globSync('gen/**/*.pb.d.ts', { cwd: folder }).toSorted()]) add(file);
    const parts = [...texts].map(([file, text]) => `## ${file}\n\n\`\`\`ts\n${text}\n\`\`\`\n`);
    return `<!-- Made by dev/client/package.ts: \`npm run generate\`. -->

# The API of \`@chat4all/client\`

What the package declares. A change of it is a change for those who use it: read its diff as such.

${parts.join('\n')}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function writeApi(): void {
  writeFileSync(path.join(root, apiFile), apiReport());
}

/** @throws Error if the API isn't what client/api.md says of it */
export function checkApi(): void {
  if (readFileSync(path.join(root, apiFile), 'utf8') === apiReport()) return;
  throw new Error(
    `${apiFile} tells of another API: \`npm run generate\` writes it, and its diff is what changes for users`,
  );
}

if (import.meta.main) buildClient(path.join(root, 'client/dist'));
