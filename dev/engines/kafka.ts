import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { freePorts } from '../ports.ts';
import { engineHome, installOnce, isOnPath, runTool, type InstallOptions } from './install.ts';
import { startServer, type Server } from './server-process.ts';

export interface KafkaOptions extends InstallOptions {
  /** Where topics and the server's log are kept. Made if it is missing. */
  dataDir: string;
  /** A free one by default. */
  port?: number | undefined;
  /** The port on loopback that clients are told to connect to: that of a proxy in front of it. Its own by default. */
  advertisedPort?: number | undefined;
}

/** A Kafka broker of our own, a single node. */
export interface Kafka extends Server {
  /** For KAFKA_BROKERS. */
  brokers: string;
}

const version = '4.1.0';
/** The folder with its jars, once it is installed. */
export const kafkaHome = engineHome('kafka', version);
const leastJava = 17;
/** What the machine must have for it. */
export const kafkaNeeds = `Java ${leastJava} or later (java) and, to be downloaded, Maven (mvn) on the PATH`;
const startLimit = 60_000;
const downloadLimit = 10 * 60_000;
const stopSignals = [
  ['SIGTERM', 20_000],
  ['SIGKILL', 3_000],
] as const;
const startedMessage = 'Kafka Server started';

/** Whether `startKafka` can work on this machine: it needs Java 17 and, for the first time, Maven. */
export function kafkaAvailable(): boolean {
  if (!existsSync(kafkaHome) && !isOnPath('mvn')) return false;
  const { stderr, status } = spawnSync('java', ['-version'], { encoding: 'utf8', timeout: 10_000 });
  if (status !== 0) return false;
  return Number(/version "(\d+)/.exec(stderr)?.[1] ?? 0) >= leastJava;
}

/**
 * Starts a Kafka on `dataDir`. The first start on a machine downloads it (54 MB).
 *
 * @throws Error that says what is missing, or with the last lines of the broker's log if it doesn't get ready in a minute
 */
export async function startKafka(options: KafkaOptions): Promise<Kafka> {
  if (!kafkaAvailable()) {
    throw new Error(`Kafka needs ${kafkaNeeds}.`);
  }
  await installKafka(options);
  const dataDir = path.resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const [freePort, controllerPort] = await freePorts(2);
  const port = options.port ?? freePort!;
  const configuration = path.join(dataDir, 'server.properties');
  const advertisedPort = options.advertisedPort ?? port;
  await writeFile(configuration, properties({ dataDir, port, advertisedPort, controllerPort: controllerPort! }));
  const logging = path.join(dataDir, 'log4j2.properties');
  await writeFile(logging, loggingProperties);

  const java = [
    '-Xmx384m',
    '-XX:+UseSerialGC',
    `-Dlog4j2.configurationFile=${logging}`,
    '-cp',
    path.join(kafkaHome, '*'),
  ];
  if (!existsSync(path.join(dataDir, 'topics', 'meta.properties'))) {
    await format({ java, configuration, signal: options.signal });
  }
  const server = await startServer({
    name: 'Kafka',
    program: 'java',
    args: [...java, 'kafka.Kafka', configuration],
    dataDir,
    port,
    isReady: async (written) => (await written()).includes(startedMessage),
    startLimit,
    stopSignals,
    signal: options.signal,
  });
  return { ...server, brokers: `127.0.0.1:${advertisedPort}` };
}

function properties(given: { dataDir: string; port: number; advertisedPort: number; controllerPort: number }): string {
  const settings = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${given.controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `PLAINTEXT://127.0.0.1:${given.port},CONTROLLER://127.0.0.1:${given.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${given.advertisedPort}`,
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': path.join(given.dataDir, 'topics'),
    // A single node can't replicate.
    'default.replication.factor': '1',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    // Smaller than in a cluster, to start fast and use little memory.
    'offsets.topic.num.partitions': '8',
    'num.network.threads': '2',
    'num.io.threads': '4',
    'group.initial.rebalance.delay.ms': '0',
    'auto.create.topics.enable': 'false',
  };
  return Object.entries(settings)
    .map(([name, value]) => `${name}=${value.replaceAll('\\', '\\\\')}\n`)
    .join('');
}

const loggingProperties = `
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
`;

/** Fetches Kafka's jars with Maven, unless they are there: what the first `startKafka` on a machine does. */
export async function installKafka({ log, signal }: InstallOptions = {}): Promise<void> {
  await installOnce(kafkaHome, async (unfinished) => {
    log?.(`Downloading Kafka ${version} with Maven: about 54 MB, only this once.`);
    const pom = path.join(unfinished, 'pom.xml');
    await writeFile(pom, pomXml);
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
    await runTool('mvn', ['--batch-mode', '--quiet', '--file', pom, goal, `-DoutputDirectory=${unfinished}`], {
      limit: downloadLimit,
      failure:
        `Kafka ${version} could not be downloaded with Maven. Is there a network, and a Maven mirror in ` +
        '~/.m2/settings.xml if you need one?',
      signal,
    });
  });
}

// The last one is what Kafka's own distribution logs with; without it the broker says nothing.
const artifacts = [
  ['org.apache.kafka', 'kafka_2.13', version],
  ['org.apache.kafka', 'kafka-tools', version],
  ['org.apache.logging.log4j', 'log4j-slf4j-impl', '2.24.3'],
];

const pomXml = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>chat4all.dev</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    ${artifacts
      .map(([group, artifact, release]) => {
        const name = `<groupId>${group}</groupId><artifactId>${artifact}</artifactId>`;
        return `<dependency>${name}<version>${release}</version></dependency>`;
      })
      .join('\n    ')}
  </dependencies>
</project>
`;

async function format(options: {
  java: string[];
  configuration: string;
  signal: AbortSignal | undefined;
}): Promise<void> {
  // A cluster id is a UUID in base64; a leading hyphen would be taken for an option.
  const id = `A${randomBytes(16).toString('base64url').slice(1)}`;
  const args = [...options.java, 'kafka.tools.StorageTool', 'format', '-t', id, '-c', options.configuration];
  await runTool('java', args, {
    limit: startLimit,
    failure: "Kafka's storage could not be formatted.",
    signal: options.signal,
  });
}
