import test from 'ava';
import { ConfigError } from '#lib/config.ts';
import { serviceNames } from '#lib/setting-names.ts';
import { unknownSettings } from '#lib/unknown-settings.ts';
import { createAuthority, writeCertificates } from '../test/certificates.ts';
import { openedFolder } from '../test/opened.ts';
import type { Replica } from './hub-ports.ts';
import { childDefinitions } from './hub-processes.ts';

const folder = openedFolder('chat4all-hub-');

/** Where the message service is told that the auth service is, and the gateway, for certificates with these names. */
async function addresses(hosts?: readonly string[]) {
  const authority = createAuthority('ours');
  const env = hosts && (await writeCertificates(folder, 'GRPC_TLS', authority.issue(hosts), authority));
  const { groups } = childDefinitions({
    env: env ?? {},
    spread: 'each',
    replicas: ['auth', 'message'].map((service) => ({ name: service, service })),
    ports: { gateway: 8000, services: { auth: 50051, message: 50053 } },
    secrets: { privateKeys: {}, databasePasswords: {} },
    databaseUrl: 'postgres://127.0.0.1/chat4all',
  } as never);
  const of = (name: string) => groups.flat().find((child) => child.name === name)!.env;
  return [of('message').AUTH_ADDRESS, /chat4all\.message\.v1=([^,]+)/.exec(of('gateway').BACKENDS!)?.[1]];
}

test('npm start: its parts call one another under a name that their certificate has', async (t) => {
  t.deepEqual(await addresses(), ['127.0.0.1:50051', '127.0.0.1:50053']);
  t.deepEqual(await addresses(['localhost', '127.0.0.1']), ['127.0.0.1:50051', '127.0.0.1:50053']);
  t.deepEqual(await addresses(['localhost']), ['localhost:50051', 'localhost:50053']);
  await t.throwsAsync(addresses(['auth.example']), {
    instanceOf: ConfigError,
    message: /GRPC_TLS_CERT is for neither 127\.0\.0\.1 nor localhost/,
  });
});

test('npm start: no process is given a setting that nothing reads, about which it would warn', (t) => {
  const services = serviceNames.filter((name) => name !== 'gateway');
  for (const spread of ['one', 'each'] as const) {
    const { groups } = childDefinitions({
      env: {},
      spread,
      replicas: services.map((service) => ({ name: service, service })),
      ports: { gateway: 8000, services: {} },
      secrets: { privateKeys: {}, databasePasswords: {}, trustedKeys: '', uploadUrlKey: '' },
      databaseUrl: 'postgres://127.0.0.1/chat4all',
    } as never);
    t.deepEqual(
      groups.flat().flatMap(({ env }) => unknownSettings(env)),
      [],
    );
  }
});

test('npm start: metrics have a port for each process, and more processes of a service move no other', (t) => {
  const portsWith = (first: number, replicas: readonly Replica[]) => {
    const { groups } = childDefinitions({
      env: { METRICS_PORT: String(first) },
      spread: 'each',
      replicas,
      ports: { gateway: 8000, services: {} },
      secrets: { privateKeys: {}, databasePasswords: {} },
      databaseUrl: 'postgres://127.0.0.1/chat4all',
    } as never);
    return Object.fromEntries(groups.flat().map(({ name, env }) => [name, Number(env.METRICS_PORT)]));
  };
  const once = ['auth', 'message', 'assistant'].map((service) => ({ name: service, service, number: 0 }));
  const seconds = once.map(({ service }) => ({ name: `${service}-2`, service, number: 1 }));
  const alone = { gateway: 9464, auth: 9465, message: 9467, assistant: 9472 };
  t.deepEqual(portsWith(9464, once), alone);
  t.deepEqual(portsWith(9464, [...once, ...seconds]), {
    ...alone,
    'auth-2': 9565,
    'message-2': 9567,
    'assistant-2': 9572,
  });
  t.throws(() => portsWith(65_500, [...once, ...seconds]), {
    instanceOf: ConfigError,
    message: /METRICS_PORT must be at most 65427/,
  });
});
