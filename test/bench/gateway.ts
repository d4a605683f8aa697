import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { freePorts } from '../../dev/ports.ts';
import { descriptorSet } from '../echo-backend.ts';
import { buildGrpcGateway, foreignDescriptors, startGo } from '../grpc-gateway/build.ts';
import { percentiles } from './percentiles.ts';
import { between } from './processes.ts';

export interface GatewayOptions {
  folder: string;
  /** Of each round. */
  seconds: number;
  rounds: number;
  /** Where our gateway keeps a CPU profile. */
  profile: string | undefined;
  signal: AbortSignal;
}

/** What one gateway did in a round. */
interface Round {
  perSecond: number;
  /** Microseconds of CPU a request. */
  cpu: number;
  p50: number;
  p99: number;
}

/** The medians of a request's rounds, and what share of grpc-gateway's requests a second ours had in the same round. */
export interface GatewayRun {
  name: string;
  ours: Round;
  theirs: Round;
  /** The hub's own gateway (Express, log lines, limits) in its one process, in front of the same server. */
  hub: Round;
  share: number;
  leastShare: number;
  mostShare: number;
}

const root = path.resolve(import.meta.dirname, '../..');
const connections = 32;
/** Node compiles what is called often, in each worker, and isn't done with it sooner. */
const warmUpSeconds = 8;
const startLimit = 30_000;

const id = '018f3c1e-7b2a-7c4d-9e5f-000000000000';
const letter = JSON.stringify({
  letterId: id,
  threadId: '018f3c1e-0000-7c4d-9e5f-0a1b2c3d4e5f',
  from: '018f3c1e-1111-7c4d-9e5f-0a1b2c3d4e5f',
  to: ['018f3c1e-2222-7c4d-9e5f-0a1b2c3d4e5f'],
  ways: ['WAY_ROAD', 'WAY_AIR'],
  content: { text: 'A letter of the length that letters have: some words, and no more than that.' },
});
const head = 'Host: gateway\r\nAuthorization: Bearer 0123456789abcdef\r\nAccept: application/json\r\n';
const requests = {
  GET: `GET /v1/letters/${id} HTTP/1.1\r\n${head}\r\n`,
  POST: `POST /v1/letters HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: ${letter.length}\r\n\r\n${letter}`,
  'list of 50': `GET /v1/threads/${id}/letters?limit=50 HTTP/1.1\r\n${head}\r\n`,
};

/** Our gateway and grpc-gateway in front of the same server, in turn. */
export async function measureGateways({
  folder,
  seconds,
  rounds,
  profile,
  signal,
}: GatewayOptions): Promise<GatewayRun[]> {
  await using started = new AsyncDisposableStack();
  const program = await buildGrpcGateway({ log: console.log, signal });
  const letters = await startGo(program, 'letters');
  started.defer(() => letters.stop());
  const backend = `127.0.0.1:${letters.port}`;
  const go = await startGo(program, 'gateway', backend);
  started.defer(() => go.stop());

  const descriptors = path.join(folder, 'descriptors.binpb');
  await foreignDescriptors(descriptorSet, descriptors);
  const [port] = (await freePorts(1)) as [number];
  const profiling = profile === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`];
  const args = ['--descriptor-set', descriptors, '--backend', backend, '--port', String(port)];
  const node = spawn(
    process.execPath,
    ['--max-semi-space-size=32', ...profiling, path.join(root, 'gateway/standalone.ts'), ...args],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, SHUTDOWN_NOTICE: '0s' },
    },
  );
  const exited = once(node, 'exit');
  started.defer(async () => {
    node.kill();
    await exited;
  });
  await reachable(port, signal);

  const [hubPort] = (await freePorts(1)) as [number];
  const hub = spawn(process.execPath, ['--max-semi-space-size=32', path.join(root, 'gateway/main.ts')], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: {
      ...process.env,
      SHUTDOWN_NOTICE: '0s',
      LOG_FORMAT: 'json',
      PORT: String(hubPort),
      RATE_LIMIT: '0',
      DESCRIPTOR_SET: descriptorSet,
      BACKENDS: `transcoding.v1=${backend}`,
    },
  });
  const hubExited = once(hub, 'exit');
  started.defer(async () => {
    hub.kill();
    await hubExited;
  });
  await reachable(hubPort, signal);

  const runs: GatewayRun[] = [];
  for (const [name, request] of Object.entries(requests)) {
    const measure = async (target: { pid: number; port: number }, length: number): Promise<Round> => {
      signal.throwIfAborted();
      const used = await between(
        () => Promise.resolve({ 'gateway and workers': target.pid }),
        () => load(target.port, request, length),
      );
      const { latencies } = used.result;
      return {
        perSecond: latencies.length / used.seconds,
        cpu: ((used.cpu['gateway and workers'] ?? 0) / latencies.length) * 1e6,
        p50: percentiles(latencies).p50,
        p99: percentiles(latencies).p99,
      };
    };
    const [ours, theirs] = [
      { pid: node.pid as number, port },
      { pid: go.child.pid as number, port: go.port },
    ];
    const hubs = { pid: hub.pid as number, port: hubPort };
    for (const each of [ours, theirs, hubs]) await measure(each, warmUpSeconds);
    const pairs: [Round, Round][] = [];
    const ofHub: Round[] = [];
    for (let round = 0; round < rounds; round++) {
      // Whoever comes first may have the better moment.
      if (round % 2 === 0) pairs.push([await measure(ours, seconds), await measure(theirs, seconds)]);
      else pairs.push([await measure(theirs, seconds), await measure(ours, seconds)].reverse() as [Round, Round]);
      ofHub.push(await measure(hubs, seconds));
    }
    const shares = pairs.map(([own, other]) => own.perSecond / other.perSecond);
    const middle = (some: readonly Round[]): Round => {
      const of = (key: keyof Round) => percentiles(some.map((each) => each[key])).p50;
      return { perSecond: of('perSecond'), cpu: of('cpu'), p50: of('p50'), p99: of('p99') };
    };
    shares.sort(ascending);
    const [leastShare, mostShare] = [shares[0] as number, shares.at(-1) as number];
    const [own, others] = [pairs.map(([each]) => each), pairs.map(([, each]) => each)];
    const medians = { ours: middle(own), theirs: middle(others), hub: middle(ofHub) };
    runs.push({ name, ...medians, share: percentiles(shares).p50, leastShare, mostShare });
  }
  return runs;
}

export function printGateways(runs: readonly GatewayRun[]): void {
  console.log(
    '\nThe hop through the gateway, median of the rounds; the share is that of grpc-gateway’s requests a second\n',
  );
  console.log('               requests/s   CPU µs/request   p50 ms   p99 ms   share   least    most');
  for (const { name, ours, theirs, hub, share, leastShare, mostShare } of runs) {
    const row = (who: string, { perSecond, cpu, p50, p99 }: Round) =>
      [
        who.padEnd(14),
        perSecond.toFixed(0).padStart(11),
        cpu.toFixed(1).padStart(16),
        p50.toFixed(2).padStart(8),
        p99.toFixed(2).padStart(8),
      ].join(' ');
    const shares = [share, leastShare, mostShare].map((each) => each.toFixed(2).padStart(7)).join(' ');
    console.log(`  ${name}\n${row('    ours', ours)} ${shares}\n${row('    grpc-gateway', theirs)}`);
    console.log(row("    the hub's", hub));
    const ratios = [hub.perSecond / ours.perSecond, hub.cpu / ours.cpu, hub.cpu / theirs.cpu];
    const [rate, cpu, cpuOfGo] = ratios.map((each) => each.toFixed(2));
    console.log(
      `    the hub's own mode, in one process: ${rate} of our requests/s, ${cpu} of our CPU, ${cpuOfGo} of grpc-gateway's`,
    );
    console.log(`  ${share >= 1.2 ? 'reached    ' : 'NOT REACHED'} ${name}: ${share.toFixed(2)} (at least 1.2)`);
  }
}

function ascending(a: number, b: number): number {
  return a - b;
}

async function reachable(port: number, signal: AbortSignal): Promise<void> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(startLimit)]);
  for (;;) {
    limit.throwIfAborted();
    const socket = connect(port, '127.0.0.1');
    const isThere = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isThere) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Sends a request on many connections, on each of them anew as soon as it is answered. @returns milliseconds, ascending */
async function load(port: number, request: string, seconds: number): Promise<{ latencies: number[] }> {
  const latencies: number[] = [];
  const end = performance.now() + seconds * 1_000;
  await Promise.all(
    Array.from({ length: connections }, () => converse(connect(port, '127.0.0.1'), request, end, latencies)),
  );
  latencies.sort(ascending);
  return { latencies };
}

function converse(socket: Socket, request: string, end: number, latencies: number[]): Promise<void> {
  return new Promise((resolve, reject) => {
    let began = 0;
    let answer = '';
    const send = () => {
      began = performance.now();
      answer = '';
      socket.write(request);
    };
    socket.setNoDelay();
    socket.on('connect', send);
    socket.on('error', reject);
    socket.on('close', () => resolve());
    socket.on('data', (piece: Buffer) => {
      answer += piece.toString('latin1');
      if (!isWhole(answer)) return;
      if (!answer.startsWith('HTTP/1.1 200')) {
        reject(new Error(`A gateway answered ${answer.slice(0, 300)}`));
        socket.destroy();
        return;
      }
      latencies.push(performance.now() - began);
      if (performance.now() < end) send();
      else socket.end();
    });
  });
}

function isWhole(answer: string): boolean {
  const body = answer.indexOf('\r\n\r\n') + 4;
  if (body < 4) return false;
  const [, length] = /\r\ncontent-length: *(\d+)/i.exec(answer.slice(0, body)) ?? [];
  return length === undefined ? answer.endsWith('\r\n0\r\n\r\n') : answer.length >= body + Number(length);
}
