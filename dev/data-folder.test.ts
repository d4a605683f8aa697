import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { claimFolder, openSecrets } from './data-folder.ts';

test('claimFolder: one process at a time; after its end the folder is free again', async (t) => {
  const dir = await folder(t);
  const child = spawn(
    process.execPath,
    [
      '--input-type=module',
      '--eval',
      `import { claimFolder } from ${JSON.stringify(import.meta.resolve('./data-folder.ts'))};
       await claimFolder(${JSON.stringify(dir)});
       process.stdout.write('claimed');
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await t.throwsAsync(claimFolder(dir), {
    message: new RegExp(`Another hub \\(process ${child.pid}\\) uses the data`),
  });

  child.kill('SIGKILL');
  await once(child, 'exit');
  const claimed = await claimFolder(dir);
  t.true(claimed.abandoned);
  await claimed.release();

  const again = await claimFolder(dir);
  t.false(again.abandoned);
  await again.release();
});

test('claimFolder: a later process with the same number is not taken for the one that had the folder', async (t) => {
  const dir = await folder(t);
  await writeFile(path.join(dir, 'hub.json'), JSON.stringify({ pid: process.ppid, identity: 'of another time' }));
  const claimed = await claimFolder(dir);
  t.true(claimed.abandoned);
  await claimed.release();
});

test('openSecrets: are made once, kept for their owner alone, and completed for new names', async (t) => {
  const dir = await folder(t);
  const first = await openSecrets(dir, ['auth', 'message']);
  t.is((await stat(path.join(dir, 'secrets.json'))).mode & 0o777, 0o600);
  t.deepEqual(await openSecrets(dir, ['auth', 'message']), first);

  const more = await openSecrets(dir, ['auth', 'message', 'router']);
  t.is(more.privateKeys.auth, first.privateKeys.auth);
  t.is(more.databasePasswords.auth, first.databasePasswords.auth);
  const trusted = JSON.parse(more.trustedKeys) as { keys: { service: string; d?: string }[] };
  t.deepEqual(
    trusted.keys.map(({ service }) => service),
    ['auth', 'message', 'router'],
  );
  t.true(trusted.keys.every(({ d }) => d === undefined));
  t.is(new Set(Object.values(more.databasePasswords)).size, 3);
  t.is(more.uploadUrlKey, first.uploadUrlKey);
});

async function folder(t: ExecutionContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'chat4all-folder-'));
  t.teardown(() => rm(made, { recursive: true, force: true }));
  return made;
}
