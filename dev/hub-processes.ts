import path from 'node:path';
import type { Secrets } from './data-folder.ts';
import { portOrder, type Ports, type Replica } from './hub-ports.ts';
import type { ChildDefinition } from './supervisor.ts';

const root = path.resolve(import.meta.dirname, '..');
/**
 * For processes that files pass through: 1 MiB of new objects before Node looks which are still in use, in place of 16. The
 * buffers of what has passed are freed that much sooner: half of the CPU time, and a third of the growth in memory.
 */
const forBytes = ['--max-semi-space-size=1'];

/** The processes of a hub, with all that each is told: the gateway, and the services behind it. */
export function childDefinitions({
  env,
  replicas,
  ports,
  secrets,
  databaseUrl,
  filesDir,
  mailDir,
  demoToolsUrl,
}: {
  env: NodeJS.ProcessEnv;
  replicas: readonly Replica[];
  ports: Ports;
  secrets: Secrets;
  databaseUrl: string;
  /** Where files are kept that no other store is named for. */
  filesDir: string;
  /** Where mails go as long as no server for them, and no other folder, is named. */
  mailDir: string;
  /** Where the tools to try answer. */
  demoToolsUrl: string;
}): { groups: ChildDefinition[][] } {
  const roleUrl = (name: string) => {
    const url = new URL(databaseUrl);
    url.username = `chat4all_${name}`;
    url.password = secrets.databasePasswords[name]!;
    return url.href;
  };
  const address = (name: string) => `127.0.0.1:${ports.services[name]}`;
  const addresses = Map.groupBy(replicas, ({ service }) => service);
  const { DATABASE_URL: _admin, ...rest } = env;
  const shared: NodeJS.ProcessEnv = {
    ...rest,
    ...Object.fromEntries(
      [...addresses].map(([service, some]) => [
        `${service.toUpperCase()}_ADDRESS`,
        some.map(({ name }) => address(name)).join(','),
      ]),
    ),
    TRUSTED_KEYS: secrets.trustedKeys,
  };
  const bus = env.KAFKA_BROKERS ? {} : { BUS_DATABASE_URL: roleUrl('bus') };

  const gateway: ChildDefinition = {
    name: 'gateway',
    command: [...forBytes, path.join(root, 'gateway/main.ts')],
    env: {
      ...shared,
      PORT: String(ports.gateway),
      BACKENDS: replicas
        .flatMap(({ name, service }) => packagesOf(service).map((each) => `chat4all.${each}.v1=${address(name)}`))
        .join(','),
      IDENTITY_KEY: secrets.privateKeys.gateway,
    },
  };
  const backends = replicas.map(({ name, service }) => ({
    name,
    command: [
      // kafkajs computes a timeout in the past now and then, which Node 24 reports and treats as none.
      '--disable-warning=TimeoutNegativeWarning',
      ...(service === 'file' ? forBytes : []),
      path.join(root, 'services/main.ts'),
      service,
    ],
    env: {
      ...(service === 'auth' ? { SEED_USERS: '5', MAIL_DIR: mailDir } : {}),
      ...(service === 'tools' ? { DEMO_TOOLS_URL: demoToolsUrl } : {}),
      ...shared,
      ...(service === 'file' && !env.S3_ENDPOINT && !env.FILES_DIR ? { FILES_DIR: filesDir } : {}),
      ...(service === 'file' && !env.UPLOAD_URL_KEYS ? { UPLOAD_URL_KEYS: secrets.uploadUrlKey } : {}),
      ...bus,
      GRPC_HOST: env.GRPC_HOST || '127.0.0.1',
      GRPC_PORT: String(ports.services[name]),
      DATABASE_URL: roleUrl(service),
      IDENTITY_KEY: secrets.privateKeys[service],
    },
  }));
  return { groups: withMetricsPorts([[gateway], backends], Number(env.METRICS_PORT || 0)) };
}

/**
 * Each process serves its metrics on a port of its own, from `first` on: the gateway, then the services as their gRPC ports
 * are counted. With 0 there are none, or each takes a free port.
 */
function withMetricsPorts(groups: ChildDefinition[][], first: number): ChildDefinition[][] {
  if (first === 0) return groups;
  const rank = ({ name }: ChildDefinition) => {
    const at = ['gateway', ...portOrder].indexOf(name.replace(/-\d+$/, ''));
    return at === -1 ? Infinity : at;
  };
  const ordered = groups.flat().toSorted((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
  const port = (child: ChildDefinition) => String(first + ordered.indexOf(child));
  return groups.map((group) => group.map((child) => ({ ...child, env: { ...child.env, METRICS_PORT: port(child) } })));
}

/** The packages that the gateway finds at a service. */
function packagesOf(service: string): string[] {
  return service === 'auth' ? ['auth', 'account'] : [service];
}
