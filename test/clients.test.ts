import { execFileSync } from 'node:child_process';
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { globSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { stringify, parse } from 'yaml';
import { engineHome, installOnce, isOnPath, runTool } from '../dev/engines/install.ts';

/**
 * Clients in other languages, made by the templates of `clients/` from the project's folder. Those of Python and Go are made, and used, by
 * the tutorial of internal services.
 */

const root = path.resolve(import.meta.dirname, '..');
const protos = globSync('**/*.proto', { cwd: path.join(root, 'proto') });
const protocVersion = '4.33.1';
const javaPluginVersion = '1.77.0';
const artifacts = {
  protoc: `com.google.protobuf:protoc:${protocVersion}`,
  'protoc-gen-grpc-java': `io.grpc:protoc-gen-grpc-java:${javaPluginVersion}`,
};

const platform = { x64: 'x86_64', arm64: 'aarch_64' }[process.arch as string];
const canInstall = process.platform === 'linux' && platform !== undefined && isOnPath('mvn');
const withMaven = canInstall ? test : test.skip;

/** A folder with protoc and its plugin for Java, from Maven Central. */
async function installProtoc(): Promise<string> {
  const home = engineHome('protoc', `${protocVersion}-java-${javaPluginVersion}`);
  await installOnce(home, async (unfinished) => {
    for (const [name, artifact] of Object.entries(artifacts)) {
      const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy';
      const what = `-Dartifact=${artifact}:exe:linux-${platform}`;
      await runTool('mvn', ['--batch-mode', '--quiet', goal, what, `-DoutputDirectory=${unfinished}`], {
        limit: 120_000,
        failure: `${name} could not be downloaded with Maven`,
      });
      const [found] = globSync(`${name}-[0-9]*.exe`, { cwd: unfinished });
      await copyFile(path.join(unfinished, found!), path.join(unfinished, name));
      await chmod(path.join(unfinished, name), 0o755);
    }
  });
  return home;
}

/** Makes a client, and returns its files. */
async function made(t: ExecutionContext, template: string): Promise<string[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-clients-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const PATH = [path.join(root, 'node_modules/.bin'), await installProtoc(), process.env.PATH].join(path.delimiter);
  execFileSync('buf', ['generate', '--template', template, '-o', folder], {
    cwd: root,
    env: { ...process.env, PATH },
    stdio: 'pipe',
  });
  return globSync('**/*.{java,cs}', { cwd: folder });
}

withMaven(
  'clients/java.gen.yaml: every message is a class, every service a client, and no file is that of two protos',
  async (t) => {
    t.timeout(240_000);
    const files = await made(t, 'clients/java.gen.yaml');
    for (const file of [
      'com/chat4all/message/v1/SendMessageRequest.java',
      'com/chat4all/message/v1/MessageServiceGrpc.java',
      'com/chat4all/message/v1/EventsProto.java',
      'com/chat4all/router/v1/EventsProto.java',
    ]) {
      t.true(files.includes(`gen-java/${file}`), file);
    }
  },
);

withMaven('clients/csharp.gen.yaml: each proto is one file, in the folder of its namespace', async (t) => {
  t.timeout(240_000);
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-template-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const template = parse(await readFile(path.join(root, 'clients/csharp.gen.yaml'), 'utf8')) as { plugins: object[] };
  // The plugin for gRPC comes with NuGet alone.
  template.plugins = template.plugins.filter((plugin) => 'protoc_builtin' in plugin);
  const file = path.join(folder, 'csharp.gen.yaml');
  await writeFile(file, stringify(template));
  const files = (await made(t, file)).filter((each) => each.startsWith('gen-csharp/Chat4all/'));
  t.is(files.length, protos.length);
  for (const name of ['Message/V1/Events.cs', 'Router/V1/Events.cs'])
    t.true(files.includes(`gen-csharp/Chat4all/${name}`), name);
});

test('the packages of Go are told apart by their folders, whatever the prefix', async (t) => {
  const { managed } = parse(await readFile(path.join(root, 'clients/go.gen.yaml'), 'utf8')) as {
    managed: { override: { file_option: string; value: string }[] };
  };
  t.deepEqual(managed.override, [{ file_option: 'go_package_prefix', value: 'chat4all.example/gen' }]);
  const tutorial = await readFile(path.join(root, 'docs/tutorial-internal-service.md'), 'utf8');
  for (const template of globSync('clients/*.gen.yaml', { cwd: root })) t.true(tutorial.includes(template), template);
});
