import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import baseTest, { type ExecutionContext } from 'ava';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { generateKeys } from '#lib/identity.ts';
import { openLog } from '#lib/log.ts';
import { StartError } from '#lib/starting.ts';
import { kafkaIsThere, openHarness } from './harness.ts';
import { opened } from './opened.ts';
import { spawnProcess } from './spawned.ts';

/** One after the other: each starts services, and a dozen at once would keep each other from reaching an engine in time. */
const test = baseTest.serial;

const hub = opened(openHarness, (harness) => harness.stop());

/** Says why a service, or the gateway, doesn't start: in one line, which names the setting. */
async function refusal(t: ExecutionContext, name: string, env: NodeJS.ProcessEnv): Promise<string> {
  const starting = name === 'gateway' ? hub.startGateway(env) : hub.startService(name, env);
  const error = (await t.throwsAsync(starting, undefined, name))!;
  t.true(error instanceof ConfigError || error instanceof StartError, String(error.stack));
  t.notRegex(error.message, /\n/);
  return `${error instanceof ConfigError ? 78 : 1} ${error.message.replace('The configuration is not usable: ', '')}`;
}

function changed(url: string, change: Partial<Pick<URL, 'username' | 'password' | 'host' | 'pathname'>>): string {
  return Object.assign(new URL(url), change).href;
}

/** A server of HTTP that is no S3. @returns its URL */
async function serveHttp(t: ExecutionContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  t.teardown(() => server.close());
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const services = ['auth', 'conversation', 'file', 'router', 'connectors', 'message', 'tools', 'assistant', 'events'];

test('a database that refuses the role, or has no such thing, ends each service with 78', async (t) => {
  const url = hub.databaseUrl('router');
  const { password } = new URL(url);
  const wrong = { DATABASE_URL: changed(url, { password: 'Wq8-no-password-of-router' }) };
  const told = await refusal(t, 'router', wrong);
  t.regex(
    told,
    /^78 DATABASE_URL: PostgreSQL at \S+ refuses: password authentication failed for user "chat4all_router"$/,
  );
  t.false(told.includes('Wq8') || told.includes(password));
  const database = { DATABASE_URL: changed(url, { pathname: '/nowhere' }) };
  t.regex(await refusal(t, 'tools', database), /^78 DATABASE_URL: .* refuses: database "nowhere" does not exist$/);
  const role = { DATABASE_URL: changed(url, { username: 'nobody' }) };
  t.regex(await refusal(t, 'assistant', role), /^78 DATABASE_URL: .* refuses: .*"nobody"/);
  const bus = { BUS_DATABASE_URL: changed(hub.databaseUrl('bus'), { password: 'Wq8-no-password-of-bus' }) };
  for (const name of ['router', 'conversation']) {
    t.regex(await refusal(t, name, bus), /^78 BUS_DATABASE_URL: .* refuses: password authentication failed/);
  }
});

test("each service refuses another one's role, and a database that is not migrated", async (t) => {
  for (const name of services) {
    const other = name === 'auth' ? 'message' : 'auth';
    const told = await refusal(t, name, { DATABASE_URL: hub.databaseUrl(other) });
    const schema = `the schema ${name} belongs to chat4all_${name}`;
    t.is(told, `78 DATABASE_URL is of the role chat4all_${other}, but ${schema}`, name);
  }
  const empty = { DATABASE_URL: changed(hub.databaseUrl('router'), { pathname: '/postgres' }) };
  t.regex(
    await refusal(t, 'router', empty),
    /^78 DATABASE_URL leads to a database without the schema router: run the mig/,
  );
});

test('a superuser as the role is a warning', async (t) => {
  const router = await hub.startService('router', { DATABASE_URL: hub.adminDatabaseUrl });
  t.regex(router.lines[0]!, /"level":40.*DATABASE_URL is of the superuser .* which chat4all_router is/);
});

test("each service refuses another one's key, and keys of different sets", async (t) => {
  const { IDENTITY_KEY: routers, TRUSTED_KEYS: trusted } = hub.environmentOf('router');
  const others = await generateKeys([...services, 'gateway']);
  for (const name of services.filter((each) => each !== 'router')) {
    const told = await refusal(t, name, { IDENTITY_KEY: routers });
    t.is(told, `78 IDENTITY_KEY is the key of router, and not of ${name}`);
    const mixed = await refusal(t, name, { TRUSTED_KEYS: others.trusted });
    t.regex(
      mixed,
      /^78 TRUSTED_KEYS does not have the public key of IDENTITY_KEY \(kid [\w-]+\): the two are of different/,
    );
  }
  const keys = (JSON.parse(trusted!) as { keys: { service: string; exp?: number; kid: string; x: string }[] }).keys;
  const own = keys.find(({ service }) => service === 'router')!;
  const rest = keys.filter((key) => key !== own);
  const withOwn = (change: object) => ({ TRUSTED_KEYS: JSON.stringify({ keys: [...rest, { ...own, ...change }] }) });
  t.regex(
    await refusal(t, 'router', withOwn({ service: 'file' })),
    /^78 TRUSTED_KEYS has .* as that of file, and not of router$/,
  );
  t.regex(await refusal(t, 'router', withOwn({ exp: 1 })), /^78 TRUSTED_KEYS has .* as one that is over/);
  t.regex(await refusal(t, 'router', withOwn({ x: rest[0]!.x })), /^78 TRUSTED_KEYS has another key under the name of/);
  const torn = JSON.stringify({ ...(JSON.parse(routers!) as object), x: rest[0]!.x });
  t.regex(
    await refusal(t, 'router', { IDENTITY_KEY: torn }),
    /^78 IDENTITY_KEY has a public part \(x\) that is not of/,
  );
  const withoutAuth = { TRUSTED_KEYS: JSON.stringify({ keys: keys.filter(({ service }) => service !== 'auth') }) };
  t.is(await refusal(t, 'router', withoutAuth), "78 TRUSTED_KEYS has no key of auth: nobody's token would be believed");
});

test('an address has a port', async (t) => {
  for (const wrong of [
    'auth',
    'auth:',
    'http://auth:50051',
    'auth:0',
    'auth:99999',
    'dns:///auth',
    '10.0.0.1,10.0.0.2',
  ]) {
    t.regex(await refusal(t, 'router', { AUTH_ADDRESS: wrong }), /^78 AUTH_ADDRESS must be host:port/, wrong);
    const backends = { BACKENDS: `chat4all.auth.v1=${wrong.replace(/,.*/, '')}` };
    t.regex(await refusal(t, 'gateway', backends), /^78 BACKENDS must/, wrong);
  }
});

test('a broker has a port', async (t) => {
  const kafka = { BUS_DATABASE_URL: '', KAFKA_BROKERS: 'kafka' };
  t.is(await refusal(t, 'router', kafka), '78 KAFKA_BROKERS must be host:port, …');
});

test('what is away is waited for, with a line in the log; then the process ends with 1', async (t) => {
  const patience = { START_PATIENCE: '700ms' };
  const nobody = changed(hub.databaseUrl('router'), { host: '127.0.0.1:1' });
  const told = await refusal(t, 'router', { ...patience, DATABASE_URL: nobody });
  t.regex(told, /^1 DATABASE_URL: PostgreSQL at 127\.0\.0\.1:1 is not there, and was not for 0\.7 s: .*ECONNREFUSED/);
  const unknown = changed(nobody, { host: 'nobody.invalid:5432' });
  t.regex(await refusal(t, 'file', { ...patience, DATABASE_URL: unknown }), /^1 DATABASE_URL: .*nobody\.invalid/);
  const bus = { ...patience, BUS_DATABASE_URL: nobody };
  t.regex(await refusal(t, 'connectors', bus), /^1 BUS_DATABASE_URL: PostgreSQL at 127\.0\.0\.1:1 is not there/);
  const kafka = { ...patience, BUS_DATABASE_URL: '', KAFKA_BROKERS: '127.0.0.1:1' };
  t.regex(await refusal(t, 'message', kafka), /^1 KAFKA_BROKERS: Kafka at 127\.0\.0\.1:1 is not there/);
  const s3 = {
    FILES_DIR: '',
    S3_ENDPOINT: 'http://127.0.0.1:1',
    S3_ACCESS_KEY: 'somebody',
    S3_SECRET_KEY: 'Zk3-of-a-test-run-alone',
  };
  t.regex(await refusal(t, 'file', { ...patience, ...s3 }), /^1 S3_ENDPOINT: the S3 at http:\S+ is not there/);
});

test('an engine that comes while it is waited for is taken', async (t) => {
  const { port, hostname } = new URL(hub.adminDatabaseUrl);
  const placeholder = createTcpServer();
  await once(placeholder.listen(0, '127.0.0.1'), 'listening');
  const way = (placeholder.address() as AddressInfo).port;
  placeholder.close();
  const url = changed(hub.databaseUrl('router'), { host: `127.0.0.1:${way}` });
  const starting = hub.startService('router', { DATABASE_URL: url });
  await sleep(700);
  const door = createTcpServer((socket) => {
    const inner = connect(Number(port), hostname);
    for (const [one, other] of [
      [socket, inner],
      [inner, socket],
    ] as const) {
      one.on('error', () => {}).on('close', () => other.destroy());
      one.pipe(other);
    }
  });
  t.teardown(() => door.close());
  await once(door.listen(way, '127.0.0.1'), 'listening');
  const router = await starting;
  t.regex(router.lines[0]!, /"level":40.*DATABASE_URL: PostgreSQL at \S+ is not there: waiting for up to 30 s/);
  t.regex(router.lines[1]!, /"level":30.*PostgreSQL at \S+ is there/);
  await router.stop();
});

test('an S3 that is none, and one that refuses, end the file service with 78', async (t) => {
  const env = { FILES_DIR: '', S3_ACCESS_KEY: 'somebody', S3_SECRET_KEY: 'Zk3-of-a-test-run-alone' };
  const page = await serveHttp(t, (_request, response) => response.setHeader('Content-Type', 'text/html').end('<p>Hi'));
  t.regex(await refusal(t, 'file', { ...env, S3_ENDPOINT: page }), /^78 S3_ENDPOINT: the S3 at http:\S+ refuses: /);
  const nothing = await serveHttp(t, (_request, response) => response.writeHead(404).end('no such page'));
  t.regex(await refusal(t, 'file', { ...env, S3_ENDPOINT: nothing }), /^78 S3_ENDPOINT: the S3 at http:\S+ refuses: /);
  const text = createTcpServer(
    (socket) =>
      void socket
        .resume()
        .on('error', () => {})
        .end('SSH-2.0-OpenSSH_9.6\r\n'),
  );
  t.teardown(() => text.close());
  await once(text.listen(0, '127.0.0.1'), 'listening');
  const other = `http://127.0.0.1:${(text.address() as AddressInfo).port}`;
  t.regex(await refusal(t, 'file', { ...env, S3_ENDPOINT: other }), /^78 S3_ENDPOINT: .* refuses: Parse Error/);
  if (!process.env['TEST_S3_ENDPOINT']) return;
  const stranger = { ...env, S3_ENDPOINT: process.env['TEST_S3_ENDPOINT'] };
  t.regex(await refusal(t, 'file', stranger), /^78 S3_ACCESS_KEY, S3_SECRET_KEY: the S3 at http:\S+ refuses: /);
});

test('the gateway names what is wrong with BACKENDS, DESCRIPTOR_SET and TRUST_PROXY', async (t) => {
  const BACKENDS = 'chat4all.auth.v1=127.0.0.1:1';
  t.is(
    await refusal(t, 'gateway', { BACKENDS: `${BACKENDS},acme.shop.v1=127.0.0.1:1` }),
    "78 BACKENDS names what DESCRIPTOR_SET doesn't have: acme.shop.v1",
  );
  for (const DESCRIPTOR_SET of ['/nowhere/at.all', 'package.json']) {
    t.regex(await refusal(t, 'gateway', { BACKENDS, DESCRIPTOR_SET }), /^78 DESCRIPTOR_SET must be a descriptor set/);
  }
  t.regex(await refusal(t, 'gateway', { BACKENDS, TRUST_PROXY: 'nobody' }), /^78 TRUST_PROXY must be false, true, a/);
});

test('a port that another program has may be free again; a host or port that can not be ours ends it with 78', async (t) => {
  const { port } = new URL(await serveHttp(t, () => {}));
  t.is(await refusal(t, 'router', { GRPC_PORT: port }), `1 GRPC_PORT: 127.0.0.1:${port} is in use by another program`);
  const BACKENDS = 'chat4all.auth.v1=127.0.0.1:1';
  t.is(await refusal(t, 'gateway', { BACKENDS, PORT: port }), `1 PORT: 127.0.0.1:${port} is in use by another program`);
  const host = '192.0.2.1';
  t.is(await refusal(t, 'router', { GRPC_HOST: host }), `78 GRPC_HOST is ${host}, which is no address of this machine`);
  t.is(
    await refusal(t, 'gateway', { BACKENDS, HOST: host }),
    `78 HOST is ${host}, which is no address of this machine`,
  );
});

test('a process of the hub: one line and the exit code, and nothing else', async (t) => {
  const wrong = { DATABASE_URL: changed(hub.databaseUrl('router'), { password: 'Wq8-no-password-of-router' }) };
  const refused = spawnProcess(['services/main.ts', 'router'], hub.environmentOf('router', wrong));
  t.is(await refused.ended, 78);
  t.deepEqual(refused.lines, []);
  t.regex(refused.errors(), /^router: The configuration is not usable: DATABASE_URL: .*\n$/);
  const away = { DATABASE_URL: changed(hub.databaseUrl('router'), { host: '127.0.0.1:1' }), START_PATIENCE: '0ms' };
  const gone = spawnProcess(['services/main.ts', 'router'], hub.environmentOf('router', away));
  t.is(await gone.ended, 1);
  t.is(gone.errors(), '');
  t.is(gone.lines.length, 1);
  t.regex(gone.lines[0]!, /^\{"level":60.*"msg":"DATABASE_URL: PostgreSQL at 127\.0\.0\.1:1 is not there[^"]*"\}$/);
});

test('the migration: one line and the exit code, as for a service', async (t) => {
  const passwords = [...services, 'bus'].map((name) => [
    `${name.toUpperCase()}_DATABASE_PASSWORD`,
    'Zk3-of-a-test-run-alone',
  ]);
  const run = (url: string) =>
    spawnProcess(['bin/migrate.ts'], {
      ...Object.fromEntries(passwords),
      DATABASE_URL: url,
      START_PATIENCE: '0ms',
      LAPTOP_MODE: 'true',
    });
  const refused = run(changed(hub.adminDatabaseUrl, { pathname: '/nowhere' }));
  refused.child.send({});
  t.is(await refused.ended, 78);
  t.regex(
    refused.errors(),
    /^migrate: The configuration is not usable: DATABASE_URL: .* refuses: database "nowhere" .*\n$/,
  );
  const away = run(changed(hub.adminDatabaseUrl, { host: '127.0.0.1:1' }));
  away.child.send({});
  t.is(await away.ended, 1);
  t.regex(away.errors(), /^migrate: DATABASE_URL: PostgreSQL at 127\.0\.0\.1:1 is not there, [^\n]*\n$/);
});

for (const bus of ['embedded', ...(kafkaIsThere ? ['kafka'] : [])] as const) {
  test(`${bus}: BUS_PARTITIONS other than what a topic has is a warning`, async (t) => {
    const KAFKA_BROKERS = process.env['TEST_KAFKA_BROKERS'];
    const engine = bus === 'kafka' ? { KAFKA_BROKERS } : { BUS_DATABASE_URL: hub.databaseUrl('bus') };
    const topic = `partitions-${process.pid}`;
    const linesOf = async (BUS_PARTITIONS: string) => {
      const lines: string[] = [];
      const destination = { write: (line: string) => void lines.push(line) };
      const log = openLog({ name: 'test', format: 'json', level: 'info', destination });
      const opened = await openBus(loadConfig(busSettings, { ...engine, BUS_PARTITIONS }), { log, clientId: 'test' });
      await opened.lag(topic, 'readers');
      await opened.stop();
      return lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    };
    t.deepEqual(await linesOf('4'), []);
    t.deepEqual(await linesOf('4'), []);
    const told = (number: number, found: number) =>
      `BUS_PARTITIONS is ${number}, but the topic has ${found}: all processes need the same number`;
    t.deepEqual(await linesOf('3'), [told(3, 4)]);
    t.deepEqual(await linesOf('5'), [told(5, 4)]);
  });
}
