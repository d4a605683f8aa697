import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePorts } from '../ports.ts';
import { engineHome, installWithGo, isOnPath, type InstallOptions } from './install.ts';
import { startServer, type Server } from './server-process.ts';

export interface MinioOptions extends InstallOptions {
  /** Where objects, credentials and the server's log are kept. Made if it is missing. */
  dataDir: string;
  /** A free one by default. */
  port?: number | undefined;
  /** Of the administrator, instead of those of the folder. Both or none. */
  accessKey?: string;
  secretKey?: string;
}

/** A MinIO of our own, on a single folder. */
export interface Minio extends Server {
  /** For S3_ENDPOINT. */
  endpoint: string;
  /** Of the administrator. */
  accessKey: string;
  secretKey: string;
}

interface Credentials {
  accessKey: string;
  secretKey: string;
}

const version = 'v0.0.0-20260212201848-7aac2a2c5b7c';
const module = `github.com/minio/minio@${version}`;
/** The folder with its program, once it is installed. */
export const minioHome = engineHome('minio', version);
const program = path.join(minioHome, 'minio');
/** The Go version in its go.mod, as major and minor. */
const leastGo = [1, 24] as const;
/** From this version Go downloads a newer toolchain if a module needs it, unless GOTOOLCHAIN forbids it. */
const leastGoThatUpgrades = [1, 21] as const;
/** What the machine must have for it. */
export const minioNeeds = `Go ${leastGo.join('.')} or later (go) on the PATH, to be built`;
const startLimit = 60_000;
const buildLimit = 15 * 60_000;
const stopSignals = [
  ['SIGTERM', 10_000],
  ['SIGKILL', 3_000],
] as const;

/** Whether `startMinio` can work on this machine: it is built already, or there is a Go that can build it. */
export function minioAvailable(): boolean {
  if (existsSync(program)) return true;
  if (!isOnPath('go')) return false;
  // Not in the folder of another module, whose go.mod would apply.
  const { stdout, status } = spawnSync('go', ['env', 'GOVERSION', 'GOTOOLCHAIN'], {
    cwd: tmpdir(),
    encoding: 'utf8',
    timeout: 10_000,
  });
  if (status !== 0) return false;
  const [goVersion = '', toolchain = ''] = stdout.split('\n');
  const upgrades = toolchain === 'auto' || toolchain.endsWith('+auto');
  return isAtLeast(goVersion, leastGo) || (upgrades && isAtLeast(goVersion, leastGoThatUpgrades));
}

function isAtLeast(goVersion: string, [major, minor]: readonly [number, number]): boolean {
  const found = /go(\d+)\.(\d+)/.exec(goVersion)?.slice(1).map(Number);
  return found !== undefined && (found[0]! > major || (found[0] === major && found[1]! >= minor));
}

/**
 * Starts a MinIO on `dataDir`. The first start on a machine builds it, which takes some minutes. Whoever starts on a folder
 * again gets the same credentials.
 *
 * @throws Error that says what is missing, or with the last lines of the server's log if it doesn't get ready in a minute
 */
export async function startMinio(options: MinioOptions): Promise<Minio> {
  if (!minioAvailable()) throw new Error(`MinIO needs ${minioNeeds}.`);
  await installMinio(options);
  const dataDir = path.resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const { accessKey, secretKey } = options;
  const credentials =
    accessKey !== undefined && secretKey !== undefined ? { accessKey, secretKey } : await credentialsOf(dataDir);
  const port = options.port ?? (await freePorts(1))[0]!;
  const endpoint = `http://127.0.0.1:${port}`;
  const certificates = path.join(dataDir, 'certificates');
  const server = await startServer({
    name: 'MinIO',
    program,
    args: ['server', '--address', `127.0.0.1:${port}`, '--certs-dir', certificates, path.join(dataDir, 'objects')],
    env: serverEnvironment(dataDir, credentials),
    dataDir,
    port,
    isReady: () => answers(`${endpoint}/minio/health/ready`),
    startLimit,
    stopSignals,
    signal: options.signal,
  });
  return { ...server, endpoint, ...credentials };
}

/** Builds MinIO with Go, unless it is there: what the first `startMinio` on a machine does. Its images are no longer made. */
export async function installMinio(options: InstallOptions = {}): Promise<void> {
  await installWithGo(minioHome, { name: 'MinIO', module, time: 'some minutes', limit: buildLimit }, options);
}

/** The folder's own administrator, made up the first time. */
async function credentialsOf(dataDir: string): Promise<Credentials> {
  const file = path.join(dataDir, 'credentials.json');
  if (existsSync(file)) return JSON.parse(await readFile(file, 'utf8')) as Credentials;
  const credentials = {
    accessKey: `chat4all-${randomBytes(4).toString('hex')}`,
    secretKey: randomBytes(24).toString('base64url'),
  };
  await writeFile(`${file}.new`, `${JSON.stringify(credentials, undefined, 2)}\n`, { mode: 0o600 });
  await rename(`${file}.new`, file);
  return credentials;
}

function serverEnvironment(dataDir: string, { accessKey, secretKey }: Credentials): NodeJS.ProcessEnv {
  // Nothing that a user has set for other servers may reach this one, nor may it write into the user's home.
  const { PATH, TMPDIR } = process.env;
  return {
    PATH,
    TMPDIR,
    HOME: dataDir,
    MINIO_ROOT_USER: accessKey,
    MINIO_ROOT_PASSWORD: secretKey,
    MINIO_BROWSER: 'off',
    MINIO_UPDATE: 'off',
    // It drops unfinished uploads after 24 h of its own accord, even those that go on.
    MINIO_API_STALE_UPLOADS_EXPIRY: '72h',
  };
}

async function answers(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}
