import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from '../../dev/ports.ts';
import type { RunArgument } from './load.ts';
import { openField, type Field, type FieldOptions } from './messages.ts';
import { readMetrics, sumOf } from './metrics.ts';
import { hundredths, print, whole } from './report.ts';

/** What more processes of a service are good for, behind a network that takes its time. */
export interface ReplicasReport {
  /** Of the network, in milliseconds for each message. */
  latency: number;
  /** Calls to the network that one process has under way at once (`DELIVERIES_AT_ONCE`). */
  atOnce: number;
  partitions: number;
  rates: { replicas: number; deliveriesPerSecond: number; offeredPerSecond: number }[];
  /** Seconds from when a process that was added under load was ready until it had delivered something; and from its start. */
  added: { sinceReady: number; sinceStart: number };
  /** Seconds that the slowest message took while a process of the connectors and of the router was killed. */
  killed: { slowestSeconds: number };
  /** Every service with two processes. */
  pairs: { acceptedPerSecond: number; deliveredPerSecond: number };
  problems: string[];
}

export type ReplicasOptions = Pick<FieldOptions, 'folder' | 'signal'> & { seconds: number };

export const replicasGoals = { two: 1.9, four: 3.6, movedSeconds: 10 };

const channel = 'whatsapp';
const scaled = ['connectors', 'router'] as const;
const counts = [1, 2, 4];
const users = 100;
const latency = 50;
/** So few that one process is busy waiting, and two cores can do the work of four. */
const atOnce = 1;
const partitions = 16;
/** As many messages a second as these times what the processes can deliver: that all of them have enough to do at any time. */
const more = 1.4;
/** What one process delivers, about: of what comes over the bus, and half as much of what has had to wait. */
const oneDelivers = ((atOnce + Math.ceil(atOnce / 2)) * 1_000) / latency;
/** Seconds in which the work spreads before it is counted. */
const spreading = 5;
const warmUpSeconds = 5;
const endLimit = 180_000;
const readyLimit = 60_000;

/** A process beside those of the hub, as if an operator had started one more. */
interface Replica {
  service: (typeof scaled)[number];
  child: ChildProcess;
  metricsPort: number;
  /** As performance.now() tells. */
  startedAt: number;
  readyAt: number;
}

/** Measures how much more is delivered by more processes, and how long work takes to move. On Linux, which tells what a process was started with. */
export async function measureReplicas(options: ReplicasOptions): Promise<ReplicasReport> {
  const problems: string[] = [];
  const scaling = await measureScaling(options, problems);
  const pairs = await measurePairs(options, problems);
  return { latency, atOnce, partitions, ...scaling, pairs, problems };
}

async function measureScaling({ folder, signal, seconds }: ReplicasOptions, problems: string[]) {
  await using started = new AsyncDisposableStack();
  const env = {
    BUS_PARTITIONS: String(partitions),
    DELIVERIES_AT_ONCE: String(atOnce),
    // What waits for its turn is no failure here.
    DELIVERY_DEADLINE: '5m',
  };
  const field = await openField(started, { engine: 'kafka', folder, processes: 'each', crowds: [users], env, signal });
  await setLatency(field.hub.url);
  const added: Replica[] = [];
  started.defer(() => Promise.all(added.map(({ child }) => ended(child))).then(() => {}));
  const delivered = async () => {
    const ports = [...field.metricsPorts, ...added.map(({ metricsPort }) => metricsPort)];
    return sumOf(await readMetrics(ports), 'deliveries_total') ?? 0;
  };
  const add = async (count: number) => {
    const some = await Promise.all(
      Array.from({ length: count }, () => scaled.map((service) => addReplica(field, service))).flat(),
    );
    added.push(...some);
    return some;
  };
  const run = async (argument: Pick<RunArgument, 'seconds' | 'rate'>, meanwhile: () => Promise<void>) => {
    signal.throwIfAborted();
    const all = { users, mode: 'steady', kind: 'one', via: 'rest', ...argument } as const;
    const [result] = await Promise.all([field.load.ask('run', all, argument.seconds * 1_000 + endLimit), meanwhile()]);
    const checked = await field.load.ask('check', undefined, endLimit);
    problems.push(...checked.problems);
    problems.push(
      ...Object.entries(result.refused).map(([why, count]) => `${count} × a send that was refused: ${why}`),
    );
    return checked;
  };
  console.log('\nConnectors and routers, one, two and four of each…');
  await run({ seconds: warmUpSeconds, rate: oneDelivers / 2 }, async () => {});

  const rates: ReplicasReport['rates'] = [];
  let addedIn = { sinceReady: Infinity, sinceStart: Infinity };
  let replicas = 1;
  for (const count of counts) {
    if (count > replicas && replicas === 1) {
      // The first is added while there is more to do than one can.
      await run({ seconds: spreading + 20, rate: more * oneDelivers }, async () => {
        await sleep(spreading * 1_000, undefined, { signal });
        const another = await add(1);
        addedIn = await firstDelivery(
          another.find(({ service }) => service === 'connectors')!,
          signal,
        );
        console.log(`  one more delivers ${hundredths(addedIn.sinceReady)} s after it is ready`);
      });
    } else if (count > replicas) {
      await add(count - replicas);
    }
    replicas = count;
    const rate = Math.round(more * oneDelivers * count);
    let deliveriesPerSecond = 0;
    await run({ seconds: spreading + seconds, rate }, async () => {
      await sleep(spreading * 1_000, undefined, { signal });
      const [before, began] = [await delivered(), performance.now()];
      await sleep((seconds - 1) * 1_000, undefined, { signal });
      deliveriesPerSecond = (((await delivered()) - before) * 1_000) / (performance.now() - began);
    });
    rates.push({ replicas: count, deliveriesPerSecond, offeredPerSecond: rate });
    console.log(`  ${count} of each: ${whole(deliveriesPerSecond)} deliveries a second of ${rate} that were asked for`);
  }

  // So little to do that those who are left soon have done what waited: what counts is how long the move takes.
  const calm = await run({ seconds: spreading + 20, rate: oneDelivers }, async () => {
    await sleep(spreading * 1_000, undefined, { signal });
    for (const service of scaled) added.find((each) => each.service === service)!.child.kill('SIGKILL');
  });
  console.log(`  one of each was killed: the slowest message took ${whole(calm.delivery.max)} ms`);
  return { rates, added: addedIn, killed: { slowestSeconds: calm.delivery.max / 1_000 } };
}

/** All services twice, and nothing may be lost. */
async function measurePairs({ folder, signal, seconds }: ReplicasOptions, problems: string[]) {
  console.log('Two of every service…');
  await using started = new AsyncDisposableStack();
  const crowds = [50];
  const env = { BUS_PARTITIONS: String(partitions) };
  const field = await openField(started, {
    engine: 'kafka',
    folder,
    processes: 'each',
    replicas: 2,
    crowds,
    env,
    signal,
  });
  const argument = { users: 50, mode: 'closed', kind: 'mixed', via: 'rest', seconds, rate: 1 } as const;
  const result = await field.load.ask('run', argument, seconds * 1_000 + endLimit);
  const checked = await field.load.ask('check', undefined, endLimit);
  problems.push(...checked.problems.map((problem) => `with two of each: ${problem}`));
  return {
    acceptedPerSecond: result.accepted / result.sendingSeconds,
    deliveredPerSecond: checked.delivered / checked.deliveredSeconds,
  };
}

/** Has the simulated network take its time, as an administrator does. */
async function setLatency(url: string): Promise<void> {
  const ask = async (method: string, path: string, body: object, token?: string): Promise<{ token: string }> => {
    const headers = {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    };
    const answer = await fetch(`${url}${path}`, {
      method,
      headers,
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as { token: string };
  };
  const { token } = await ask('POST', '/auth/token', { username: 'admin', password: 'Admin-12345' });
  await ask('PUT', `/v1/admin/channels/${channel}/profile`, { latency: { p50_ms: latency, p99_ms: 0 } }, token);
}

/** Starts another process of a service with what the hub's own was started with, on ports of its own. */
async function addReplica({ hub, processes }: Field, service: Replica['service']): Promise<Replica> {
  const pid = (await processes())[service]!;
  const read = async (file: string) => (await readFile(`/proc/${pid}/${file}`, 'utf8')).split('\0').slice(0, -1);
  const [[, ...command], lines, [grpcPort, metricsPort], log] = await Promise.all([
    read('cmdline'),
    read('environ'),
    freePorts(2),
    open(hub.logFile, 'a'),
  ]);
  const environment = lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]);
  const at = command.findIndex((each) => !each.startsWith('-'));
  const startedAt = performance.now();
  const child = fork(command[at]!, command.slice(at + 1), {
    execArgv: command.slice(0, at),
    env: { ...Object.fromEntries(environment), GRPC_PORT: String(grpcPort), METRICS_PORT: String(metricsPort) },
    stdio: ['ignore', log.fd, log.fd, 'ipc'],
    detached: true,
  });
  await log.close();
  await Promise.race([
    once(child, 'message', { signal: AbortSignal.timeout(readyLimit) }),
    once(child, 'exit').then(() => Promise.reject(new Error(`another ${service} doesn't start: see its log`))),
  ]);
  return { service, child, metricsPort: metricsPort!, startedAt, readyAt: performance.now() };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 15_000);
  await exited;
  clearTimeout(timer);
}

async function firstDelivery({ metricsPort, readyAt, startedAt }: Replica, signal: AbortSignal) {
  for (const giveUp = performance.now() + readyLimit; performance.now() < giveUp;) {
    if ((sumOf(await readMetrics([metricsPort]), 'deliveries_total') ?? 0) > 0) {
      const now = performance.now();
      return { sinceReady: (now - readyAt) / 1_000, sinceStart: (now - startedAt) / 1_000 };
    }
    await sleep(50, undefined, { signal });
  }
  return { sinceReady: Infinity, sinceStart: Infinity };
}

export function printReplicas(report: ReplicasReport): void {
  const { rates, added, killed, pairs, problems } = report;
  console.log(
    `\nConnectors and routers over Kafka, ${report.partitions} partitions a topic, a network that takes ${report.latency} ms a message, ${report.atOnce} at once for each process\n`,
  );
  print([
    ['processes of each', 'offered/s', 'deliveries/s', 'of one'],
    ...rates.map(({ replicas, offeredPerSecond, deliveriesPerSecond }) => [
      String(replicas),
      whole(offeredPerSecond),
      whole(deliveriesPerSecond),
      `${hundredths(deliveriesPerSecond / rates[0]!.deliveriesPerSecond)} ×`,
    ]),
  ]);
  console.log(
    `\nOne more under load: delivers ${hundredths(added.sinceReady)} s after it is ready, ${hundredths(added.sinceStart)} s after its start`,
  );
  console.log(`One of each killed under load: the slowest message took ${hundredths(killed.slowestSeconds)} s`);
  console.log(
    `Two of every service, as fast as it goes, mixed: ${whole(pairs.acceptedPerSecond)} accepted/s, ${whole(pairs.deliveredPerSecond)} delivered/s\n`,
  );
  for (const { name, isReached } of replicasJudgements(report)) {
    console.log(`  ${isReached ? 'reached    ' : 'NOT REACHED'} ${name}`);
  }
  for (const problem of problems) console.log(`  ${problem}`);
}

/** What is to be reached, and whether it is. */
export function replicasJudgements({
  rates,
  added,
  killed,
}: Pick<ReplicasReport, 'rates' | 'added' | 'killed'>): { name: string; isReached: boolean }[] {
  const { two, four, movedSeconds } = replicasGoals;
  const of = (count: number) => rates.find(({ replicas }) => replicas === count)?.deliveriesPerSecond ?? 0;
  const times = (count: number, least: number) => ({
    name: `${count} of each deliver ${hundredths(of(count) / of(1))} × as much as one (at least ${least})`,
    isReached: of(count) / of(1) >= least,
  });
  const moves = (what: string, seconds: number) => ({
    name: `${what} moves the work within ${hundredths(seconds)} s (at most ${movedSeconds})`,
    isReached: seconds <= movedSeconds,
  });
  return [
    times(2, two),
    times(4, four),
    moves('one more', added.sinceReady),
    moves('one that is killed', killed.slowestSeconds),
  ];
}
