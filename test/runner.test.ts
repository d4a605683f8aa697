import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { first, inOrder } from './order.ts';
import { failuresOf, slowest, type AvaRun } from './runner.ts';

const root = path.resolve(import.meta.dirname, '..');
/** Milliseconds; long enough for a file to be loaded on a machine that is busy. */
const quietLimit = 12_000;

/** Runs AVA on a project of these test files, as `npm test` does. @returns what is printed, and how it ended */
async function run(t: ExecutionContext, files: Record<string, string>) {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-runner-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  await symlink(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
  await writeFile(
    path.join(folder, 'ava.config.js'),
    `import { observeRun } from ${JSON.stringify(path.join(root, 'test/progress.ts'))};
     export default { files: ['*.test.js'], workerThreads: false, timeout: '10m', cache: false,
       nonSemVerExperiments: { observeRunsFromConfig: true }, observeRun };`,
  );
  for (const [name, text] of Object.entries(files)) {
    await writeFile(path.join(folder, name), `import test from 'ava';\n${text}`);
  }
  await mkdir(path.join(folder, 'out'));
  const script = `
    const { runAva } = await import(${JSON.stringify(path.join(root, 'test/runner.ts'))});
    const outcome = await runAva({ cwd: ${JSON.stringify(folder)}, args: [], env: process.env, quietLimit: ${quietLimit},
      report: ${JSON.stringify(path.join(folder, 'out/report.json'))}, signal: new AbortController().signal });
    console.log('outcome ' + JSON.stringify(outcome));`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => void child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  await once(child, 'close');
  const [, json] = /^outcome (.*)$/m.exec(output) ?? t.fail(output);
  return { output, folder, ...(JSON.parse(json!) as AvaRun) };
}

const passing = `test('it', (t) => t.pass());`;

test('runAva: a file that does not end by itself is named, and what keeps it, and the run has failed', async (t) => {
  t.timeout(5 * quietLimit);
  const { output, ...counted } = await run(t, {
    'quick.test.js': passing,
    'stuck.test.js': `import { createServer } from 'node:net'; createServer().listen(0, '127.0.0.1');
      setInterval(() => console.log('not dead'), 1_000); test.skip('never', (t) => t.pass());`,
  });
  t.regex(output, /Nothing has come for 12 s\. These have begun and not ended:\n {2}stuck\.test\.js\n/);
  t.false(output.includes('  quick.test.js'));
  if (existsSync('/proc/self/task')) t.regex(output, /^ {4}tcp (127\.0\.0\.1|localhost):\d+$/m);
  t.like(counted, { passed: 1, failed: 1, skipped: 1 });
  t.not(counted.code, 0);
});

test('runAva: counts what AVA reports, and tells how long each file took', async (t) => {
  t.timeout(5 * quietLimit);
  const well = await run(t, { 'a.test.js': passing, 'b.test.js': `${passing} test.skip('not', (t) => t.fail());` });
  t.like(well, { code: 0, passed: 2, failed: 0, skipped: 1 });
  t.deepEqual(well.ended.map(([file]) => path.basename(file)).toSorted(), ['a.test.js', 'b.test.js']);
  const failing = await run(t, {
    'a.test.js': `${passing} test('wrong', (t) => t.is(1, 2, 'not the same'));`,
    'b.test.js': `test.after(() => { throw new Error('not closed'); }); ${passing}`,
  });
  t.like(failing, { code: 1, passed: 2, failed: 2, skipped: 0 });
  const failures = failuresOf(
    failing.failures.toSorted((a, b) => (a.file < b.file ? -1 : 1)),
    failing.folder,
  ).join('\n');
  t.regex(
    failures,
    /^ {2}a\.test\.js: wrong\n {4}not the same\n {4}Difference[^]*\n {2}b\.test\.js: after hook\n[^]* {4}Error: not closed\n/,
  );
});

test('slowest: the ten that took longest, the slowest first', (t) => {
  const ended = Array.from({ length: 12 }, (_, index): [string, number] => [
    `/project/${index}.test.ts`,
    index * 1_500,
  ]);
  const lines = slowest(ended, '/project');
  t.is(lines.length, 10);
  t.is(lines[0], '   16.5 s  11.test.ts');
  t.is(lines[9], '    3.0 s  2.test.ts');
});

test('inOrder: the long files are the first, the others follow by name', (t) => {
  const at = (file: string) => path.join(root, file);
  const files = ['lib/b.test.ts', first[1]!, 'lib/a.test.ts', first[0]!].map(at);
  t.deepEqual(files.toSorted(inOrder), [first[0]!, first[1]!, 'lib/a.test.ts', 'lib/b.test.ts'].map(at));
});
