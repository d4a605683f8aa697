import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  engineHome,
  installOnce,
  installWithGo,
  isOnPath,
  runTool,
  type InstallOptions,
} from '../../dev/engines/install.ts';
import { startServer, type Server } from '../../dev/engines/server-process.ts';
import { freePorts } from '../../dev/ports.ts';

/**
 * S3s other than MinIO, for tests. They keep contents in memory, and check no keys; neither has an AssumeRole that works as MinIO's: moto
 * answers 500, gofakes3 404.
 */
export interface OtherS3 {
  name: string;
  /** What the machine must have for it. */
  needs: string;
  isAvailable(): boolean;
  /** Downloads or builds it, once for this user. */
  install(options?: InstallOptions): Promise<void>;
  /** Starts an empty one on a free port, with what the file service needs to use it. `dataDir` is where its log is kept. */
  start(dataDir: string): Promise<{ server: Server; env: Record<string, string> }>;
}

const limits = { install: 5 * 60_000, start: 60_000 };
const stopSignals = [
  ['SIGTERM', 3_000],
  ['SIGKILL', 3_000],
] as const;

const requirements = path.join(import.meta.dirname, 'requirements.txt');
const motoHome = engineHome('moto', createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12));
const motoPython = path.join(motoHome, 'bin/python');

/** https://docs.getmoto.org: what many test against in place of AWS. Written in Python. */
export const moto: OtherS3 = {
  name: 'moto',
  needs: 'Python 3.10 or newer with venv (python3) on the PATH',
  isAvailable() {
    if (existsSync(motoPython)) return true;
    if (!isOnPath('python3')) return false;
    const check = 'import ensurepip, sys; assert sys.version_info >= (3, 10)';
    return spawnSync('python3', ['-c', check], { cwd: tmpdir(), timeout: 10_000 }).status === 0;
  },
  async install({ log, signal } = {}) {
    await installOnce(motoHome, async (unfinished) => {
      log?.('Installing moto, only this once.');
      const options = { limit: limits.install, failure: 'moto could not be installed. Is there a network?', signal };
      await runTool('python3', ['-m', 'venv', unfinished], options);
      // As wheels: nothing that is downloaded is built.
      const wheels = ['--quiet', '--disable-pip-version-check', '--only-binary', ':all:', '--no-deps'];
      const python = path.join(unfinished, 'bin/python');
      await runTool(python, ['-m', 'pip', 'install', ...wheels, '-r', requirements], options);
    });
  },
  start: (dataDir) =>
    startS3('moto', dataDir, motoPython, (port) => ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)]),
};

const gofakes3Version = 'v1.2.0';
const gofakes3Home = engineHome('gofakes3', gofakes3Version);
const gofakes3Program = path.join(gofakes3Home, 'gofakes3');

/** https://github.com/johannesboyne/gofakes3. Written in Go. */
export const gofakes3: OtherS3 = {
  name: 'gofakes3',
  needs: 'Go (go) on the PATH, to be built',
  isAvailable: () => existsSync(gofakes3Program) || isOnPath('go'),
  async install(options = {}) {
    const module = `github.com/johannesboyne/gofakes3/cmd/gofakes3@${gofakes3Version}`;
    const program = { name: 'gofakes3', module, time: 'less than a minute', limit: limits.install };
    await installWithGo(gofakes3Home, program, options);
  },
  start: (dataDir) =>
    startS3('gofakes3', dataDir, gofakes3Program, (port) => ['-backend', 'memory', '-host', `127.0.0.1:${port}`]),
};

async function startS3(name: string, dataDir: string, program: string, argsFor: (port: number) => string[]) {
  await mkdir(dataDir, { recursive: true });
  const [port] = (await freePorts(1)) as [number];
  const endpoint = `http://127.0.0.1:${port}`;
  const isReady = async () => {
    try {
      const response = await fetch(endpoint, { signal: AbortSignal.timeout(1_000) });
      await response.arrayBuffer();
      return true;
    } catch {
      return false;
    }
  };
  const { PATH, TMPDIR } = process.env;
  const server = await startServer({
    name,
    program,
    args: argsFor(port),
    env: { PATH, TMPDIR, HOME: dataDir },
    dataDir,
    port,
    isReady,
    startLimit: limits.start,
    stopSignals,
  });
  const keys = { S3_ACCESS_KEY: `key-of-${name}`, S3_SECRET_KEY: 'Kq8fJx2LzWv71TgBnRpM' };
  return { server, env: { S3_ENDPOINT: endpoint, ...keys } };
}
