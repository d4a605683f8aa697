import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { answering, startToolServer } from '../tool-servers.ts';

/** An invocation that a user has tried. */
export interface ToolCall {
  requestId: string;
  userId: string;
  /** 0 if there was no answer. */
  status: number;
  /** The code of an error, or why there was no answer. */
  code: string;
  /** What it was told to have cost, if it was answered with 200. */
  tokens: number;
}

/** What callers, the tool and the database know of invocations. */
export interface ToolObservations {
  calls: ToolCall[];
  /** What the tool said that each request costs, by its id. */
  said: Map<string, number>;
  usage: { requestId: string; userId: string; status: string; tokens: number }[];
  /** Tokens that are counted, by user. */
  counted: Map<string, number>;
  /** Of the sums by day. */
  summed: { tokens: number; invocations: number };
  /** Rows that should be gone by now, by table. */
  left: Record<string, number>;
}

/** People who invoke a tool all the time, and the tool. */
export interface Invokers {
  calls: ToolCall[];
  /** Never fulfilled; rejected when one of them fails, which none may. */
  failed: Promise<never>;
  /** Invokes no more, and waits for the answers. */
  stop(): Promise<void>;
  /** All that is known, once everything is quiet. */
  observe(client: pg.Client): Promise<ToolObservations>;
}

export interface InvokerOptions {
  url: string;
  /** By user id. */
  tokens: ReadonlyMap<string, string>;
  /** User id of an administrator. */
  administrator: string;
  /** Ends all of them at once. */
  signal: AbortSignal;
}

/** Milliseconds. */
const callLimit = 12_000;
const longestWork = 400;
const pause = 250;
const pauseAfterFailure = 500;

interface Answer {
  status: number;
  code: string;
  data: Record<string, unknown>;
}

/** Adds a tool, subscribes everybody, and begins to invoke it. */
export async function startInvokers({ url, tokens, administrator, signal }: InvokerOptions): Promise<Invokers> {
  const tool = await startToolServer();
  const calls: ToolCall[] = [];
  const said = new Map<string, number>();
  let stopping = false;
  tool.on('/work', (response, asked) => {
    const requestId = String(asked.headers['x-request-id']);
    const cost = said.get(requestId) ?? 1 + (said.size % 7);
    said.set(requestId, cost);
    setTimeout(() => answering({ tokens_used: cost })(response, asked), Math.random() * longestWork);
  });

  async function attempt(userId: string, path: string, body: object, requestId: string): Promise<Answer> {
    try {
      const response = await fetch(`${url}/api/v1${path}`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${tokens.get(userId)}`,
          'content-type': 'application/json',
          'x-request-id': requestId,
        },
        body: JSON.stringify(body),
        signal: AbortSignal.any([signal, AbortSignal.timeout(callLimit)]),
      });
      const answer = (await response.json()) as { data?: Record<string, unknown>; error?: { code: string } };
      return { status: response.status, code: answer.error?.code ?? '', data: answer.data ?? {} };
    } catch (error) {
      signal.throwIfAborted();
      const { name, cause } = error as Error;
      return { status: 0, code: (cause as NodeJS.ErrnoException | undefined)?.code ?? name, data: {} };
    }
  }

  async function prepare(userId: string, path: string, body: object): Promise<Answer> {
    const answer = await attempt(userId, path, body, randomUUID());
    if (answer.status === 200 || answer.status === 201) return answer;
    throw new Error(`POST ${path}: ${answer.status} ${answer.code}`);
  }

  async function invoke(userId: string, toolId: string): Promise<void> {
    while (!stopping) {
      const requestId = randomUUID();
      const { status, code, data } = await attempt(userId, `/tools/${toolId}/invoke`, { input: {} }, requestId);
      calls.push({ requestId, userId, status, code, tokens: Number(data['tokens_used'] ?? 0) });
      await sleep(status === 200 ? pause : pauseAfterFailure, undefined, { signal });
    }
  }

  let stopped: Promise<void> | undefined;
  async function end(running: Promise<unknown>): Promise<void> {
    stopping = true;
    try {
      await running;
    } finally {
      await tool.stop();
    }
  }

  try {
    const { data } = await prepare(administrator, '/admin/tools', {
      name: 'work',
      description: 'Takes a while',
      api_endpoint: `${tool.url}/work`,
    });
    const users = [...tokens.keys()];
    for (const userId of users) await prepare(userId, '/subscriptions/subscribe', { plan: 'enterprise' });
    // What a tool costs that nobody has used is unknown: then all tokens are reserved.
    await prepare(users[0]!, `/tools/${String(data['id'])}/invoke`, { input: {} });
    const [first] = said.keys();
    calls.push({ requestId: first!, userId: users[0]!, status: 200, code: '', tokens: said.get(first!)! });
    const running = Promise.all(users.map((userId) => invoke(userId, String(data['id']))));
    const failed = running.then(() => new Promise<never>(() => {}));
    failed.catch(() => {});
    return {
      calls,
      failed,
      stop: () => (stopped ??= end(running)),
      observe: (client) => observe(client, { calls, said }),
    };
  } catch (error) {
    await tool.stop();
    throw error;
  }
}

async function observe(client: pg.Client, known: Pick<ToolObservations, 'calls' | 'said'>): Promise<ToolObservations> {
  const rowsOf = async <Row>(statement: string) => (await client.query(statement)).rows as Row[];
  const usage = await rowsOf<ToolObservations['usage'][number]>(
    `select request_id as "requestId", user_id as "userId", status, tokens::int as tokens from tools.usage`,
  );
  const counters = await rowsOf<{ userId: string; tokens: number }>(
    'select user_id as "userId", tokens_used::int as tokens from tools.subscriptions',
  );
  const [summed] = await rowsOf<ToolObservations['summed']>(
    `select coalesce(sum(tokens), 0)::int as tokens, coalesce(sum(invocations), 0)::int as invocations from tools.usage_days`,
  );
  const [left] = await rowsOf<Record<string, number>>(
    `select (select count(*)::int from tools.reservations) as reservations, (select count(*)::int from tools.outbox) as outbox`,
  );
  return {
    ...known,
    usage,
    counted: new Map(counters.map(({ userId, tokens }) => [userId, tokens])),
    summed: summed!,
    left: left!,
  };
}
