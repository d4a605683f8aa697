import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { openDatabase } from '#lib/database.ts';
import { startPostgres, type Postgres } from './postgres.ts';

// One cluster for all: making one takes a second.
let home: string;
let dataDir: string;
test.before(async () => {
  // As in the home of a user, nobody else may look in.
  home = await mkdtemp(path.join(tmpdir(), 'chat4all-postgres-'));
  dataDir = path.join(home, 'postgres');
});
test.after.always(() => rm(home, { recursive: true, force: true }));

test.serial(
  'startPostgres: makes a cluster that keeps what is committed, and finds it again after a stop',
  async (t) => {
    const first = await start(t);
    await query(first, 'create table things (name text)');
    await query(first, `insert into things values ('ação')`);
    await first.stop();
    t.false(isAlive(first.pid));

    const second = await start(t);
    t.deepEqual(await query(second, 'select name from things'), [{ name: 'ação' }]);
    t.deepEqual(
      await query(second, `select current_setting('fsync') as fsync, current_setting('server_encoding') as encoding`),
      [{ fsync: 'on', encoding: 'UTF8' }],
    );
  },
);

test.serial('startPostgres: what was committed before a SIGKILL is there after it', async (t) => {
  const first = await start(t);
  await query(first, 'create table more (name text)');
  await query(first, `insert into more values ('kept')`);
  await first.kill();
  t.false(isAlive(first.pid));

  const second = await start(t);
  t.deepEqual(await query(second, 'select name from more'), [{ name: 'kept' }]);
});

test.serial('startPostgres: starts on the port that is asked for, or says why it cannot', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { port } = taken.address() as AddressInfo;
  await t.throwsAsync(startPostgres({ dataDir, port }), { message: /doesn't start[^]*Address already in use/ });
  taken.close();
  await once(taken, 'close');

  const postgres = await startPostgres({ dataDir, port });
  t.teardown(() => postgres.stop());
  t.is(postgres.port, port);
});

test.serial('startPostgres: the password is only in a file of its owner, not in the log', async (t) => {
  const postgres = await start(t);
  const password = decodeURIComponent(new URL(postgres.adminUrl).password);
  const file = path.join(dataDir, 'password');
  t.is((await readFile(file, 'utf8')).trim(), password);
  t.is((await stat(file)).mode & 0o777, 0o600);

  const wrong = new URL(postgres.adminUrl);
  wrong.password = 'wrong';
  await t.throwsAsync(query({ adminUrl: wrong.href }, 'select 1'), { message: /password authentication failed/ });
  await t.throwsAsync(query(postgres, `create role "pg_x" password '${password}'`));
  const log = await readFile(path.join(dataDir, 'server.log'), 'utf8');
  t.regex(log, /reserved/);
  t.false(log.includes(password));
});

test.serial(
  'startPostgres: a server that a killed process left behind is stopped and its data taken over',
  async (t) => {
    const left = await startAndDie();
    t.true(isAlive(left), 'the server outlives its process for a moment');

    const postgres = await start(t);
    t.not(postgres.pid, left);
    await t.notThrowsAsync(untilGone(left));
    t.deepEqual(await query(postgres, 'select 1 as one'), [{ one: 1 }]);
  },
);

test.serial('startPostgres: a server whose process was killed ends by itself', async (t) => {
  const left = await startAndDie();
  for (const limit = Date.now() + 30_000; isAlive(left) && Date.now() < limit;) await sleep(50);
  t.false(isAlive(left));
});

test.serial('startPostgres: a stale pid file with the number of another process is no obstacle', async (t) => {
  const first = await start(t);
  const pidFile = path.join(dataDir, 'cluster', 'postmaster.pid');
  const written = await readFile(pidFile, 'utf8');
  await first.kill();
  await writeFile(pidFile, written.replace(/^\d+/, String(process.pid)));

  const second = await start(t);
  t.deepEqual(await query(second, 'select 1 as one'), [{ one: 1 }]);
});

test.serial(
  'startPostgres: a cluster that was interrupted while it was made is made again, beside another',
  async (t) => {
    const other = path.join(home, 'other');
    await mkdir(path.join(other, 'cluster.new'), { recursive: true });
    await writeFile(path.join(other, 'cluster.new', 'PG_VERSION'), '18\n');
    const [postgres, second] = await Promise.all([start(t), startPostgres({ dataDir: other })]);
    t.teardown(() => second.stop());
    t.deepEqual(await query(second, 'select 1 as one'), [{ one: 1 }]);
    t.deepEqual(await query(postgres, 'select 1 as one'), [{ one: 1 }]);
  },
);

async function start(t: ExecutionContext): Promise<Postgres> {
  const postgres = await startPostgres({ dataDir });
  t.teardown(() => postgres.stop());
  return postgres;
}

/** Starts a server from a process that is killed then. Returns the pid of the server. */
async function startAndDie(): Promise<number> {
  const program = `
    import { startPostgres } from ${JSON.stringify(import.meta.resolve('./postgres.ts'))};
    const { pid } = await startPostgres({ dataDir: ${JSON.stringify(dataDir)} });
    process.stdout.write(String(pid), () => process.kill(process.pid, 'SIGKILL'));`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data) => (output += String(data)));
  await once(child, 'close');
  return Number(output);
}

async function query({ adminUrl }: { adminUrl: string }, statement: string) {
  const database = openDatabase({ schema: 'public', migrations: [] }, { url: adminUrl, poolSize: 1, name: 'test' });
  try {
    return await database.sql(statement);
  } finally {
    await database.close();
  }
}

async function untilGone(pid: number): Promise<void> {
  for (const limit = Date.now() + 30_000; Date.now() < limit; await sleep(20)) if (!isAlive(pid)) return;
  throw new Error(`process ${pid} is still there`);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
