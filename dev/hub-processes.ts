import path from 'node:path';
import { ConfigError, ownVariable } from '#lib/config.ts';
import { settingNames } from '#lib/setting-names.ts';
import { namesIn, readCertificates } from '#lib/tls.ts';
import type { Secrets } from './data-folder.ts';
import { countPorts, type Ports, type Replica } from './hub-ports.ts';
import type { ChildDefinition } from './supervisor.ts';

const root = path.resolve(import.meta.dirname, '..');
/**
 * The size of V8's semi-space in MiB, up to 16 by default: how much is allocated before new objects are garbage-collected. For files a small
 * one is better: buffers that have been passed on are freed sooner, which halves the CPU time of an upload. For messages a large one is
 * better: with 1 MiB the gateway spends a third of its CPU time on garbage collection. Services that are no part of a message's way do
 * with less, which makes their processes some 25 MiB smaller. All in one process, it is as for messages.
 */
const semiSpacesMiB: Record<string, number> = { file: 1, auth: 2, tools: 2, assistant: 2 };

/** @param process a service, `gateway`, or `hub` for all in one */
function semiSpaceOf(process: string): string {
  return `--max-semi-space-size=${semiSpacesMiB[process] ?? 8}`;
}

// kafkajs computes a timeout in the past now and then, which Node 24 reports and treats as none.
const forKafka = ['--disable-warning=TimeoutNegativeWarning'];

/** The gateway or a process of a service, with its own environment. */
interface Part {
  name: string;
  /** `gateway`, too. */
  service: string;
  env: NodeJS.ProcessEnv;
}

/** How the parts of a hub are spread over processes: all in one, or each in one of its own. */
export type Spread = 'one' | 'each';

/** The processes of a hub, with all that each is told: the gateway, and the services behind it. */
export function childDefinitions({
  env,
  spread,
  replicas,
  ports,
  secrets,
  databaseUrl,
  filesDir,
  mailDir,
  demoToolsUrl,
}: {
  env: NodeJS.ProcessEnv;
  /** With several processes of a service it has to be `each`. */
  spread: Spread;
  replicas: readonly Replica[];
  ports: Ports;
  secrets: Secrets;
  databaseUrl: string;
  /** The folder for file contents, unless an S3 is configured. */
  filesDir: string;
  /** The folder for mails, unless a mail server or another folder is configured. */
  mailDir: string;
  /** The URL of the demo tools. */
  demoToolsUrl: string;
}): { groups: ChildDefinition[][] } {
  const roleUrl = (name: string) => {
    const url = new URL(databaseUrl);
    url.username = `chat4all_${name}`;
    url.password = secrets.databasePasswords[name]!;
    return url.href;
  };
  const host = ownHost(env);
  const address = (name: string) => `${host}:${ports.services[name]}`;
  // Some services are not called by others, so there is no setting for their address.
  const called = replicas.filter(({ service }) => settingNames.includes(addressSetting(service)));
  const addresses = Map.groupBy(called, ({ service }) => service);
  const { DATABASE_URL: _admin, ...rest } = env;
  const shared: NodeJS.ProcessEnv = {
    ...rest,
    ...Object.fromEntries(
      [...addresses].map(([service, some]) => [
        addressSetting(service),
        some.map(({ name }) => address(name)).join(','),
      ]),
    ),
    TRUSTED_KEYS: secrets.trustedKeys,
    GRPC_HOST: env.GRPC_HOST || '127.0.0.1',
    ...(env.KAFKA_BROKERS ? {} : { BUS_DATABASE_URL: roleUrl('bus') }),
  };
  const defaults: Record<string, NodeJS.ProcessEnv> = {
    auth: { SEED_USERS: env.SEED_USERS ?? '5', MAIL_DIR: env.MAIL_DIR ?? mailDir },
    tools: { DEMO_TOOLS_URL: env.DEMO_TOOLS_URL ?? demoToolsUrl },
    file: {
      ...(env.S3_ENDPOINT || env.FILES_DIR ? {} : { FILES_DIR: filesDir }),
      ...(env.UPLOAD_URL_KEYS ? {} : { UPLOAD_URL_KEYS: secrets.uploadUrlKey }),
    },
  };
  const gateway: Part = {
    name: 'gateway',
    service: 'gateway',
    env: {
      PORT: String(ports.gateway),
      BACKENDS: replicas
        .flatMap(({ name, service }) => packagesOf(service).map((each) => `chat4all.${each}.v1=${address(name)}`))
        .join(','),
      IDENTITY_KEY: secrets.privateKeys.gateway,
    },
  };
  const services = replicas.map(({ name, service }): Part => ({
    name,
    service,
    env: {
      ...defaults[service],
      GRPC_PORT: String(ports.services[name]),
      DATABASE_URL: roleUrl(service),
      IDENTITY_KEY: secrets.privateKeys[service],
    },
  }));
  if (spread === 'one') return { groups: [[allInOne([gateway, ...services], shared)]] };
  const definition = ({ name, service, env: own }: Part): ChildDefinition => ({
    name,
    command: [
      semiSpaceOf(service),
      ...(service === 'gateway'
        ? [path.join(root, 'gateway/main.ts')]
        : [...forKafka, path.join(root, 'services/main.ts'), service]),
    ],
    env: { ...shared, ...own },
  });
  return {
    groups: withMetricsPorts(
      [[definition(gateway)], services.map(definition)],
      replicas,
      Number(env.METRICS_PORT || 0),
    ),
  };
}

/**
 * Where the parts of a hub on this machine call one another: under a name that their certificate has, where they have one.
 *
 * @throws ConfigError if it has none
 */
function ownHost({ GRPC_TLS_CERT: file }: NodeJS.ProcessEnv): string {
  const hosts = ['127.0.0.1', 'localhost'];
  if (!file) return hosts[0]!;
  const [host] = namesIn(readCertificates('GRPC_TLS_CERT', file), hosts);
  if (host !== undefined) return host;
  throw new ConfigError([`GRPC_TLS_CERT is for neither ${hosts.join(' nor ')}, where npm start calls its services`]);
}

/** All parts in one process, where what is for one of them alone has its name before it. */
function allInOne(parts: readonly Part[], shared: NodeJS.ProcessEnv): ChildDefinition {
  const own = parts.flatMap(({ service, env }) =>
    Object.entries(env).map(([setting, value]) => [ownVariable(service, setting), value] as const),
  );
  const services = parts.map(({ service }) => service).filter((service) => service !== 'gateway');
  return {
    name: 'hub',
    command: [semiSpaceOf('hub'), ...forKafka, path.join(root, 'dev/all-in-one.ts'), ...services],
    env: { ...Object.fromEntries(own), ...shared },
  };
}

/**
 * Each process serves its metrics on a port of its own: the gateway on `first`, the services on those after it, as their gRPC ports are
 * counted, so that a second process of one moves no other. With 0 there are none, or each takes a free port.
 *
 * @throws ConfigError if there are not so many ports
 */
function withMetricsPorts(
  groups: ChildDefinition[][],
  replicas: readonly Replica[],
  first: number,
): ChildDefinition[][] {
  if (first === 0) return groups;
  const ports: Record<string, number> = { gateway: first, ...countPorts(replicas, first + 1) };
  const most = Math.max(...Object.values(ports));
  if (most > 65_535)
    throw new ConfigError([`METRICS_PORT must be at most ${first - (most - 65_535)}: each process has one`]);
  const withPort = (child: ChildDefinition) => ({
    ...child,
    env: { ...child.env, METRICS_PORT: String(ports[child.name]) },
  });
  return groups.map((group) => group.map(withPort));
}

/** The setting that says where a service is. */
function addressSetting(service: string): string {
  return `${service.toUpperCase()}_ADDRESS`;
}

/** The packages that the gateway finds at a service. */
function packagesOf(service: string): string[] {
  return service === 'auth' ? ['auth', 'account'] : [service];
}
