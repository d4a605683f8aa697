import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync } from 'node:fs';
import { chmod, mkdir, open, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { openPrograms } from '../dev/engines/postgres-programs.ts';
import { freePorts } from '../dev/ports.ts';
import { eventually } from './eventually.ts';
import { complete, contentOf, download, everyChunk, initiate, mebibyte, sendChunks } from './flows/files.ts';
import { startProcessHub } from './flows/hubs.ts';
import { ended, everyMessage, openConversation, send, type Person } from './flows/meshes.ts';
import { kafkaIsThere } from './harness.ts';
import { openedFolder } from './opened.ts';
import { blocksIn, runShown } from './shown-lines.ts';

/** The recipe of docs/operating.md for a new server, followed on a PostgreSQL of this machine that has its client programs beside it. */

const root = path.resolve(import.meta.dirname, '..');
const folder = openedFolder('chat4all-restore-');
/** Folders with `bin`, the newest version first. The embedded PostgreSQL has no pg_dump. */
const installed = globSync('/usr/lib/postgresql/*')
  .toSorted((a, b) => Number(path.basename(b)) - Number(path.basename(a)))
  .find((home) =>
    ['postgres', 'initdb', 'pg_dump', 'pg_restore', 'psql'].every((name) => existsSync(path.join(home, 'bin', name))),
  );
const limit = 120_000;

/** An empty server of its own. @returns the URL of its administrator */
async function startServer(t: ExecutionContext, name: string): Promise<string> {
  const dataDir = path.join(folder, name);
  await mkdir(dataDir);
  const programs = await openPrograms(dataDir, installed);
  await programs.own(dataDir);
  const asUser = programs.user === undefined ? {} : { uid: programs.user.uid, gid: programs.user.gid };
  const password = 'Kq8fJx2LzWv71TgBnRpM';
  const passwordFile = path.join(dataDir, 'password');
  await writeFile(passwordFile, password);
  await chmod(passwordFile, 0o644);
  const cluster = path.join(dataDir, 'cluster');
  const options = ['--pgdata', cluster, '--username', 'postgres', '--pwfile', passwordFile, '--auth', 'scram-sha-256'];
  await promisify(execFile)(programs.initdb, [...options, '--encoding', 'UTF8', '--no-sync'], {
    ...asUser,
    cwd: dataDir,
  });
  const [port] = (await freePorts(1)) as [number];
  const settings = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: 200,
    fsync: 'off',
  };
  const log = await open(path.join(dataDir, 'server.log'), 'a');
  const args = Object.entries(settings).flatMap(([setting, value]) => ['-c', `${setting}=${value}`]);
  const server = spawn(programs.postgres, ['-D', cluster, ...args], {
    ...asUser,
    cwd: dataDir,
    stdio: ['ignore', log.fd, log.fd],
  });
  await log.close();
  const exited = once(server, 'exit');
  t.teardown(async () => {
    server.kill('SIGINT');
    await exited;
    await programs.remove();
  });
  const url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`;
  const isReady = () =>
    promisify(execFile)(path.join(installed!, 'bin/psql'), [url, '--command', 'select 1']).then(
      () => true,
      () => false,
    );
  await eventually(`the ${name} server is ready`, isReady, Boolean);
  return url;
}

(installed === undefined ? test.skip : test)(
  'docs/operating.md: a hub is restored on a new server, with its people, messages and files',
  async (t) => {
    t.timeout(4 * limit);
    const [oldUrl, newUrl] = [await startServer(t, 'old'), await startServer(t, 'new')];
    const run = path.basename(folder);
    const bus = (name: string) => ({
      ...(kafkaIsThere && { KAFKA_BROKERS: process.env.TEST_KAFKA_BROKERS! }),
      BUS_PREFIX: `${run}-${name}.`,
    });
    const [oldFolder, newFolder] = ['old-hub', 'new-hub'].map((name) => path.join(folder, name)) as [string, string];
    await Promise.all([mkdir(oldFolder), mkdir(path.join(newFolder, 'data'), { recursive: true })]);

    const old = await startProcessHub(oldFolder, { DATABASE_URL: oldUrl, ...bus('old') });
    t.teardown(() => old.stop());
    const [writer, reader] = old.people as [Person, Person];
    const conversation = await openConversation([writer, reader]);
    const upload = await initiate(writer, contentOf('restore', 6 * mebibyte), { chunkSize: 5 * mebibyte });
    await sendChunks(upload, everyChunk(upload));
    await complete(upload);
    const sent = [
      await send(writer, conversation),
      await send(writer, conversation, { payload: { type: 'file', file_id: upload.file_id } }),
    ];
    for (const messageId of sent) t.is((await ended(writer, messageId)).status, 'delivered');
    const before = await everyMessage(reader, conversation);
    t.is(before.length, 2);

    const text = await readFile(path.join(root, 'docs/operating.md'), 'utf8');
    const [, recipe] = /^### On a new server\n([^]*?)^## /m.exec(text)!;
    const blocks = blocksIn(recipe!);
    t.is(blocks.length, 2);
    const names = [
      'auth',
      'conversation',
      'message',
      'file',
      'router',
      'connectors',
      'tools',
      'assistant',
      'events',
      'bus',
    ];
    const { code, output, last } = await runShown({
      blocks,
      // The reader is in the project's folder.
      here: (script) => script.replaceAll('npm run migrate', `npm --prefix ${root} run migrate`),
      folder,
      env: {
        OLD_DATABASE_URL: oldUrl,
        NEW_DATABASE_URL: newUrl,
        OLD_FILES_DIR: path.join(oldFolder, 'data/files'),
        NEW_FILES_DIR: path.join(newFolder, 'data/files'),
        ...Object.fromEntries(names.map((name) => [`${name.toUpperCase()}_DATABASE_PASSWORD`, `Zt4-of-${name}-alone`])),
      },
      programs: [path.join(installed!, 'bin')],
      limit,
    });
    t.is(code, 0, `${output.slice(-3_000)}\nin the block\n${last}`);
    await old.stop();

    const restored = await startProcessHub(newFolder, { DATABASE_URL: newUrl, ADMIN_USERS: 'user3', ...bus('new') });
    t.teardown(() => restored.stop());
    const [again, other, admin] = restored.people as [Person, Person, Person];
    t.is(again.userId, writer.userId, 'people are who they were');
    t.deepEqual(await everyMessage(other, conversation), before);
    t.like(await download(other, upload.file_id), { status: 200, sha256: await upload.content.sha256() });
    const file = { payload: { type: 'file', file_id: upload.file_id } };
    t.is((await ended(again, await send(again, conversation, file))).status, 'delivered');
    const audit = async () => (await admin.rest.call('GET', '/v1/admin/audit')).body as { lag_known: boolean };
    const body = await eventually('the bus tells how far all are', audit, (found) => found.lag_known, 5_000);
    t.like(body, { balanced: true, lag_known: true, mismatched_total: 0, gaps_total: 0 });
  },
);
