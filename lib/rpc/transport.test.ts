import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { Client, credentials, type ChannelCredentials, type ServiceError } from '@grpc/grpc-js';
import test, { type ExecutionContext } from 'ava';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { createAuthority, writeCertificates } from '../../test/certificates.ts';
import { opened, openedFolder } from '../../test/opened.ts';
import { noAuthority } from '../../test/no-authority.ts';
import { ConfigError, loadConfig } from '../config.ts';
import type { HubError } from '../errors.ts';
import { generateKeys, identitySettings, openIdentities } from '../identity.ts';
import { openLog } from '../log.ts';
import { connect } from './client.ts';
import { serve, service, serverSettings } from './server.ts';
import { openTransport, staysHere, transportSettings } from './transport.ts';

const { privateKeys, trusted } = await generateKeys(['auth', 'conversation']);
const identitiesOf = (name: string) =>
  openIdentities(loadConfig(identitySettings, { IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted }));

const folder = openedFolder('chat4all-tls-');

const ours = createAuthority('ours');
const another = createAuthority('another');
const here = ['localhost', '127.0.0.1'];
const settingsOf = (authority: typeof ours, hosts: readonly string[], options?: { expiresAt?: Date }) =>
  writeCertificates(folder, 'GRPC_TLS', authority.issue(hosts, options), authority);
const good = opened(() => settingsOf(ours, here));

async function open(t: ExecutionContext, env: Record<string, string>) {
  const lines: string[] = [];
  const causes: string[] = [];
  const log = openLog({
    name: 'auth',
    format: 'json',
    level: 'info',
    destination: { write: (line: string) => void lines.push(line) },
  });
  const unused = async () => {
    throw new Error('nobody asks for this');
  };
  const server = await serve({
    authority: noAuthority,
    config: loadConfig(serverSettings, { GRPC_PORT: '0', GRPC_DRAIN: '1s', ...env }),
    identities: identitiesOf('auth'),
    log,
    services: [
      service(AuthServiceService, {
        issueToken: unused,
        getCurrentUser: unused,
        listUsers: unused,
        lookupUsers: async () => ({ users: [] }),
      }),
    ],
    dependencies: {},
  });
  t.teardown(() => server.stop());
  const address = `localhost:${server.port}`;
  /** Asks as the conversation service with these settings. */
  async function ask(settings: Record<string, string>, to = address): Promise<string> {
    const config = loadConfig(transportSettings, settings);
    const options = { config, target: 'auth', address: to, identities: identitiesOf('conversation') };
    const connection = connect(AuthServiceService, options);
    try {
      await connection.lookupUsers({ userIds: [], usernames: [] });
      return 'an answer';
    } catch (error) {
      causes.push(((error as HubError).cause as Error).message);
      return (error as HubError).reason;
    } finally {
      connection.close();
    }
  }
  return { server, address, ask, lines, causes };
}

/** Checks the health of the server, which needs no token. @returns the gRPC status, 0 if it answers */
function health(address: string, channel: ChannelCredentials): Promise<number> {
  const client = new Client(address, channel);
  return new Promise<number>((resolve) => {
    client.makeUnaryRequest(
      '/grpc.health.v1.Health/Check',
      () => Buffer.alloc(0),
      (bytes: Buffer) => bytes,
      undefined,
      { deadline: Date.now() + 5_000 },
      (error: ServiceError | null) => resolve(error?.code ?? 0),
    );
  }).finally(() => client.close());
}

const refused = 'SERVICE_UNAVAILABLE';

test('with certificates both sides show one: who has none, or one of another authority, gets no answer', async (t) => {
  const { ask, address } = await open(t, good);
  t.is(await ask(good), 'an answer');
  t.is(await ask({}), refused, 'plain text');
  const stranger = await settingsOf(another, here);
  t.is(await ask(stranger), refused, 'both sides signed by somebody else');

  t.is(await health(address, openTransport(loadConfig(transportSettings, good)).client), 0);
  t.is(await health(address, credentials.createSsl(Buffer.from(ours.cert))), 14, 'without a certificate');
  const { key, cert } = another.issue(here);
  const half = credentials.createSsl(Buffer.from(ours.cert), Buffer.from(key), Buffer.from(cert));
  t.is(await health(address, half), 14, 'the server is believed, the client is not');
  t.is(await health(address, credentials.createInsecure()), 14, 'plain text');
});

test('a server is believed under the names in its certificate only', async (t) => {
  const elsewhere = await settingsOf(ours, ['elsewhere.test']);
  const { ask, address, causes } = await open(t, elsewhere);
  t.is(await ask(good), refused);
  t.regex(String(causes.at(-1)), /No server is connected: .*localhost.*elsewhere\.test/s);
  t.is(await ask(good, address.replace('localhost', '127.0.0.1')), refused);
  const right = await open(t, good);
  t.is(await right.ask(elsewhere), 'an answer', 'of a client only the signature counts: its token says who it is');
  t.is(await right.ask(good, right.address.replace('localhost', '127.0.0.1')), 'an answer');
});

test('a client with certificates speaks to no server in plain text', async (t) => {
  const { ask } = await open(t, {});
  t.is(await ask({}), 'an answer');
  t.is(await ask(good), refused);
});

test('unusable certificates are told by their setting, and no value is shown', async (t) => {
  const other = await settingsOf(ours, here);
  const expired = await settingsOf(ours, here, { expiresAt: new Date(Date.now() - 60_000) });
  const nonsense = path.join(folder, 'nonsense.pem');
  await writeFile(nonsense, 'no certificate');
  const { GRPC_TLS_CERT, GRPC_TLS_KEY, GRPC_TLS_CA } = good;
  const cases: [settings: Record<string, string | undefined>, RegExp][] = [
    [{ GRPC_TLS_CERT }, /set both of GRPC_TLS_CERT and GRPC_TLS_KEY, or none/],
    [{ GRPC_TLS_KEY, GRPC_TLS_CA }, /set both of GRPC_TLS_CERT and GRPC_TLS_KEY, or none/],
    [{ GRPC_TLS_CERT, GRPC_TLS_KEY }, /set all of GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA, or none/],
    [{ GRPC_TLS_CA }, /set all of GRPC_TLS_CERT, GRPC_TLS_KEY and GRPC_TLS_CA, or none/],
    [{ ...good, GRPC_TLS_CERT: path.join(folder, 'missing.pem') }, /GRPC_TLS_CERT can't be read \(ENOENT\)/],
    [{ ...good, GRPC_TLS_CERT: nonsense }, /GRPC_TLS_CERT must be a PEM file with a certificate/],
    [{ ...good, GRPC_TLS_CA: nonsense }, /GRPC_TLS_CA must be a PEM file with a certificate/],
    [{ ...good, GRPC_TLS_KEY: nonsense }, /GRPC_TLS_KEY must be a PEM file with a private key/],
    [{ ...good, GRPC_TLS_KEY: other.GRPC_TLS_KEY }, /GRPC_TLS_KEY is not the key of GRPC_TLS_CERT/],
    [expired, /GRPC_TLS_CERT expired on 20/],
    [
      { ...good, GRPC_TLS_CA: (await settingsOf(another, here)).GRPC_TLS_CA },
      /GRPC_TLS_CERT is not signed by GRPC_TLS_CA/,
    ],
  ];
  for (const [settings, message] of cases) {
    const error = t.throws(() => openTransport(loadConfig(transportSettings, settings)), { instanceOf: ConfigError });
    t.regex(error.message, message);
    t.notRegex(error.message, /BEGIN|nonsense|chat4all-tls/);
  }
});

test('plain text that leaves the machine is warned of', async (t) => {
  const warned = (lines: string[]) => lines.some((line) => line.includes('is plain text'));
  t.false(warned((await open(t, {})).lines));
  t.true(warned((await open(t, { GRPC_HOST: '0.0.0.0' })).lines));
  t.false(warned((await open(t, { ...good, GRPC_HOST: '0.0.0.0' })).lines));

  const local = ['127.0.0.1', '127.0.0.1:50051', 'localhost', 'localhost:1', '::1', '[::1]:1', 'dns:///localhost:1'];
  for (const target of [...local, 'dns:127.0.0.1:1', 'ipv4:127.8.0.1:2', 'unix:/run/auth.sock'])
    t.true(staysHere(target), target);
  for (const target of [
    '0.0.0.0',
    '::',
    'auth:50051',
    'dns:///auth:50051',
    '10.0.0.1:1',
    'localhost.evil.test:1',
    '127.evil.test',
  ])
    t.false(staysHere(target), target);
});
