import { Agent, request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { commands as hashingCommands } from './hashing.ts';
import type { FieldOptions } from './messages.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { between, startHub, type Used } from './processes.ts';
import { openRemote } from './remote.ts';

export interface LoginsReport {
  /** Logins a second: what the machine can hash before and after, and what it did. */
  hashed: [before: number, after: number];
  loggedIn: number;
  /** Of the larger of the two: while the other was measured, something else was at work. */
  ratio: number;
  /** Milliseconds of a login, and of a read of the hub beside them and without them. */
  login: Percentiles;
  readsAlone: Percentiles;
  reads: Percentiles;
  /** Seconds of CPU, by process, while logins came. */
  cpu: Record<string, number>;
  problems: string[];
}

export interface LoginsOptions extends Pick<FieldOptions, 'folder' | 'processes' | 'signal'> {
  seconds: number;
}

const cost = 12;
const atOnce = 50;
const warmUpSeconds = 3;
/** Milliseconds between reads. */
const readPause = 20;
const answerLimit = 30_000;

interface Measured {
  logins: number[];
  reads: number[];
  problems: string[];
}

/** Logins at the usual cost, fifty at once and each from an address of its own, with somebody who reads beside them. */
export async function measureLogins({ folder, seconds, processes, signal }: LoginsOptions): Promise<LoginsReport> {
  await using started = new AsyncDisposableStack();
  const hashing = openRemote<typeof hashingCommands>(path.join(import.meta.dirname, 'hashing.ts'), 'inherit', signal);
  started.defer(() => hashing.stop());
  const hash = () => hashing.ask('measure', { seconds, cost }, seconds * 1_000 + answerLimit);
  const before = await hash();

  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    SEED_USERS: String(atOnce),
    BCRYPT_COST: String(cost),
    TRUST_PROXY: '1',
  };
  const hub = await startHub(folder, env, signal, { processes });
  started.defer(() => hub.remote.stop());
  const agent = new Agent({ keepAlive: true, maxSockets: Infinity });
  started.defer(() => agent.destroy());

  const ask = (method: string, target: string, { json, headers = {} }: { json?: object; headers?: object } = {}) =>
    new Promise<{ status: number; body: string }>((resolve, reject) => {
      const body = json === undefined ? undefined : JSON.stringify(json);
      const sent = request(`${hub.url}${target}`, {
        method,
        agent,
        timeout: answerLimit,
        headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
      });
      sent.on('response', (response) => {
        let text = '';
        response.on('data', (data) => (text += String(data)));
        response.on('end', () => resolve({ status: response.statusCode!, body: text }));
      });
      sent.on('timeout', () => sent.destroy(new Error('no answer')));
      sent.on('error', reject);
      sent.end(body);
    });

  const login = (number: number) =>
    ask('POST', '/api/v1/auth/login', {
      json: { email: `user${number}@example.com`, password: 'password123' },
      headers: { 'x-forwarded-for': `192.0.2.${number}` },
    });
  const first = JSON.parse((await login(1)).body) as { data: { access_token: string } };
  const authorization = `Bearer ${first.data.access_token}`;

  async function run(length: number, clients: number): Promise<Measured> {
    const found: Measured = { logins: [], reads: [], problems: [] };
    const end = performance.now() + length * 1_000;
    const timed = async (times: number[], what: string, work: () => Promise<{ status: number; body: string }>) => {
      const began = performance.now();
      try {
        const { status, body } = await work();
        if (status === 200) times.push(performance.now() - began);
        else found.problems.push(`${what}: ${status} ${body}`);
      } catch (error) {
        found.problems.push(`${what}: ${String(error)}`);
      }
    };
    const logIn = async (number: number) => {
      while (performance.now() < end && !signal.aborted) await timed(found.logins, 'a login', () => login(number));
    };
    const read = async () => {
      for (let turn = 0; performance.now() < end && !signal.aborted; turn += 1) {
        const target = turn % 2 === 0 ? '/v1/users/me' : '/v1/conversations?limit=20';
        await timed(found.reads, 'a read', () => ask('GET', target, { headers: { authorization } }));
        await sleep(readPause);
      }
    };
    await Promise.all([read(), ...Array.from({ length: clients }, (_, index) => logIn(index + 1))]);
    return found;
  }

  await run(warmUpSeconds, atOnce);
  const alone = await run(seconds, 0);
  const used: Used<Measured> = await between(
    () => hub.remote.ask('pids', undefined, 5_000),
    () => run(seconds, atOnce),
  );
  await hub.remote.stop();
  const after = await hash();

  const { logins, reads, problems } = used.result;
  const loggedIn = logins.length / used.seconds;
  return {
    hashed: [before, after],
    loggedIn,
    ratio: loggedIn / Math.max(before, after),
    login: percentiles(logins),
    readsAlone: percentiles(alone.reads),
    reads: percentiles(reads),
    cpu: used.cpu,
    problems: [...alone.problems, ...problems].slice(0, 10),
  };
}

export function printLogins(report: LoginsReport): void {
  const { hashed, loggedIn, ratio, login, readsAlone, reads, cpu, problems } = report;
  const [before, after] = hashed.map((each) => each.toFixed(1));
  console.log(`\n${atOnce} who log in again and again, at cost ${cost} on ${os.availableParallelism()} cores\n`);
  console.log(`  the machine alone hashes ${before} and ${after} passwords a second; ${loggedIn.toFixed(1)} logged in`);
  console.log('\n  milliseconds      count     p50     p95     p99     max');
  for (const [name, { count, ...of }] of [
    ['a login', login],
    ['a read alone', readsAlone],
    ['a read beside', reads],
  ] as const) {
    const figures = [of.p50, of.p95, of.p99, of.max].map((each) => each.toFixed(1).padStart(7)).join(' ');
    console.log(`  ${name.padEnd(13)} ${String(count).padStart(9)} ${figures}`);
  }
  const busiest = Object.entries(cpu).toSorted(([, one], [, other]) => other - one);
  console.log(`\n  seconds of CPU: ${busiest.map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`).join(', ')}`);
  const told = (isReached: boolean) => (isReached ? 'reached    ' : 'NOT REACHED');
  console.log(`  ${told(ratio >= 0.9)} ${ratio.toFixed(2)} of what the machine hashes (at least 0.9)`);
  console.log(`  ${told(reads.p95 < 100)} p95 of reads beside them ${reads.p95.toFixed(1)} ms (below 100 ms)`);
  for (const problem of problems) console.log(`  ${problem}`);
}
