import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { openPrograms } from './postgres-programs.ts';

const run = promisify(execFile);
const isRoot = process.getuid?.() === 0;
const asRoot = isRoot && process.platform === 'linux' ? test.serial : test.serial.skip;

/** Only its owner may enter it. */
let home: string;
test.before(async () => {
  home = await mkdtemp(path.join(tmpdir(), 'chat4all-programs-'));
});
test.after.always(() => rm(home, { recursive: true, force: true }));

/** Programs that do nothing, in a folder of their own. */
async function makePrograms(name: string, script = '#!/bin/sh\n'): Promise<string> {
  const folder = path.join(home, name, 'native');
  for (const part of ['bin', 'lib', 'share']) await mkdir(path.join(folder, part), { recursive: true });
  for (const program of ['initdb', 'postgres']) {
    await writeFile(path.join(folder, 'bin', program), script, { mode: 0o700 });
  }
  // As npm leaves it where the umask is 077.
  await writeFile(path.join(folder, 'share', 'text'), 'text', { mode: 0o600 });
  return folder;
}

/** The names of the copies that are on this machine for data below `home`. */
async function copies(programs: string): Promise<string[]> {
  const place = path.dirname(path.dirname(path.dirname(programs)));
  return (await readdir(place)).filter((name) => !name.endsWith('.data'));
}

asRoot('root below a closed folder: another user runs a copy, which goes again, and no right is changed', async (t) => {
  const from = await makePrograms('closed');
  const dataDir = path.join(home, 'data');
  const programs = await openPrograms(dataDir, from);
  t.teardown(() => programs.remove());
  t.false(programs.postgres.startsWith(home));
  const { user } = programs;
  t.truthy(user?.uid);
  await run(programs.postgres, [], { ...user });
  const text = path.join(programs.postgres, '../../share/text');
  t.is((await run('cat', [text], { ...user })).stdout, 'text');

  const cluster = path.join(dataDir, 'cluster');
  await mkdir(cluster, { mode: 0o700 });
  await programs.own(dataDir);
  await programs.own(cluster);
  const shell = `echo kept > '${programs.reach(cluster)}/file'`;
  await run('sh', ['-c', shell], { ...user, cwd: cluster });
  t.is((await stat(path.join(cluster, 'file'))).uid, user!.uid);

  for (const folder of [home, path.dirname(from)]) t.is((await stat(folder)).uid, 0);
  t.is((await stat(home)).mode & 0o777, 0o700);
  await programs.remove();
  await t.throwsAsync(stat(programs.postgres), { code: 'ENOENT' });
});

asRoot(
  'root: two servers have copies of their own, and one whose data are gone is removed by the next start',
  async (t) => {
    const from = await makePrograms('several');
    const open = async (name: string) => {
      const programs = await openPrograms(path.join(home, name), from);
      t.teardown(() => programs.remove());
      return programs;
    };
    const [first, second] = await Promise.all([open('first'), open('second')]);
    t.not(first.postgres, second.postgres);
    await rm(path.join(home, 'first'), { recursive: true });
    const third = await open('third');
    const found = await copies(third.postgres);
    const nameOf = ({ postgres }: { postgres: string }) => path.basename(path.resolve(postgres, '../..'));
    t.false(found.includes(nameOf(first)));
    t.true(found.includes(nameOf(second)));
    t.true(found.includes(nameOf(third)));
  },
);

asRoot('root: a copy of an older package is replaced, one of the same is used again', async (t) => {
  const from = await makePrograms('versions');
  const dataDir = path.join(home, 'versioned');
  const mark = path.join(from, 'share/text');
  const open = async (version: string, text: string) => {
    await writeFile(path.join(from, '../package.json'), JSON.stringify({ version }));
    await writeFile(mark, text);
    const programs = await openPrograms(dataDir, from);
    t.teardown(() => programs.remove());
    return readFile(path.join(programs.postgres, '../../share/text'), 'utf8');
  };
  t.is(await open('1', 'first'), 'first');
  t.is(await open('1', 'not looked at'), 'first');
  t.is(await open('2', 'second'), 'second');
});

asRoot('root: programs that everybody can reach are run where they are', async (t) => {
  const from = await makePrograms('open');
  // The folders on the way are closed again at the end.
  await chmod(home, 0o755);
  t.teardown(() => chmod(home, 0o700));
  for (const name of ['initdb', 'postgres']) await chmod(path.join(from, 'bin', name), 0o755);
  const isReachable = await run('ls', [from], { uid: 65_534, gid: 65_534 }).then(Boolean, () => false);
  const programs = await openPrograms(path.join(home, 'beside'), from);
  t.teardown(() => programs.remove());
  t.is(programs.postgres === path.join(from, 'bin/postgres'), isReachable);
});

test.serial('where its loader is missing, as on musl, one line says what to do', async (t) => {
  const from = await makePrograms('musl', '#!/lib64/of-another-system.so\n');
  const error = await t.throwsAsync(openPrograms(path.join(home, 'musl-data'), from));
  if (process.platform === 'linux') t.regex(error.message, /glibc/);
  isOneLineOfAdvice(t, error.message);
});

test.serial('where its libraries are missing, one line has the reason and what to do', async (t) => {
  const from = await makePrograms(
    'broken',
    '#!/bin/sh\necho "libicu.so: cannot open shared object file" >&2\nexit 127\n',
  );
  const error = await t.throwsAsync(openPrograms(path.join(home, 'broken-data'), from));
  t.regex(error.message, /libicu\.so: cannot open/);
  isOneLineOfAdvice(t, error.message);
});

test.serial('npm start on a system that there is no PostgreSQL for says so in one line', async (t) => {
  const system = 'data:text/javascript,Object.defineProperty(process, "platform", { value: "sunos" })';
  const { DATABASE_URL: _, ...env } = process.env;
  const start = path.resolve(import.meta.dirname, '../start.ts');
  const started = run(process.execPath, ['--import', system, start], {
    env: { ...env, DATA_DIR: path.join(home, 'sunos'), PORT: '0' },
    timeout: 60_000,
  });
  const error = (await t.throwsAsync(started)) as Error & { code: number; stderr: string };
  t.is(error.code, 1);
  t.regex(error.stderr, /There is no embedded PostgreSQL for sunos/);
  isOneLineOfAdvice(t, error.stderr.trim());
});

function isOneLineOfAdvice(t: ExecutionContext, text: string): void {
  t.regex(text, /Set DATABASE_URL to a PostgreSQL server of yours/i);
  t.false(text.includes('\n'), text);
}
