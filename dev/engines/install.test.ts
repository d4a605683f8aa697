import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { engineHome, installOnce, isOnPath, runTool } from './install.ts';

test('installOnce: two at once make one whole folder, and nothing else is left', async (t) => {
  const folder = await scratch(t);
  const home = path.join(folder, 'engine-1');
  const bothHaveBegun = Promise.withResolvers<void>();
  let begun = 0;
  const install = (content: string) =>
    installOnce(home, async (unfinished) => {
      if (++begun === 2) bothHaveBegun.resolve();
      await writeFile(path.join(unfinished, 'first'), content);
      await bothHaveBegun.promise;
      await writeFile(path.join(unfinished, 'second'), content);
    });
  await Promise.all([install('a'), install('b')]);
  t.deepEqual(await readdir(folder), ['engine-1']);
  const contents = await Promise.all(['first', 'second'].map((name) => readFile(path.join(home, name), 'utf8')));
  t.is(contents[0], contents[1]);

  await installOnce(home, async () => t.fail('it is there already'));
});

test('installOnce: what failed leaves nothing behind, and is tried again', async (t) => {
  const folder = await scratch(t);
  const home = path.join(folder, 'engine-1');
  const failing = installOnce(home, async (unfinished) => {
    await writeFile(path.join(unfinished, 'half'), '');
    throw new Error('no network');
  });
  await t.throwsAsync(failing, { message: 'no network' });
  t.deepEqual(await readdir(folder), []);
  await installOnce(home, (unfinished) => writeFile(path.join(unfinished, 'whole'), ''));
  t.deepEqual(await readdir(home), ['whole']);
});

test('runTool: a failure shows the end of what the program has written', async (t) => {
  const script = 'for i in $(seq 100); do echo "line $i"; done; echo broken >&2; exit 3';
  const error = await t.throwsAsync(
    runTool('sh', ['-c', script], { limit: 10_000, failure: 'It could not be built.' }),
  );
  t.regex(error.message, /^It could not be built\. The end of its output:\n[^]*line 100\nbroken$/);
  t.notRegex(error.message, /line 1\n/);
});

test('runTool: a program that takes too long is ended, and so is one that is not wanted any more', async (t) => {
  await t.throwsAsync(runTool('sleep', ['60'], { limit: 100, failure: 'Slow.' }), { message: /not done after 0.1 s/ });
  const signal = AbortSignal.timeout(100);
  await t.throwsAsync(runTool('sleep', ['60'], { limit: 60_000, failure: 'Slow.', signal }), { name: 'TimeoutError' });
});

test('engineHome: one for all checkouts of a user, in the folder for caches, or in this one where that is closed', async (t) => {
  const folder = await scratch(t);
  const name = `engine-1-${process.platform}-${process.arch}`;
  const [home, cache, checkout] = [
    path.join(folder, 'home'),
    path.join(folder, 'not/there/yet'),
    path.resolve(import.meta.dirname, '../../.chat4all/engines', name),
  ];
  await mkdir(home);
  const at = (env: NodeJS.ProcessEnv) => engineHome('engine', '1', env);
  t.is(at({ HOME: home }), path.join(home, '.cache/chat4all/engines', name));
  t.is(at({ HOME: home, XDG_CACHE_HOME: cache }), path.join(cache, 'chat4all/engines', name));
  t.is(at({ HOME: home, XDG_CACHE_HOME: 'relative' }), path.join(home, '.cache/chat4all/engines', name));
  t.is(at({ HOME: path.join(folder, 'nowhere') }), checkout);
  // Not even root can make a folder there.
  t.is(at({ HOME: home, XDG_CACHE_HOME: path.join(process.execPath, 'cache') }), checkout);
  t.deepEqual(await readdir(home), [], 'nothing is made by asking');
});

test('isOnPath: knows which programs there are', (t) => {
  t.true(isOnPath('sh'));
  t.false(isOnPath('chat4all-no-such-program'));
});

async function scratch(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-install-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
