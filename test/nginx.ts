import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { freePorts } from '../dev/ports.ts';
import { eventually } from './eventually.ts';

/** Debian has it where the PATH of users doesn't lead. */
const program = [...(process.env['PATH'] ?? '').split(path.delimiter), '/usr/sbin']
  .map((folder) => path.join(folder, 'nginx'))
  .find((file) => existsSync(file));

/** Whether `startNginx` can work. With CI=true tests go on without asking, and fail where it can't. */
export const nginxIsThere: boolean = program !== undefined;

/** An nginx on a free port of loopback. */
export interface Nginx {
  /** host:port. */
  address: string;
  stop(): Promise<void>;
}

export interface NginxOptions {
  /** Behind the port in the directive `listen`. */
  listen?: string;
  /** Directives of its only server. */
  server: string;
}

/**
 * Starts an nginx that is as its default configuration has it, but for what is said here and where it keeps its files.
 *
 * @throws Error if there is none on this machine
 */
export async function startNginx({ listen = '', server: directives }: NginxOptions): Promise<Nginx> {
  if (program === undefined) throw new Error('There is no nginx on the PATH, nor in /usr/sbin');
  await using starting = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), 'chat4all-nginx-'));
  starting.defer(() => rm(folder, { recursive: true }));
  const [port] = (await freePorts(1)) as [number];
  const places = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((each) => `${each}_temp_path ${folder};`);
  const file = path.join(folder, 'nginx.conf');
  await writeFile(
    file,
    `daemon off; master_process off; pid ${folder}/pid; error_log stderr;
${process.getuid?.() === 0 ? 'user root;' : ''}
events {}
http {
  access_log off; ${places.join(' ')}
  server {
    listen 127.0.0.1:${port} ${listen};
    ${directives}
  }
}
`,
  );
  const server = spawn(program, ['-p', folder, '-c', file], { stdio: ['ignore', 'ignore', 'inherit'] });
  const exited = once(server, 'exit');
  starting.defer(async () => {
    server.kill('SIGTERM');
    await exited;
  });
  await eventually('nginx takes connections', () => takesConnections(port), Boolean);
  const started = starting.move();
  return { address: `127.0.0.1:${port}`, stop: () => started.disposeAsync() };
}

async function takesConnections(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
