import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { RefusedError } from '../../client/client.ts';
import { compose, dependenciesOf, makeSecrets } from '../deployment.ts';
import { eventually } from '../eventually.ts';
import { contentOf, download, mebibyte, uploadFile } from '../flows/files.ts';
import { ended, everyMessage, openConversation, send, sendPatiently, type Person } from '../flows/meshes.ts';
import { serviceNames } from '../harness.ts';
import { opened, openedFolder } from '../opened.ts';
import { openRest, type Token } from '../rest.ts';
import { baseImages, baseImagesAvailable } from './base-images.ts';
import { makeImages, openPodman, startMachine } from './podman.ts';
import { openProject, type Project } from './project.ts';

/**
 * The image and the compose files on a real engine for containers, podman, on a machine of its own inside this one. Without podman, or if
 * this isn't root, these tests are left out.
 */

const real = baseImagesAvailable() ? test.serial : test.serial.skip;
const root = path.resolve(import.meta.dirname, '../..');
const limit = 10 * 60_000;
/** Milliseconds. */
const patience = 2 * 60_000;
const hubContainers = [...serviceNames, 'gateway'];

const folder = openedFolder('chat4all-containers-');
const place = opened(async () => {
  const interfaces = Object.keys(networkInterfaces());
  const podman = await openPodman(path.join(folder, 'podman'), baseImages);
  const envFile = path.join(folder, 'env');
  // What is slow on a busy machine isn't late.
  const env = { ...makeSecrets(), LAPTOP_MODE: 'true', SEED_USERS: '4', DELIVERY_DEADLINE: '10m' };
  const lines = Object.entries(env).map(([name, value]) => `${name}='${value}'\n`);
  await writeFile(envFile, lines.join(''));
  return { podman, envFile, interfaces };
});
const machine = opened(
  () => startMachine(place.podman),
  (started) => started.stop(),
);

/** What is in the hub, to be looked for after a restart. */
const kept = { conversation: '', group: '', fileId: '', sha256: '' };
const gateway = opened(async () => ({ url: `http://127.0.0.1:${await machine.forward(8000)}` }));

async function project(...files: string[]): Promise<Project> {
  return openProject(place.podman, machine, { files, envFile: place.envFile, name: 'chat4all' });
}

/** Tokens are asked for again while the hub says that it can't give any now. */
async function login(url: string, username: string): Promise<Person> {
  const json = { username, password: 'password123' };
  const { body } = await eventually(
    `${username} has a token`,
    () => openRest(url).call('POST', '/auth/token', { json }),
    ({ status }) => status !== 503,
    patience,
  );
  const { token, user_id: userId } = body as Token;
  return { userId, username, rest: openRest(url, token) };
}

/** What a call answers, once the hub doesn't say any more that it can't now. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  const ask = () =>
    call().catch((error: unknown) => {
      if (error instanceof RefusedError && error.status === 503) return undefined;
      throw error;
    });
  return (await eventually('an answer', ask, (found) => found !== undefined, patience)) as T;
}

async function timed(t: ExecutionContext, what: string, work: () => Promise<void>): Promise<void> {
  const began = performance.now();
  await work();
  t.log(`${what}: ${((performance.now() - began) / 1_000).toFixed(1)} s`);
}

/** How often each container was started anew, none of them because it wanted more memory than it may have. */
async function restartsOf(t: ExecutionContext, hub: Project): Promise<Record<string, number>> {
  const restarts: Record<string, number> = {};
  for (const service of hub.services) {
    for (const { Name: name, State: state, RestartCount: count } of await hub.inspect(service)) {
      t.false(state.OOMKilled, name);
      t.is(state.Status, service === 'migrate' ? 'exited' : 'running', name);
      restarts[name] = count;
    }
  }
  return restarts;
}

/** Stops it as compose does; each container ends by itself in the time that it has, save for the brokers of a quorum. */
async function assertStops(t: ExecutionContext, hub: Project, { isQuorum } = { isQuorum: false }): Promise<void> {
  const stopped = await hub.stop();
  for (const { name, exitCode, seconds, grace } of stopped) {
    // 137 is the SIGKILL after the time to stop; Java says 143 where a SIGTERM has ended it in order. A broker asks the majority of the
    // controllers whether it may go: where all of them stop at once, the last one asks in vain.
    const asExpected = name.includes('kafka') ? [0, 143, ...(isQuorum ? [137] : [])] : [0];
    t.true(asExpected.includes(exitCode), `${name}: ${exitCode}`);
    t.log(`${name}: ended with ${exitCode} after ${seconds.toFixed(1)} s of ${grace} s`);
  }
}

real('Dockerfile: builds both images; that of the hub is small, and says what is in it', async (t) => {
  t.timeout(limit);
  await timed(t, 'built', () =>
    makeImages(
      place.podman,
      `mkdir -p "$HOME/.npm"
      podman build --network host --pull-never --volume "$HOME/.npm:/root/.npm" --tag chat4all .
      podman build --network host --pull-never --tag chat4all-minio --target minio .
      podman image inspect chat4all node:24.21.0-bookworm-slim > "$INSPECTED"
      podman run --rm --network none chat4all -e 'process.stdout.write(fs.readFileSync("sbom.cdx.json"))' > "$SBOM"`,
      {
        limit,
        failure: 'The images could not be built.',
        cwd: root,
        env: { INSPECTED: path.join(folder, 'inspected.json'), SBOM: path.join(folder, 'sbom.json') },
      },
    ),
  );
  const read = (file: string): unknown => JSON.parse(readFileSync(path.join(folder, file), 'utf8'));
  const [hub, base] = read('inspected.json') as { Size: number; User: string; Healthcheck?: { Test: string[] } }[];
  const size = (hub!.Size - base!.Size) / 1_000_000;
  t.log(`${size.toFixed(0)} MB beside the base`);
  t.true(size <= 300);
  t.is(hub!.User, 'node');
  t.deepEqual(hub!.Healthcheck?.Test, ['CMD', 'node', 'bin/health.ts']);
  const { bomFormat, components } = read('sbom.json') as {
    bomFormat: string;
    components: { name: string; version: string }[];
  };
  t.is(bomFormat, 'CycloneDX');
  const listed = new Set(components.map(({ name, version }) => `${name}@${version}`));
  const missing = Object.entries(dependenciesOf()).filter(([name, version]) => !listed.has(`${name}@${version}`));
  t.deepEqual(missing, []);
});

real('docker-compose.yml: comes up in order, and each container has the walls that it says', async (t) => {
  t.timeout(limit);
  const hub = await project('docker-compose.yml');
  await timed(t, 'up', () => hub.up());
  for (const service of hubContainers) {
    const [details] = await hub.inspect(service);
    t.is(details!.HostConfig.Memory, 512 * mebibyte, service);
    const status = await hub.exec(service, 'cat', '/proc/1/status');
    t.regex(status, /^Uid:\s+1000\s+1000/m, service);
    t.regex(status, /^Cap(Eff|Bnd):\s+0{16}$/m, service);
    t.regex(status, /^NoNewPrivs:\s+1$/m, service);
    await t.throwsAsync(hub.exec(service, 'touch', '/app/written'), { message: /Read-only file system/ }, service);
    await hub.exec(service, 'touch', '/tmp/written');
  }
  const addresses = await Promise.all(
    hub.services.map(async (service) => {
      const [details] = await hub.inspect(service);
      return [service, details!.NetworkSettings.Networks['chat4all_default']!.IPAddress] as const;
    }),
  );
  const { gateway: ofGateway, ...others } = Object.fromEntries(addresses);
  t.is(ofGateway, compose.services['gateway']!.networks!.default.ipv4_address);
  for (const [service, address] of Object.entries(others)) {
    if (service === 'migrate') continue;
    t.true(Number(address.split('.')[3]) >= 128, `${service} ${address}`);
    const found = await hub.exec('gateway', 'getent', 'hosts', service);
    t.is(found.split(/\s+/)[0], address, service);
  }
  const ports = await hub.podman('port', '--all');
  t.deepEqual([...ports.matchAll(/-> (\S+)/g)].map(([, at]) => at!).toSorted(), [
    '127.0.0.1:5432',
    '127.0.0.1:8000',
    '127.0.0.1:9092',
  ]);
});

real(
  'docker-compose.yml: messages are delivered while 200 MB go through MinIO, and no limit of memory is hit',
  async (t) => {
    t.timeout(limit);
    const hub = await project('docker-compose.yml');
    const { url } = gateway;
    const people = await Promise.all(['user1', 'user2', 'user3', 'user4'].map((name) => login(url, name)));
    const [sender, reader] = people as [Person, Person];
    // Services connect to each other with their first calls, which may be told to try again.
    const conversation = await patiently(() => openConversation([sender, reader]));
    t.is((await ended(sender, await sendPatiently(sender, conversation), patience)).status, 'delivered');

    const restarts = await restartsOf(t, hub);
    const content = contentOf('containers', 200 * mebibyte);
    const group = await openConversation(people);
    const upload = uploadFile(sender, content);
    const burst = people.map(async (person) => {
      const ids: string[] = [];
      for (let count = 0; count < 100; count++) ids.push(await sendPatiently(person, group));
      return ids;
    });
    const [{ file_id: fileId }, ...sent] = await Promise.all([upload, ...burst]);
    for (const id of sent.flat()) t.is((await ended(reader, id, patience)).status, 'delivered');
    const shared = await send(sender, conversation, { payload: { type: 'file', file_id: fileId } });
    t.is((await ended(reader, shared, patience)).status, 'delivered');
    t.is((await download(reader, fileId)).sha256, await content.sha256());
    t.log(await hub.podman('stats', '--no-stream', '--format', '{{.Name}}: {{.MemUsage}}'));
    t.deepEqual(await restartsOf(t, hub), restarts);
    Object.assign(kept, { conversation, group, fileId, sha256: await content.sha256() });
  },
);

real('docker-compose.yml: all ends in the time that it has to stop; after a restart the data is there', async (t) => {
  t.timeout(limit);
  const hub = await project('docker-compose.yml');
  await timed(t, 'stopped', () => assertStops(t, hub));
  await timed(t, 'up again', () => hub.up());
  const reader = await login(gateway.url, 'user2');
  t.is((await everyMessage(reader, kept.conversation)).length, 2);
  t.is((await everyMessage(reader, kept.group)).length, 400);
  t.is((await download(reader, kept.fileId)).sha256, kept.sha256);
  t.is((await ended(reader, await send(reader, kept.conversation), patience)).status, 'delivered');
  await hub.stop();
  await hub.remove();
  t.deepEqual(Object.keys(networkInterfaces()), place.interfaces, 'nothing of it was in the network of this machine');
});

real('docker-compose.replicas.yml: of two of each service and three brokers, one of each may be missing', async (t) => {
  t.timeout(limit);
  const hub = await project('docker-compose.yml', 'docker-compose.replicas.yml');
  await hub.remove();
  await timed(t, 'up', () => hub.up());
  for (const service of serviceNames) {
    const found = await hub.exec('gateway', 'getent', 'ahostsv4', service);
    t.is(new Set(found.split('\n').map((line) => line.split(' ')[0])).size, 3, `two addresses of ${service}\n${found}`);
  }
  const { url } = gateway;
  const [sender, reader] = [await login(url, 'user1'), await login(url, 'user2')];
  const conversation = await patiently(() => openConversation([sender, reader]));
  t.is((await ended(sender, await sendPatiently(sender, conversation), patience)).status, 'delivered');
  const content = contentOf('replicas', 8 * mebibyte);
  const { file_id: fileId } = await patiently(() => uploadFile(sender, content));

  const missing = [...serviceNames, 'kafka-3'].map((service) => `chat4all_${service}_1`);
  await Promise.all(missing.map((name) => hub.podman('stop', '--time', '15', name)));
  t.is((await ended(sender, await sendPatiently(sender, conversation), patience)).status, 'delivered');
  const { file_id: another } = await patiently(() => uploadFile(sender, contentOf('another', 8 * mebibyte)));
  const payload = { type: 'file', file_id: another };
  t.is((await ended(sender, await sendPatiently(sender, conversation, { payload }), patience)).status, 'delivered');
  t.is((await download(sender, fileId)).sha256, await content.sha256());
  await timed(t, 'stopped', () => assertStops(t, hub, { isQuorum: true }));
  await hub.remove();
  t.deepEqual(Object.keys(networkInterfaces()), place.interfaces, 'nothing of it was in the network of this machine');
});
