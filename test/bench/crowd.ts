import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { commands as crowdCommands, Tally } from '../hostile/crowd.ts';
import { beHonest, type Honest } from '../hostile/honest.ts';
import type { Person } from '../flows/meshes.ts';
import { openRest, type Token } from '../rest.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { startHub } from './processes.ts';
import { openRemote } from './remote.ts';

export interface CrowdReport {
  /** Milliseconds of a send or a read of a message by an honest client: alone, and beside the crowd. */
  quiet: Percentiles;
  beside: Percentiles;
  /** Of the 99th percentiles. */
  ratio: number;
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
  const measure = (length: number): Promise<Honest> => {
    signal.throwIfAborted();
    return beHonest(hub.url, hub.grpcPorts['file'] as number, people, length);
  };
  await measure(warmUpSeconds);
  const quiet = await measure(seconds);

  const file = path.resolve(import.meta.dirname, '../hostile/crowd.ts');
  const crowd = openRemote<typeof crowdCommands>(file, 'inherit', signal);
  started.defer(() => crowd.stop());
  await crowd.ask('start', { url: hub.url, grpcPorts: hub.grpcPorts, clients }, startLimit);
  await sleep(settleTime, undefined, { signal });
  const beside = await measure(seconds);
  const tally = await crowd.ask('stop', undefined as never, startLimit);

  const [alone, amid] = [percentiles(quiet.latencies), percentiles(beside.latencies)];
  const problems = [...quiet.harmed, ...beside.harmed];
  return { quiet: alone, beside: amid, ratio: amid.p99 / alone.p99, problems, tally };
}

export function printCrowd({ quiet, beside, ratio, problems, tally }: CrowdReport): void {
  console.log(`\nAn honest client beside ${clients} that mean harm: a send or a read of a message, in milliseconds\n`);
  console.log('                  count     p50     p95     p99     max');
  for (const [name, { count, ...of }] of [['alone', quiet] as const, ['beside them', beside] as const]) {
    const figures = [of.p50, of.p95, of.p99, of.max].map((each) => each.toFixed(1).padStart(7)).join(' ');
    console.log(`  ${name.padEnd(13)} ${String(count).padStart(7)} ${figures}`);
  }
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
