import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, globSync, mkdirSync, readFileSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { engineHome, installOnce, isOnPath, runTool, type InstallOptions } from '../../dev/engines/install.ts';
import { testProtos } from '../../dev/generate.ts';

const root = path.resolve(import.meta.dirname, '../..');
const sources = [...globSync('*.go', { cwd: import.meta.dirname }), 'go.mod', 'go.sum', 'buf.gen.yaml'].sort();
/** The services that it serves. Those of raw.proto have rules that grpc-gateway doesn't know. */
export const servedProtos = ['transcoding', 'letters'].map((name) => `transcoding/v1/${name}.proto`);
const execute = promisify(execFile);
const buildLimit = 15 * 60_000;
const startLimit = 60_000;

/** Whether grpc-gateway can be built here. */
export function goIsThere(): boolean {
  return isOnPath('go');
}

function home(): string {
  const hash = createHash('sha256');
  for (const name of sources) hash.update(readFileSync(path.join(import.meta.dirname, name)));
  for (const name of servedProtos) hash.update(readFileSync(path.join(root, 'test/protos', name)));
  return engineHome('grpc-gateway', hash.digest('hex').slice(0, 16));
}

/** Builds the program of this folder with its generated code, unless it is there. @returns its path */
export async function buildGrpcGateway({ log, signal }: InstallOptions = {}): Promise<string> {
  const at = home();
  await installOnce(at, async (unfinished) => {
    log?.('Building grpc-gateway with Go: a minute or two, only once for each version of the test protos.');
    const source = path.join(unfinished, 'source');
    for (const name of sources) cpSync(path.join(import.meta.dirname, name), path.join(source, name));
    const go = (...args: string[]) =>
      runTool('go', args, {
        limit: buildLimit,
        failure: 'grpc-gateway could not be built with Go. Is there a network, and a GOPROXY if you need one?',
        cwd: source,
        env: { GOBIN: unfinished, CGO_ENABLED: '0', GOFLAGS: '-mod=readonly' },
        signal,
      });
    await go('install', 'tool');
    const config = testProtos.slice(0, 2);
    const paths = [...servedProtos.map((name) => `test/protos/${name}`), 'proto/chat4all/options'];
    const template = path.join(source, 'buf.gen.yaml');
    await runTool(
      'buf',
      ['generate', ...config, '--template', template, ...paths.flatMap((at) => ['--path', at]), '-o', source],
      {
        limit: buildLimit,
        failure: 'the code for grpc-gateway could not be generated',
        cwd: root,
        env: { PATH: `${unfinished}${path.delimiter}${process.env['PATH'] ?? ''}` },
        signal,
      },
    );
    await go('build', '-trimpath', '-o', path.join(unfinished, 'grpc-gateway'), '.');
  });
  return path.join(at, 'grpc-gateway');
}

/** Writes the part of a descriptor set that grpc-gateway serves, too, or that of other test protos. */
export async function foreignDescriptors(from: string, to: string, served = servedProtos): Promise<void> {
  const set = fromBinary(FileDescriptorSetSchema, await readFile(from));
  set.file = set.file.filter(({ name }) => !name.startsWith('transcoding/') || served.includes(name));
  await writeFile(to, toBinary(FileDescriptorSetSchema, set));
}

/** The sources that are built inside grpc-gateway's module, and where they go in it. */
const exampleSources = { 'register.go': 'server', 'main.go': 'cmd/chat4all-examples' };

/**
 * Builds the program that serves the example services of grpc-gateway, unless it is there.
 *
 * @returns the program, a FileDescriptorSet of the services, and the API configuration of the one whose rules are not in its proto
 */
export async function buildExamples({ log, signal }: InstallOptions = {}): Promise<{
  program: string;
  descriptors: string;
  apiConfiguration: string;
}> {
  const sourceOf = (name: string) => path.join(import.meta.dirname, 'examples', name);
  const version = /grpc-gateway\/v2 (v\S+)/.exec(readFileSync(path.join(import.meta.dirname, 'go.mod'), 'utf8'))?.[1];
  const hash = createHash('sha256').update(String(version));
  for (const name of Object.keys(exampleSources)) hash.update(readFileSync(sourceOf(name)));
  const at = engineHome('grpc-gateway-examples', hash.digest('hex').slice(0, 16));
  await installOnce(at, async (unfinished) => {
    log?.("Building grpc-gateway's examples with Go: a minute or two, only once for each version.");
    const failure =
      "grpc-gateway's examples could not be built with Go. Is there a network, and a GOPROXY if you need one?";
    const module = path.join(unfinished, 'module');
    const env = { CGO_ENABLED: '0', GOFLAGS: '-mod=mod', GOWORK: 'off' };
    const go = (args: string[], cwd: string) => runTool('go', args, { limit: buildLimit, failure, cwd, env, signal });
    const name = 'github.com/grpc-ecosystem/grpc-gateway/v2';
    await go(['mod', 'download', `${name}@${version}`], unfinished);
    const { stdout } = await execute('go', ['env', 'GOMODCACHE']);
    // Its packages are internal: who uses them has to be built inside of it.
    cpSync(path.join(stdout.trim(), `${name}@${version}`), module, { recursive: true });
    await runTool('chmod', ['-R', 'u+w', module], { limit: buildLimit, failure, signal });
    for (const [source, folder] of Object.entries(exampleSources)) {
      const target = path.join(module, 'examples/internal', folder, `chat4all_${source}`);
      mkdirSync(path.dirname(target), { recursive: true });
      cpSync(sourceOf(source), target);
    }
    const program = path.join(unfinished, 'examples');
    await go(['build', '-trimpath', '-o', program, './examples/internal/cmd/chat4all-examples'], module);
    await runTool(program, ['descriptors', path.join(unfinished, 'descriptors.binpb')], { limit: startLimit, failure });
    const configuration = 'examples/internal/proto/examplepb/standalone_echo_service.yaml';
    cpSync(path.join(module, configuration), path.join(unfinished, 'echo.yaml'));
    await rm(module, { recursive: true, force: true });
  });
  const [program, descriptors, apiConfiguration] = ['examples', 'descriptors.binpb', 'echo.yaml'].map((name) =>
    path.join(at, name),
  ) as [string, string, string];
  return { program, descriptors, apiConfiguration };
}

/** A running program of this folder. */
export interface GoProcess {
  child: ChildProcess;
  port: number;
  stop(): Promise<void>;
}

/** Starts grpc-gateway in front of a server, or the server of letters or of the examples. */
export async function startGo(
  program: string,
  ...args: ['gateway', backend: string] | ['letters'] | ['server']
): Promise<GoProcess> {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const [line] = (await Promise.race([
    once(child.stdout, 'data', { signal: AbortSignal.timeout(startLimit) }),
    exited.then(() => [undefined]),
  ])) as [Buffer | undefined];
  if (line === undefined) throw new Error(`${program} ${args.join(' ')} ended at once`);
  return {
    child,
    port: Number(line.toString()),
    async stop() {
      child.stdin.end();
      child.kill();
      await exited;
    },
  };
}
