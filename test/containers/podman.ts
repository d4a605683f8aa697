import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { mkdir, rmdir, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { promisify } from 'node:util';
import { isOnPath, runTool } from '../../dev/engines/install.ts';
import { eventually } from '../eventually.ts';

const execute = promisify(execFile);

const programs = [
  'podman',
  'runc',
  'iptables',
  'ip',
  'unshare',
  'nsenter',
  'mount',
  'debootstrap',
  'apt-get',
  'python3',
];
/** What the machine must have for it. */
export const podmanNeeds =
  'Debian, to be root, and podman with netavark and aardvark-dns, runc, iptables, iproute2 and debootstrap';

/** Whether containers can be run on this machine. */
export function podmanAvailable(): boolean {
  const hasNetwork = ['/usr/lib/podman', '/usr/libexec/podman'].some((folder) => existsSync(`${folder}/netavark`));
  return process.platform === 'linux' && process.getuid?.() === 0 && hasNetwork && programs.every(isOnPath);
}

/** Podman with a folder of its own for all that it keeps: images, containers, volumes and networks. */
export interface Podman {
  folder: string;
  env: NodeJS.ProcessEnv;
}

/** Prepares podman in an empty folder. It also knows the images of another folder, which it only reads. */
export async function openPodman(folder: string, images?: string): Promise<Podman> {
  await mkdir(path.join(folder, 'tmp'), { recursive: true });
  const write = async (name: string, text: string) => {
    const file = path.join(folder, name);
    await writeFile(file, text);
    return file;
  };
  // Where the machine is itself a container, nobody may raise the limits that it has, as podman does by default.
  const [files, processes] = execFileSync('bash', ['-c', 'ulimit -Hn; ulimit -Hu'], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .map((limit) => Math.min(Number(limit) || 1_048_576, 1_048_576));
  const containers = await write(
    'containers.conf',
    `[containers]
default_ulimits = ["nofile=${files}:${files}", "nproc=${processes}:${processes}"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
image_default_format = "v2s2"
tmp_dir = "${folder}/tmp/libpod"
[network]
network_backend = "netavark"
network_config_dir = "${folder}/networks"
`,
  );
  const storage = await write(
    'storage.conf',
    `[storage]
driver = "overlay"
graphroot = "${imageFolder(folder)}"
runroot = "${folder}/run"
${images === undefined ? '' : `[storage.options]\nadditionalimagestores = ["${imageFolder(images)}"]\n`}`,
  );
  const registries = await write('registries.conf', 'unqualified-search-registries = ["docker.io"]\n');
  const env = {
    ...process.env,
    CONTAINERS_CONF: containers,
    CONTAINERS_STORAGE_CONF: storage,
    CONTAINERS_REGISTRIES_CONF: registries,
    // Else an image has no health check: only Docker's format knows one.
    BUILDAH_FORMAT: 'docker',
    TMPDIR: path.join(folder, 'tmp'),
  };
  return { folder, env };
}

function imageFolder(folder: string): string {
  return path.join(folder, 'images');
}

/** A process with its own mounts: nothing that podman mounts, or starts, outlives it. */
const isolation = ['--mount', '--pid', '--fork', '--mount-proc', '--kill-child'];

/** Runs a script in which podman makes images, with the machine's network. */
export async function makeImages(
  { env }: Podman,
  script: string,
  options: { limit: number; failure: string; cwd?: string; env?: NodeJS.ProcessEnv; signal?: AbortSignal | undefined },
): Promise<void> {
  const isolated = `set -euo pipefail
    names=$(readlink -f /etc/resolv.conf)
    servers=$(cat "$names")
    mount -t tmpfs run /run
    mount -t tmpfs shm /dev/shm
    if [[ ! -e $names ]]; then mkdir -p "$(dirname "$names")"; echo "$servers" > "$names"; fi
    ${script}`;
  await runTool('unshare', [...isolation, 'bash', '-c', isolated], { ...options, env: { ...env, ...options.env } });
}

/** A machine for containers: a network, mounts and processes of its own. */
export interface Machine {
  /** Runs a program on it. @returns the standard output */
  run(program: string, args: readonly string[], options?: { limit?: number }): Promise<string>;
  /** A port of the loopback of this machine, behind which is one of that one. */
  forward(port: number): Promise<number>;
  /** Ends all that runs there. */
  stop(): Promise<void>;
}

/**
 * Starts a machine for podman. It has a network of its own, so the ports that a compose file names are free on it, and neither an interface
 * nor a rule of a firewall is left behind; its processes end with it, and it ends with this process.
 */
export async function startMachine({ folder, env }: Podman): Promise<Machine> {
  const script = `set -eu
    ip link set lo up
    mount -t tmpfs run /run
    mount -t tmpfs shm /dev/shm
    echo ready
    cat > /dev/null`;
  const init = spawn('unshare', ['--net', ...isolation, 'sh', '-c', script], {
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const [ready] = (await Promise.race([
    once(init.stdout, 'data'),
    once(init, 'exit').then(([code]) => Promise.reject<[string]>(new Error(`unshare ended with ${code}`))),
  ])) as [Buffer];
  if (String(ready) !== 'ready\n') throw new Error(String(ready));
  const inside = readFileSync(`/proc/${init.pid}/task/${init.pid}/children`, 'utf8').trim();
  const enter = ['--target', inside, '--net', '--mount', '--pid', '--'];
  const servers: net.Server[] = [];
  const forwarders: ChildProcess[] = [];
  return {
    async run(program, args, { limit = 60_000 } = {}) {
      const { stdout } = await execute('nsenter', [...enter, program, ...args], {
        env,
        timeout: limit,
        maxBuffer: 64 * 1024 * 1024,
      });
      return stdout;
    },
    async forward(port) {
      const socket = path.join(folder, `${port}.socket`);
      const script = path.join(import.meta.dirname, 'forward.ts');
      const forwarder = spawn('nsenter', [...enter, process.execPath, script, socket, String(port)], {
        stdio: 'ignore',
      });
      forwarders.push(forwarder);
      await eventually('the forwarder listens', () => reaches(socket), Boolean);
      const server = net.createServer((client) => {
        const behind = net.connect(socket);
        client.on('error', () => behind.destroy());
        behind.on('error', () => client.destroy());
        client.pipe(behind).pipe(client);
      });
      servers.push(server);
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return (server.address() as net.AddressInfo).port;
    },
    async stop() {
      for (const server of servers) server.close();
      const exited = [init, ...forwarders].map(async (child) => {
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
      });
      // Its first process reads until this, and all others end with that.
      init.stdin.end();
      await Promise.all(exited);
      await removeControlGroups(folder);
    },
  };
}

/** Those of containers that were not ended in order stay, empty. */
async function removeControlGroups(folder: string): Promise<void> {
  const ids = globSync('*', { cwd: path.join(imageFolder(folder), 'overlay-containers') });
  const left = globSync('/sys/fs/cgroup/{.,*}/libpod_parent/libpod-*').filter((group) =>
    ids.some((id) => group.includes(id)),
  );
  for (const group of left.toSorted().toReversed()) await rmdir(group).catch(() => {});
}

function reaches(socket: string): Promise<boolean> {
  const connection = net.connect(socket);
  return new Promise((resolve) => {
    connection.on('connect', () => resolve(true)).on('error', () => resolve(false));
  }).finally(() => connection.destroy()) as Promise<boolean>;
}
