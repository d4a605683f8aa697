import { Client, credentials, type ChannelCredentials, type ServiceError } from '@grpc/grpc-js';
import test from 'ava';
import { loadConfig } from '#lib/config.ts';
import { openTransport, transportSettings } from '#lib/rpc/transport.ts';
import { createAuthority, writeCertificates } from '../certificates.ts';
import { eventually } from '../eventually.ts';
import { startMesh } from '../harness.ts';
import { opened, openedFolder, openedTogether } from '../opened.ts';
import { openRest, type Problem, type Token } from '../rest.ts';
import { contentOf, download, mebibyte, uploadFile } from './files.ts';
import { ended, openConversation, send, type Person } from './meshes.ts';

/** The mesh with certificates on every gRPC connection, behind a gateway that has one, too. */

const folder = openedFolder('chat4all-tls-');
const authority = createAuthority('the hub');
const stranger = createAuthority('a stranger');
const here = ['localhost', '127.0.0.1'];
const [good, strange, elsewhere] = openedTogether([
  { open: () => writeCertificates(folder, 'GRPC_TLS', authority.issue(here), authority) },
  { open: () => writeCertificates(folder, 'GRPC_TLS', stranger.issue(here), stranger) },
  { open: () => writeCertificates(folder, 'GRPC_TLS', authority.issue(['elsewhere.test']), authority) },
]) as [Record<string, string>, Record<string, string>, Record<string, string>];

const mesh = opened(
  () => startMesh({ bus: 'embedded', env: good }),
  (mesh) => mesh.stop(),
);
const people = opened(() => Promise.all(['user1', 'user2', 'user3'].map(logIn)));

async function logIn(username: string): Promise<Person> {
  const json = { username, password: 'password123' };
  const { token, user_id: userId } = await openRest(mesh.url).post<Token>('/auth/token', json);
  return { userId, username, rest: openRest(mesh.url, token) };
}

test('messages and files go through a mesh that is encrypted everywhere', async (t) => {
  const [user1, user2] = people as [Person, Person];
  const conversation = await openConversation(people);
  t.is((await ended(user1, await send(user1, conversation))).status, 'delivered');

  // Of several chunks, so that streams go both ways through the windows of an encrypted connection.
  const content = contentOf('tls', 12 * mebibyte);
  const { file_id } = await uploadFile(user1, content, { chunkSize: 5 * mebibyte });
  const sent = await send(user1, conversation, { channels: ['all'], payload: { type: 'file', file_id } });
  t.is((await ended(user2, sent)).status, 'delivered');
  t.is((await download(user2, file_id)).sha256, await content.sha256());
});

test('the gateway sees all of it healthy', async (t) => {
  // On a busy machine a service may answer too late to count as well at once.
  const status = await eventually(
    'the gateway is ready',
    async () => (await openRest(mesh.url).raw('GET', '/ready')).status,
    (status) => status === 200,
  );
  t.is(status, 200);
});

test('no service answers who shows no certificate of its authority, not even about its health', async (t) => {
  const { client: known } = openTransport(loadConfig(transportSettings, good));
  const { key, cert } = stranger.issue(here);
  const callers: [string, ChannelCredentials, number][] = [
    ['with a certificate', known, 0],
    ['in plain text', credentials.createInsecure(), 14],
    [
      'with a certificate of another authority',
      credentials.createSsl(Buffer.from(authority.cert), Buffer.from(key), Buffer.from(cert)),
      14,
    ],
  ];
  for (const [name, { address }] of Object.entries(mesh.services)) {
    for (const [what, channel, expected] of callers) {
      const client = new Client(address, channel);
      const status = await new Promise<number>((resolve) => {
        client.makeUnaryRequest(
          '/grpc.health.v1.Health/Check',
          () => Buffer.alloc(0),
          (bytes: Buffer) => bytes,
          undefined,
          { deadline: Date.now() + 10_000 },
          (error: ServiceError | null) => resolve(error?.code ?? 0),
        );
      });
      client.close();
      t.is(status, expected, `${name} ${what}`);
    }
  }
});

test('a gateway that the services do not believe, or that speaks plain text, gets nothing through', async (t) => {
  for (const settings of [{}, strange]) {
    const gateway = await mesh.startGateway(settings);
    const { status, body } = await openRest(`http://${gateway.address}`, undefined).call('POST', '/auth/token', {
      json: { username: 'user1', password: 'password123' },
    });
    t.is(status, 503, JSON.stringify(body));
    t.notRegex((body as Problem).detail, /certificate|SSL|TLS|127\.0\.0\.1/i);
  }
});

test('a service under another name than its certificate says is not spoken to', async (t) => {
  const [user1] = people as [Person];
  const impostor = await mesh.startService('conversation', {
    ...elsewhere,
    AUTH_ADDRESS: mesh.services.auth!.address,
  });
  const gateway = await mesh.startGateway({ ...good, BACKENDS: `chat4all.conversation.v1=${impostor.address}` });
  const token = await mesh.userToken(user1);
  const { status } = await openRest(`http://${gateway.address}`, token).call('GET', '/v1/conversations');
  t.is(status, 503);
});

test('a process whose certificate its own authority did not sign does not start', async (t) => {
  const { GRPC_TLS_CA } = good;
  await t.throwsAsync(mesh.startGateway({ ...strange, GRPC_TLS_CA }), {
    message: /GRPC_TLS_CERT is not signed by GRPC_TLS_CA/,
  });
});
