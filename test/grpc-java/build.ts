import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { engineHome, installOnce, isOnPath, runTool, type InstallOptions } from '../../dev/engines/install.ts';

/** A server of grpc-java on Netty (`EchoServer.java`): its jars with Maven, once for this user, and compiled with javac. */

const source = path.join(import.meta.dirname, 'EchoServer.java');
const version = '1.76.0';
const digest = createHash('sha256').update(version).update(readFileSync(source)).digest('hex').slice(0, 12);
const home = engineHome('grpc-java', digest);
const limit = 10 * 60_000;

export const grpcJavaNeeds = 'Java 17 with a compiler (java, javac) and Maven (mvn) on the PATH';

export function grpcJavaAvailable(): boolean {
  return ['java', 'javac', 'mvn'].every(isOnPath);
}

export async function buildGrpcJava({ log, signal }: InstallOptions = {}): Promise<void> {
  await installOnce(home, async (unfinished) => {
    log?.('Downloading grpc-java with Maven: about 12 MB, only this once.');
    const pom = path.join(unfinished, 'pom.xml');
    const dependency = (name: string) =>
      `<dependency><groupId>io.grpc</groupId><artifactId>${name}</artifactId><version>${version}</version></dependency>`;
    await writeFile(
      pom,
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>chat4all.test</groupId>
<artifactId>grpc-java</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>${dependency('grpc-netty-shaded')}${dependency('grpc-stub')}</dependencies></project>`,
    );
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
    const options = { limit, signal, failure: 'grpc-java could not be downloaded or compiled. Is there a network?' };
    await runTool('mvn', ['--batch-mode', '--quiet', '--file', pom, goal, `-DoutputDirectory=${unfinished}`], options);
    await runTool('javac', ['-cp', path.join(unfinished, '*'), '-d', unfinished, source], options);
  });
}

/** Starts the server on a free port of loopback. */
export async function startGrpcJava(): Promise<{ port: number; stop(): Promise<void> }> {
  const classes = [home, path.join(home, '*')].join(path.delimiter);
  const server = spawn('java', ['-Xmx256m', '-cp', classes, 'EchoServer'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = once(server, 'exit');
  const stop = async () => {
    server.stdin.end();
    await exited;
  };
  for await (const line of createInterface(server.stdout)) {
    const [, port] = /^port (\d+)$/.exec(line) ?? [];
    if (port !== undefined) return { port: Number(port), stop };
  }
  throw new Error('The server of grpc-java has ended before it had a port');
}
