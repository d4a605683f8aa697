import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { access, constants, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { testFiles } from './order.ts';

/**
 * `node test/node-alone.ts`: tests with Node alone, as on a machine that has nothing else: no Java, Go, Python or browser, and
 * no engine that was built before. It ends as `test/run.ts` does, with the line that counts the tests.
 *
 * Not all files: those in which a test is skipped there, found by loading all of them. That suffices. Any other file
 * declares the same tests that it declares elsewhere, or leaves out those on another engine, and runs the same code in those
 * that are left; what can go wrong where a program is missing goes wrong in the files that ask for one.
 */

const root = path.resolve(import.meta.dirname, '..');
/** Beside Node and npm: a shell, git, and what is in coreutils and the like. */
const programs = `node npm npx bash sh env git which su ps id kill sed awk grep find xargs tar gzip
  ls cat cp mv rm mkdir rmdir ln chmod chown touch stat readlink mktemp dirname basename head tail sort uniq tr cut wc tee
  uname sleep date test true false echo printf expr`.split(/\s+/);
const loadLimit = 100_000;

process.exitCode = await main();

async function main(): Promise<number> {
  await using cleanUp = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-node-alone-'));
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  const bin = path.join(folder, 'bin');
  await mkdir(bin);
  for (const name of programs) {
    const at = await find(name);
    if (at !== undefined) await symlink(at, path.join(bin, name));
  }
  const env = { PATH: bin, HOME: folder, XDG_CACHE_HOME: path.join(folder, 'cache'), TERM: 'dumb' };
  const files = await whichSkip(env);
  if (files.length === 0) throw new Error('No test file skips anything with Node alone: that can hardly be');
  console.log(`With Node alone, ${files.length} files:\n${files.map((file) => `  ${file}\n`).join('')}`);
  const child = spawn(process.execPath, [path.join(root, 'test/run.ts'), ...files], {
    cwd: root,
    env,
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  const [code] = (await once(child, 'exit')) as [number | null];
  return code ?? 1;
}

/** Where a program is that this process finds on its PATH. */
async function find(name: string): Promise<string | undefined> {
  for (const folder of (process.env['PATH'] ?? '').split(path.delimiter)) {
    const at = path.join(folder, name);
    if (
      await access(at, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return at;
  }
  return undefined;
}

/** The test files in which tests are skipped there. */
async function whichSkip(env: Record<string, string>): Promise<string[]> {
  const allowed = ['--permission', '--allow-fs-read=*', '--allow-addons', '--allow-child-process', '--no-warnings'];
  const args = [...allowed, path.join(root, 'test/loading.ts'), '--skipped', ...globSync(testFiles, { cwd: root })];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, env, timeout: loadLimit });
  return stdout.split('\n').flatMap((line) => /^(.*): skips \d+$/.exec(line)?.[1] ?? []);
}
