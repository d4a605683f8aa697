import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants, existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePorts } from '../ports.ts';
import { lastLines, stopServer, watchServer } from './server-process.ts';

const run = promisify(execFile);

export interface KafkaOptions {
  /** Where topics and the server's log are kept. Made if it is missing. */
  dataDir: string;
  /** A free one by default. */
  port?: number;
  /** Told what takes long: the download at the first start. */
  log?: (line: string) => void;
}

/** A Kafka broker of our own, a single node, on loopback only. To restart it, start again on the same folder and port. */
export interface Kafka {
  /** As KAFKA_BROKERS wants it. */
  brokers: string;
  port: number;
  pid: number;
  /** Settles when the broker is gone, for whatever reason. */
  exited: Promise<void>;
  /** Stops in order; after 20 s by force. */
  stop(): Promise<void>;
  /** SIGKILL: what a crash does. Returns once it is gone. */
  kill(): Promise<void>;
}

const version = '4.1.0';
const home = path.resolve(import.meta.dirname, `../../.chat4all/engines/kafka-${version}`);
const leastJava = 17;
const startLimit = 60_000;
const downloadLimit = 10 * 60_000;
const stopSignals = [
  ['SIGTERM', 20_000],
  ['SIGKILL', 3_000],
] as const;
const startedMessage = 'Kafka Server started';

/** Whether `startKafka` can work on this machine: it needs Java 17 and, for the first time, Maven. */
export function kafkaAvailable(): boolean {
  if (!existsSync(home) && !isOnPath('mvn')) return false;
  const { stderr, status } = spawnSync('java', ['-version'], { encoding: 'utf8', timeout: 10_000 });
  if (status !== 0) return false;
  return Number(/version "(\d+)/.exec(stderr)?.[1] ?? 0) >= leastJava;
}

function isOnPath(program: string): boolean {
  return (process.env['PATH'] ?? '').split(path.delimiter).some((folder) => {
    try {
      accessSync(path.join(folder, program), constants.X_OK);
      return folder !== '';
    } catch {
      return false;
    }
  });
}

/**
 * Starts a Kafka on `dataDir`. The first start on a machine downloads it (54 MB).
 *
 * @throws Error that says what is missing, or with the last lines of the broker's log if it doesn't get ready in a minute
 */
export async function startKafka(options: KafkaOptions): Promise<Kafka> {
  if (!kafkaAvailable()) {
    throw new Error(`Kafka needs Java ${leastJava} or later (java) and, to be downloaded, Maven (mvn) on the PATH.`);
  }
  await download(options.log ?? (() => {}));
  const dataDir = path.resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const [freePort, controllerPort] = await freePorts(2);
  const port = options.port ?? freePort!;
  const configuration = path.join(dataDir, 'server.properties');
  await writeFile(configuration, properties({ dataDir, port, controllerPort: controllerPort! }));
  const logging = path.join(dataDir, 'log4j2.properties');
  await writeFile(logging, loggingProperties);

  const java = ['-Xmx384m', '-XX:+UseSerialGC', `-Dlog4j2.configurationFile=${logging}`, '-cp', path.join(home, '*')];
  if (!existsSync(path.join(dataDir, 'topics', 'meta.properties'))) await format({ java, configuration });
  const { server, exited } = await startServer({ dataDir, java, configuration, port });
  return {
    brokers: `127.0.0.1:${port}`,
    port,
    pid: server.pid!,
    exited,
    stop: () => stopServer(server, exited, stopSignals),
    async kill() {
      server.kill('SIGKILL');
      await exited;
    },
  };
}

function properties(given: { dataDir: string; port: number; controllerPort: number }): string {
  const settings = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${given.controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: `PLAINTEXT://127.0.0.1:${given.port},CONTROLLER://127.0.0.1:${given.controllerPort}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${given.port}`,
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': path.join(given.dataDir, 'topics'),
    // A single node can't replicate.
    'default.replication.factor': '1',
    'offsets.topic.replication.factor': '1',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    // Fewer of everything than a cluster has, to start fast and stay small.
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

/** Fetches Kafka's jars with Maven into a folder beside the right one first: one that was interrupted is never used. */
async function download(log: (line: string) => void): Promise<void> {
  if (existsSync(home)) return;
  log(`Downloading Kafka ${version} with Maven: about 54 MB, only this once.`);
  const unfinished = `${home}.${process.pid}-${randomBytes(4).toString('hex')}`;
  await mkdir(unfinished, { recursive: true });
  try {
    const pom = path.join(unfinished, 'pom.xml');
    await writeFile(pom, pomXml);
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
    const args = ['--batch-mode', '--quiet', '--file', pom, goal, `-DoutputDirectory=${unfinished}`];
    await run('mvn', args, { timeout: downloadLimit, maxBuffer: 16 * 1024 * 1024 }).catch((error: unknown) => {
      const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
      throw new Error(
        `Kafka ${version} could not be downloaded with Maven. Is there a network, and a Maven mirror in ` +
          `~/.m2/settings.xml if you need one? The end of Maven's output:\n${lastLines(stdout + stderr || String(error))}`,
      );
    });
    await rename(unfinished, home).catch((error: NodeJS.ErrnoException) => {
      // Another process was faster.
      if (!existsSync(home)) throw error;
    });
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
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

async function format({ java, configuration }: { java: string[]; configuration: string }): Promise<void> {
  // A cluster id is a UUID in base64; a leading hyphen would be taken for an option.
  const id = `A${randomBytes(16).toString('base64url').slice(1)}`;
  const args = [...java, 'kafka.tools.StorageTool', 'format', '-t', id, '-c', configuration];
  await run('java', args, { timeout: startLimit }).catch((error: unknown) => {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`Kafka's storage could not be formatted:\n${lastLines(stdout + stderr || String(error))}`);
  });
}

async function startServer(options: {
  dataDir: string;
  java: string[];
  configuration: string;
  port: number;
}): Promise<{ server: ChildProcess; exited: Promise<void> }> {
  const { dataDir, java, configuration } = options;
  const logFile = path.join(dataDir, 'server.log');
  const log = await open(logFile, 'a', 0o600);
  const logStart = (await log.stat()).size;
  // A process group of its own: Ctrl-C in the terminal must not stop it before those that use it.
  const server = spawn('java', [...java, 'kafka.Kafka', configuration], {
    cwd: dataDir,
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  });
  let gone = false;
  const exited = new Promise<void>((resolve) => {
    const end = () => {
      gone = true;
      resolve();
    };
    server.once('error', end);
    server.once('exit', end);
  });
  await log.close();
  watchServer(server, exited, 'kill "$1"');

  const written = async () => (await readFile(logFile)).subarray(logStart).toString();
  const giveUp = Date.now() + startLimit;
  while (!gone && Date.now() < giveUp) {
    if ((await stat(logFile)).size > logStart && (await written()).includes(startedMessage)) return { server, exited };
    await Promise.race([sleep(50), exited]);
  }
  if (!gone) await stopServer(server, exited, stopSignals);
  throw new Error(
    `Kafka doesn't start on port ${options.port} in ${dataDir}. The end of its log:\n${lastLines(await written())}`,
  );
}
