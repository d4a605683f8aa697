import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { createAuthority, writeCertificates, type Issued } from '../test/certificates.ts';
import { openHarness } from '../test/harness.ts';
import { opened, openedTogether } from '../test/opened.ts';
import { openDatabase, provisionDatabase, type Database } from './database.ts';
import { HubError } from './errors.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const open = (url: string, poolSize = 3): Database =>
  openDatabase({ schema: 'message', entities: [], migrations: async () => [] }, { url, poolSize, name: 'test' });
const [database, admin] = openedTogether<Database>([
  { open: () => open(harness.databaseUrl('message')), close: (database) => database.close() },
  { open: () => open(harness.adminDatabaseUrl), close: (database) => database.close() },
]) as [Database, Database];

test.serial.before(async () => {
  await database.sql('create table things (id int primary key)');
});

test('sql: times are Dates, big integers bigint, and arrays go in and out', async (t) => {
  const at = new Date('2026-11-21T10:00:00.123Z');
  const [row] = await database.sql('select $1::timestamptz as at, 9007199254740993 as big, $2::text[] as list', [
    at,
    ['a', 'ü'],
  ]);
  t.deepEqual(row, { at, big: 9_007_199_254_740_993n, list: ['a', 'ü'] });
});

test('transaction: all of it or nothing', async (t) => {
  await database.transaction(async ({ sql }) => {
    await sql('insert into things values ($1)', [1]);
    await sql('insert into things values ($1)', [2]);
  });
  await t.throwsAsync(
    database.transaction(async ({ sql }) => {
      await sql('insert into things values ($1)', [3]);
      throw new Error('no');
    }),
    { message: 'no' },
  );
  t.deepEqual(await database.sql('select id from things order by id'), [{ id: 1 }, { id: 2 }]);
});

test('errors of the statement itself pass as they are', async (t) => {
  const error = await t.throwsAsync(database.sql('select 1 / 0'));
  t.false(error instanceof HubError);
});

test('a connection that PostgreSQL ends is UNAVAILABLE, the process goes on, and so does the next statement', async (t) => {
  const ended = database.transaction(async ({ sql }) => {
    const [self] = await sql<{ pid: number }>('select pg_backend_pid() as pid');
    await admin.sql('select pg_terminate_backend($1)', [self?.pid]);
    // Nothing is asked while the connection goes: nobody waits for an answer that could fail.
    await sleep(50);
    await sql('select 1');
  });
  t.like(await t.throwsAsync(ended), { kind: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
  t.deepEqual(await database.sql('select 1 as one'), [{ one: 1 }]);
});

test('a database that is not there is UNAVAILABLE with a delay', async (t) => {
  const nowhere = open('postgres://nobody:nothing@127.0.0.1:1/none');
  t.like(await t.throwsAsync(nowhere.ping()), { kind: 'UNAVAILABLE', retryAfter: 1 });
  t.like(await t.throwsAsync(nowhere.transaction(async () => {})), { kind: 'UNAVAILABLE' });
  await nowhere.close();
});

test('a role sees no schema but its own', async (t) => {
  for (const schema of ['auth', 'conversation', 'router', 'connectors', 'bus']) {
    const refused = await t.throwsAsync(database.sql(`create table ${schema}.intruder (id int)`));
    t.like(refused, { code: '42501' }, schema);
  }
  t.like(await t.throwsAsync(database.sql('select * from auth.users')), { code: '42501' });
});

test('provisionDatabase: may be repeated and done twice at once, and the last password counts', async (t) => {
  const role = 'chat4all_provisioned';
  const provision = (password: string) =>
    provisionDatabase(harness.adminDatabaseUrl, { schema: 'provisioned', role, password });
  await Promise.all([provision('one'), provision('one')]);
  await provision(`it's "two" \\ two`);
  const url = new URL(harness.adminDatabaseUrl);
  url.username = role;
  url.password = encodeURIComponent(`it's "two" \\ two`);
  const own = open(url.href);
  t.deepEqual(await own.sql('select current_user::text as me'), [{ me: role }]);
  await own.close();
  await admin.sql('drop schema provisioned');
  await admin.sql(`drop role ${role}`);
});

/** The database behind a door that speaks TLS, as PostgreSQL does it: who asks for it is answered `S`. */
async function openTlsDoor(t: ExecutionContext, { cert, key }: Issued): Promise<number> {
  const { hostname, port } = new URL(harness.adminDatabaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    socket.once('data', (request) => {
      // An SSLRequest (PostgreSQL, "Message Formats"); whoever says something else is turned away.
      if (request.length !== 8 || request.readInt32BE(4) !== 80_877_103) return socket.destroy();
      socket.write('S');
      const inner = new TLSSocket(socket, { isServer: true, cert, key });
      const outer = connect(Number(port), hostname);
      for (const [from, to] of [
        [inner, outer],
        [outer, inner],
      ] as const) {
        from.on('error', () => {}).pipe(to);
        from.on('close', () => to.destroy());
      }
      sockets.add(outer);
    });
  });
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return (server.address() as AddressInfo).port;
}

test('sslmode of the URL counts: TLS or nothing, and only with whom the authority vouches for', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-database-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const authority = createAuthority('databases');
  const { CA_CA: ours } = await writeCertificates(folder, 'CA', authority.issue([]), authority);
  const { CA_CA: others } = await writeCertificates(folder, 'CA', authority.issue([]), createAuthority('others'));
  const port = await openTlsDoor(t, authority.issue(['localhost']));
  const url = (from: string, parameters: Record<string, string | undefined>, at = port) => {
    const changed = new URL(from);
    changed.host = `localhost:${at}`;
    changed.search = new URLSearchParams(parameters as Record<string, string>).toString();
    return changed.href;
  };
  const encrypted = (from: string) => url(from, { sslmode: 'verify-full', sslrootcert: ours });
  const ask = async (address: string) => {
    const opened = open(address);
    t.teardown(() => opened.close());
    return opened.sql('select 1 as one');
  };

  const own = harness.databaseUrl('message');
  t.deepEqual(await ask(encrypted(own)), [{ one: 1 }]);
  await t.throwsAsync(ask(url(own, { sslmode: 'verify-full', sslrootcert: others })), undefined, 'another authority');
  await t.throwsAsync(ask(url(own, {})), undefined, 'plain text at a door that takes none');
  const direct = Number(new URL(own).port);
  await t.throwsAsync(ask(url(own, { sslmode: 'verify-full', sslrootcert: ours }, direct)), {
    message: /does not support SSL/,
  });

  const role = { schema: 'encrypted', role: 'chat4all_encrypted', password: 'uK9_x2LmQ-7f' };
  t.teardown(() =>
    admin.sql(`drop schema if exists encrypted`).then(() => admin.sql('drop role if exists chat4all_encrypted')),
  );
  await provisionDatabase(encrypted(harness.adminDatabaseUrl), role);
  await t.throwsAsync(provisionDatabase(url(harness.adminDatabaseUrl, {}), role));
});
