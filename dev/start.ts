import { existsSync } from 'node:fs';
import path from 'node:path';
import { ConfigError, loadConfig } from '#lib/config.ts';
import { openLog } from '#lib/log.ts';
import { StartError } from '#lib/starting.ts';
import { startHub, type Hub } from './hub.ts';
import { settings } from './settings.ts';

/** `npm start`: the whole hub on this machine, until Ctrl-C. */

const root = path.resolve(import.meta.dirname, '..');

/** Ctrl-C under npm arrives twice, from the terminal and from npm; only a later one counts as a second Ctrl-C. */
const sameSignalMs = 500;

const stop = new AbortController();
const interrupted = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
let firstSignal: number | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // The processes notice that the supervisor is gone, and the database is stopped by its watcher.
    if (firstSignal !== undefined && Date.now() - firstSignal > sameSignalMs) process.exit(1);
    firstSignal ??= Date.now();
    stop.abort();
  });
}
if (process.env.npm_lifecycle_event !== undefined) {
  // npm, or its shell, may end without passing the signal on.
  const parent = process.ppid;
  setInterval(() => process.ppid !== parent && stop.abort(), 250).unref();
}
// A closed terminal or pipe must not end the process before it has stopped gracefully.
process.stdout.on('error', () => {});
process.stderr.on('error', () => {});

try {
  const envFile = path.join(root, '.env');
  if (existsSync(envFile)) process.loadEnvFile(envFile);
  const config = loadConfig(settings);
  if (config.PROCESSES === 'one' && config.REPLICAS > 1) {
    throw new ConfigError(['REPLICAS above 1 needs PROCESSES=each: a process has one of each service']);
  }
  const dataDir = path.resolve(root, config.DATA_DIR);
  const log = openLog({ name: 'hub', format: config.LOG_FORMAT, level: config.LOG_LEVEL });

  const hub = await startHub({
    dataDir,
    port: config.PORT,
    grpcPortBase: config.GRPC_PORT_BASE,
    // Ports that were chosen explicitly are not moved.
    grpcPortsMayMove: !process.env.GRPC_PORT_BASE,
    replicas: config.REPLICAS,
    processes: config.PROCESSES ?? (config.REPLICAS > 1 ? 'each' : 'one'),
    env: process.env,
    log,
    signal: stop.signal,
  });
  console.log(banner(hub, dataDir));
  await interrupted;
  console.log('Stopping…');
  await hub.stop();
  process.exit(0);
} catch (error) {
  if (stop.signal.aborted && (error as Error).name === 'AbortError') process.exit(0);
  console.error(error instanceof StartError || error instanceof ConfigError ? `\n${error.message}\n` : error);
  process.exit(1);
}

function banner({ url: ownUrl, grpcPorts, takenPort }: Hub, dataDir: string): string {
  const url = `http://localhost:${new URL(ownUrl).port}`;
  const users = Number(process.env.SEED_USERS || 5);
  const elsewhere = [
    ...(process.env.DATABASE_URL ? ['the database at DATABASE_URL'] : []),
    ...(process.env.S3_ENDPOINT ? [`the files at ${process.env.S3_ENDPOINT}`] : []),
  ];
  const services = Object.entries(grpcPorts).filter(([name]) => !name.includes('-'));
  const grpc = services.toSorted(([, a], [, b]) => a - b);
  const lines = [
    '',
    `Chat4All is ready: ${url}`,
    `  console ${url}/console`,
    `  gRPC    ${grpc.map(([name, number]) => `${name} ${number}`).join(', ')}`,
    ...(takenPort === undefined
      ? []
      : [`          (later ones than usual, since another program has port ${takenPort})`]),
    `  data    ${[dataDir, ...elsewhere].join(', and ')}`,
  ];
  if (users > 0) {
    lines.push(
      `  users   ${users === 1 ? 'user1' : `user1 to user${users}`}, password: password123; admin, password: Admin-12345`,
      `  try     curl -s ${url}/auth/token -H 'Content-Type: application/json' -d '{"username":"user1","password":"password123"}'`,
      `  invoke  TOKEN=$(curl -s ${url}/auth/token -H 'Content-Type: application/json' -d '{"username":"admin","password":"Admin-12345"}' | node -p 'JSON.parse(fs.readFileSync(0)).token')`,
      `          curl -s ${url}/api/v1/tools/00000000-0000-4000-8000-0000000e0001/invoke -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"input":{"text":"Hello"}}'`,
    );
  }
  lines.push('Ctrl-C stops everything.', '');
  return lines.join('\n');
}
