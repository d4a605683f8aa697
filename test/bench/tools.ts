import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { answering, startToolServer } from '../tool-servers.ts';
import type { FieldOptions } from './messages.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { between, startHub } from './processes.ts';

export interface ToolsReport {
  /** Milliseconds of reads with a million rows of usage, by path. */
  reads: Record<string, Percentiles>;
  /** Milliseconds that an invocation takes beyond its tool, `atOnce` of them under way. */
  added: Percentiles;
  invocationsPerSecond: number;
  /** Seconds of CPU, by process, while invocations came, and percent of the machine that was in use. */
  cpu: Record<string, number>;
  busy: number;
  /** How PostgreSQL reads, by path. */
  plans: Record<string, string>;
  problems: string[];
}

/** The figures to reach: milliseconds at the 95th percentile. */
export const toolGoals = { read: 200, added: 25 };

export interface ToolsOptions extends Pick<FieldOptions, 'folder' | 'processes' | 'signal'> {
  seconds: number;
}

const rows = 1_000_000;
const owners = 1_000;
const callers = 50;
const readsEach = 200;
const readersAtOnce = 4;
const warmUp = 20;
/** What tools of this kind take at least: milliseconds. */
const toolTime = 500;
const adminEmail = 'admin@example.com';

/** How fast usage is read where there is a lot of it, and what an invocation takes beyond its tool. */
export async function measureTools({ folder, seconds, processes, signal }: ToolsOptions): Promise<ToolsReport> {
  await using started = new AsyncDisposableStack();
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    SEED_USERS: String(callers),
    BCRYPT_COST: '10',
  };
  const hub = await startHub(folder, env, signal, { processes });
  started.defer(() => hub.remote.stop());
  const tool = await startToolServer();
  started.defer(() => tool.stop());
  const database = new pg.Client({ connectionString: hub.databaseUrl });
  await database.connect();
  started.defer(() => database.end());

  const admin = await login(hub.url, adminEmail, 'Admin-12345');
  /** What the tool really took, by request: under load a timer is late. */
  const worked = new Map<string, number>();
  tool.on('/work', (response, asked) => {
    const began = performance.now();
    response.on('finish', () => worked.set(String(asked.headers['x-request-id']), performance.now() - began));
    setTimeout(() => answering({ tokens_used: 1 })(response, asked), toolTime);
  });
  const toolId = await createTool(hub.url, admin, `${tool.url}/work`);
  console.log(
    `\nFilling ${rows.toLocaleString('en')} rows of usage of ${owners.toLocaleString('en')} users over a year…`,
  );
  await fill(database);

  const users: string[] = [];
  for (let number = 1; number <= callers; number += 1) {
    const token = await login(hub.url, `user${number}`, 'password123');
    await request(hub.url, '/api/v1/subscriptions/subscribe', { token, body: { plan: 'enterprise' } });
    users.push(token);
  }
  const lastYear = new Date(Date.now() - 365 * 86_400_000).toISOString().slice(0, 10);
  const today = new Date().toISOString().slice(0, 10);
  const dates = `start_date=${lastYear}&end_date=${today}`;
  const paths: Record<string, [path: string, tokens: readonly string[]]> = {
    '/usage': [`/api/v1/usage?limit=100&${dates}`, users],
    '/usage, deep': [`/api/v1/usage?limit=20&offset=900&${dates}`, users],
    '/usage/summary': [`/api/v1/usage/summary?${dates}`, users],
    '/admin/usage/stats': [`/api/v1/admin/usage/stats?${dates}`, [admin]],
  };
  const reads: Record<string, Percentiles> = {};
  for (const [name, [path, tokens]] of Object.entries(paths)) {
    await timeReads(hub.url, path, tokens, warmUp);
    signal.throwIfAborted();
    reads[name] = percentiles(await timeReads(hub.url, path, tokens, readsEach));
  }

  const problems: string[] = [];
  await invokeFor(3, hub.url, toolId, users, problems);
  await sleep(500, undefined, { signal });
  const used = await between(
    () => hub.remote.ask('pids', undefined, 5_000),
    () => invokeFor(seconds, hub.url, toolId, users, problems),
  );
  const taken = used.result;
  const plans = await explain(database, lastYear);
  return {
    reads,
    added: percentiles([...taken].map(([requestId, each]) => each - (worked.get(requestId) ?? toolTime))),
    invocationsPerSecond: taken.size / used.seconds,
    cpu: used.cpu,
    busy: (100 * used.machineCpu) / used.seconds / os.availableParallelism(),
    plans,
    problems,
  };
}

export function printTools({ reads, added, invocationsPerSecond, cpu, busy, problems }: ToolsReport): void {
  console.log(`\nReads with ${rows.toLocaleString('en')} rows of usage, ${readersAtOnce} at once, in milliseconds\n`);
  console.log('                         count     p50     p95     p99     max');
  const line = (name: string, { count, ...of }: Percentiles) => {
    const figures = [of.p50, of.p95, of.p99, of.max].map((each) => each.toFixed(1).padStart(7)).join(' ');
    console.log(`  ${name.padEnd(20)} ${String(count).padStart(7)} ${figures}`);
  };
  for (const [name, found] of Object.entries(reads)) line(name, found);
  console.log(`\nWhat an invocation adds to a tool of ${toolTime} ms, ${callers} at once, in milliseconds\n`);
  line('invoke', added);
  console.log(`  ${invocationsPerSecond.toFixed(0)} a second; the machine was busy to ${busy.toFixed(0)} %`);
  const busiest = Object.entries(cpu).toSorted(([, one], [, other]) => other - one);
  console.log(`  seconds of CPU: ${busiest.map(([name, seconds]) => `${name} ${seconds.toFixed(1)}`).join(', ')}`);
  const reached = (what: string, value: number, goal: number) =>
    console.log(
      `  ${value < goal ? 'reached    ' : 'NOT REACHED'} ${what}: p95 ${value.toFixed(1)} ms (below ${goal})`,
    );
  for (const [name, { p95 }] of Object.entries(reads)) reached(name, p95, toolGoals.read);
  reached('invoke', added.p95, toolGoals.added);
  for (const problem of new Set(problems)) console.log(`  ${problem}`);
}

async function timeReads(url: string, path: string, tokens: readonly string[], count: number): Promise<number[]> {
  const taken: number[] = [];
  let begun = 0;
  const read = async () => {
    while (begun < count) {
      const token = tokens[begun++ % tokens.length]!;
      const began = performance.now();
      await request(url, path, { token });
      taken.push(performance.now() - began);
    }
  };
  await Promise.all(Array.from({ length: readersAtOnce }, read));
  return taken;
}

/** @returns milliseconds of each, by the id of its request */
async function invokeFor(
  seconds: number,
  url: string,
  toolId: string,
  users: readonly string[],
  problems: string[],
): Promise<Map<string, number>> {
  const taken = new Map<string, number>();
  const until = performance.now() + seconds * 1_000;
  await Promise.all(
    users.map(async (token) => {
      // Not all of them at the same moment, again and again.
      await sleep(Math.random() * toolTime);
      while (performance.now() < until) {
        const began = performance.now();
        const body = { input: { n: 1 } };
        await request(url, `/api/v1/tools/${toolId}/invoke`, { token, body }).then(
          (answer) =>
            taken.set((answer as { data: { request_id: string } }).data.request_id, performance.now() - began),
          (error: Error) => problems.push(error.message),
        );
      }
    }),
  );
  return taken;
}

async function request(
  url: string,
  path: string,
  { token, body }: { token?: string; body?: object },
): Promise<unknown> {
  const response = await fetch(`${url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(60_000),
  });
  const text = await response.text();
  if (!response.ok)
    throw new Error(`${path.replace(/[\da-f]{8}-[\da-f-]{27}/, '…')}: ${response.status} ${text.slice(0, 300)}`);
  return JSON.parse(text);
}

async function login(url: string, username: string, password: string): Promise<string> {
  return ((await request(url, '/auth/token', { body: { username, password } })) as { token: string }).token;
}

async function createTool(url: string, token: string, endpoint: string): Promise<string> {
  const body = { name: 'measured', description: 'Takes its time', api_endpoint: endpoint };
  return ((await request(url, '/api/v1/admin/tools', { token, body })) as { data: { id: string } }).data.id;
}

/** Usage of user1 to user1000, of five tools, over a year, and its sums by day. */
async function fill(database: pg.Client): Promise<void> {
  await database.query('set search_path to tools');
  await database.query(
    `insert into tools (id, name, name_key, description, api_endpoint, is_active, created_at)
     select gen_random_uuid(), 'old ' || n, 'old ' || n, 'x', 'https://tools.example.com/' || n, true, now()
       from generate_series(1, 5) as n`,
  );
  await database.query(
    `with those as (select array_agg(id) as ids from tools)
     insert into usage (id, user_id, tool_id, plan, began_at, tokens, status, duration_ms, request_id)
     select gen_random_uuid(), ('00000000-0000-4000-8000-' || lpad((1 + n % $2)::text, 12, '0'))::uuid,
            ids[1 + (random() * 4)::int], (array['free', 'pro', 'enterprise'])[1 + (random() * 2)::int],
            now() - random() * interval '365 days', (random() * 200)::int, 'success', (random() * 2000)::int, 'filled-' || n
       from those, generate_series(1, $1::int) as n`,
    [rows, owners],
  );
  await database.query(
    `insert into usage_days (day, tool_id, plan, part, invocations, tokens, most_tokens)
     select (began_at at time zone 'UTC')::date, tool_id, plan, (random() * 15)::int, count(*), sum(tokens), max(tokens)
       from usage where request_id like 'filled-%' group by 1, 2, 3`,
  );
  // What was filled at once would be written to the disk while something else is measured.
  await database.query('vacuum analyze usage, usage_days');
  await database.query('checkpoint');
}

/** How PostgreSQL reads the sums of one user, and those of all. */
async function explain(database: pg.Client, from: string): Promise<Record<string, string>> {
  const statements = {
    '/usage': `select * from usage where user_id = $1 and began_at >= $2 order by began_at desc, id desc limit 100`,
    '/usage/summary': `select tool_id, (began_at at time zone 'UTC')::date, sum(tokens), count(*) from usage
      where user_id = $1 and began_at >= $2 group by 1, 2`,
    '/admin/usage/stats': `select tool_id, plan, sum(tokens), sum(invocations) from usage_days
      where day >= ($2::timestamptz at time zone 'UTC')::date and $1::uuid is not null group by 1, 2`,
  };
  const found: Record<string, string> = {};
  for (const [name, statement] of Object.entries(statements)) {
    const { rows: lines } = await database.query<{ 'QUERY PLAN': string }>(`explain (analyze, buffers) ${statement}`, [
      '00000000-0000-4000-8000-000000000001',
      from,
    ]);
    found[name] = lines.map((line) => line['QUERY PLAN']).join('\n');
  }
  return found;
}
