import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registry } from '#lib/rpc/schema.ts';
import { hubRules } from '../gateway/dialects/hub/rules.ts';
import { readRoutes } from '../gateway/rules/bindings.ts';
import { documentOf } from '../gateway/own-routes.ts';
import { checkApi } from './client/package.ts';
import { buildConsole, consoleFiles } from './console.ts';
import { checkDocuments } from './documents.ts';
import { generate, made, testProtos } from './generate.ts';
import { checkLicences } from './licences.ts';
import { checkPages } from './reference/pages.ts';

/** `npm run check`: all static checks. Each says what to do if it fails. */
const checks: [name: string, run: () => Promise<void>][] = [
  ['format (npm run format mends it)', () => command('prettier', ['--check', '--log-level', 'warn', '.'])],
  ['lint and import rules', () => command('oxlint', ['--config', 'oxlint.config.ts'])],
  ['types', () => command('tsc', ['-p', '.'])],
  ['types of the client in a browser', () => command('tsc', ['-p', 'client'])],
  ['types of the console', () => command('tsc', ['-p', 'console'])],
  ['buf lint', () => command('buf', ['lint'])],
  ['buf format (npm run format mends it)', () => command('buf', ['format', '-d', '--exit-code'])],
  ['buf format of test/protos', () => command('buf', ['format', '-d', '--exit-code', ...testProtos])],
  ['buf breaking, against main or the commit before', breaking],
  ['generated code (npm run generate mends it)', compareGenerated],
  ['API of the client (npm run generate writes client/api.md)', async () => checkApi()],
  ['reference pages and .env.example (npm run generate writes them)', checkPages],
  ['links of documents, marks of their shell blocks', async () => checkDocuments()],
  ['files of the console (npm run console:build writes them)', compareConsole],
  ['OpenAPI', lintOpenApi],
  ['licences of dependencies (npm run licences writes the list)', async () => checkLicences()],
];

let failed = 0;
for (const [name, run] of checks) {
  try {
    await run();
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
process.exitCode = failed === 0 ? 0 : 1;

function command(name: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: 'inherit', env: { ...process.env, ...env } });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${name} ended with ${code}`))));
  });
}

/** Compares with main, or on main itself with the previous commit; a clone may have main only as origin/main. */
async function breaking(): Promise<void> {
  const commit = (ref: string) => {
    try {
      return execFileSync('git', ['rev-parse', '--verify', '--quiet', ref], { encoding: 'utf8' }).trim();
    } catch {
      return undefined;
    }
  };
  const main = commit('refs/heads/main') ?? commit('refs/remotes/origin/main');
  const base = main === commit('HEAD') ? commit('HEAD^') : main;
  if (base === undefined) throw new Error('there is no earlier commit to compare with');
  await command('buf', ['breaking', '--against', `.git#ref=${base}`]);
}

/** Generates into a scratch folder and compares, so that a check never changes the tree. */
async function compareGenerated(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'chat4all-gen-'));
  try {
    await generate(folder);
    for (const path of made) await command('diff', ['-r', '--brief', path, join(folder, path)]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The committed files of the console are what its source makes. */
async function compareConsole(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'chat4all-console-'));
  try {
    await buildConsole(folder);
    await command('diff', ['-r', '--brief', consoleFiles, folder]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Lints the document that the gateway of the whole hub serves. */
async function lintOpenApi(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'chat4all-openapi-'));
  try {
    const file = join(folder, 'openapi.json');
    await writeFile(
      file,
      JSON.stringify(
        documentOf(
          readRoutes(registry, () => true, hubRules),
          registry,
        ),
        undefined,
        2,
      ),
    );
    const quiet = { REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', REDOCLY_TELEMETRY: 'off' };
    await command('redocly', ['lint', file, '--config', 'redocly.yaml', '--format', 'stylish'], quiet);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
