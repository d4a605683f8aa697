import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { commands as crowdCommands, Tally } from '../hostile/crowd.ts';
import { beHonest, type Honest } from '../hostile/honest.ts';
import type { Person } from '../flows/meshes.ts';
import { openRest, type Token } from '../rest.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { between, startHub, type Used } from './processes.ts';
import { openRemote } from './remote.ts';

export interface CrowdReport {
  /** Milliseconds of a send or a read of a message by an honest client: alone, and beside the crowd. */
  quiet: Percentiles;
  beside: Percentiles;
  /** Of the 99th percentiles. */
  ratio: number;
  /** Percent of the machine's CPU that was in use, by everybody: alone, and beside the crowd. */
  busy: [number, number];
  /** Whatever the honest client was refused. */
  problems: string[];
  tally: Tally;
}

const clients = 100;
const startLimit = 120_000;
const warmUpSeconds = 8;
/** What the crowd needs to hold all that it gets. */
const settleTime = 10_000;

/** What an honest client waits for, alone and beside a hundred that mean harm, at the same hub. */
export async function measureCrowd(folder: string, seconds: number, signal: AbortSignal): Promise<CrowdReport> {
  await using started = new AsyncDisposableStack();
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    SEED_USERS: String(5 + clients),
    BCRYPT_COST: '10',
  };
  const hub = await startHub(folder, env, signal);
  started.defer(() => hub.remote.stop());
  const people = await Promise.all(['user1', 'user2'].map((username) => personOf(hub.url, username)));
  const measure = (length: number): Promise<Used<Honest>> => {
    signal.throwIfAborted();
    return between(
      async () => ({}),
      () => beHonest(hub.url, hub.grpcPorts['file'] as number, people, length),
    );
  };
  await measure(warmUpSeconds);
  const quiet = await measure(seconds);

  const file = path.resolve(import.meta.dirname, '../hostile/crowd.ts');
  const crowd = openRemote<typeof crowdCommands>(file, 'inherit', signal);
  started.defer(() => crowd.stop());
  // In production they have machines of their own. At the lowest priority they slow the hub down only by what they make it do.
  os.setPriority(crowd.pid, os.constants.priority.PRIORITY_LOW);
  await crowd.ask('start', { url: hub.url, grpcPorts: hub.grpcPorts, clients }, startLimit);
  await sleep(settleTime, undefined, { signal });
  const beside = await measure(seconds);
  const tally = await crowd.ask('stop', undefined as never, startLimit);

  const [alone, amid] = [quiet, beside].map(({ result }) => percentiles(result.latencies)) as [
    Percentiles,
    Percentiles,
  ];
  const problems = [...quiet.result.harmed, ...beside.result.harmed];
  const busy = [quiet, beside].map((used) => (100 * used.machineCpu) / used.seconds / os.availableParallelism());
  return { quiet: alone, beside: amid, ratio: amid.p99 / alone.p99, busy: busy as [number, number], problems, tally };
}

export function printCrowd({ quiet, beside, ratio, busy, problems, tally }: CrowdReport): void {
  console.log(`\nAn honest client beside ${clients} that mean harm: a send or a read of a message, in milliseconds\n`);
  console.log('                  count     p50     p95     p99     max');
  for (const [name, { count, ...of }] of [['alone', quiet] as const, ['beside them', beside] as const]) {
    const figures = [of.p50, of.p95, of.p99, of.max].map((each) => each.toFixed(1).padStart(7)).join(' ');
    console.log(`  ${name.padEnd(13)} ${String(count).padStart(7)} ${figures}`);
  }
  console.log(`  the machine was busy to ${busy.map((each) => `${each.toFixed(0)} %`).join(' and ')}`);
  const answers = Object.entries(tally.answers).map(([status, count]) => `${count} × ${status}`);
  console.log(`  the crowd was answered ${answers.join(', ')} (0: not at all)`);
  console.log(
    `  ${ratio < 2 ? 'reached    ' : 'NOT REACHED'} p99 beside them: ${ratio.toFixed(2)} of that alone (below 2)`,
  );
  for (const problem of problems) console.log(`  ${problem}`);
}

async function personOf(url: string, username: string): Promise<Person> {
  const credentials = { username, password: 'password123' };
  const { token, user_id: userId } = await openRest(url).post<Token>('/auth/token', credentials);
  return { userId, username, rest: openRest(url, token) };
}
