import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { beginEvents, chunk, sendEvent, startModelServer, usageChunk, type Answering } from '../model-server.ts';
import { percentiles, type Percentiles } from './percentiles.ts';
import { memoryOf, startHub, type BenchedHub } from './processes.ts';

export interface AssistantReport {
  /** Milliseconds that a turn takes beyond its provider, turns one after the other. */
  added: Percentiles;
  /** Milliseconds from the provider's first delta to the client's. */
  firstDelta: Percentiles;
  /** Milliseconds that a turn takes beyond its provider, `conversationsAtOnce` of them under way. */
  addedAtOnce: Percentiles;
  /** MiB by which the assistant's process is larger with `openStreams` open than with none. */
  streamsMemoryMiB: number;
  /** Milliseconds in which a conversation of `rows` messages is read. */
  history: Percentiles;
  /** Milliseconds in which `rows` tasks are read. */
  tasks: Percentiles;
  problems: string[];
}

/** The figures to reach: milliseconds, and MiB. */
export const assistantGoals = {
  added: 50,
  firstDelta: 20,
  addedAtOnce: 1_000,
  streamsMemoryMiB: 150,
  history: 300,
  tasks: 200,
};

const conversationsAtOnce = 50;
const openStreams = 200;
const rows = 10_000;
const users = 50;
const turnsInARow = 200;
const reads = 20;
const warmUp = 20;
/** Deltas of an answer, and the milliseconds before each: for one turn at a time, for many at once, and for streams that stay open. */
const short = { deltas: 10, pause: 10 };
const long = { deltas: 40, pause: 50 };
const endless = { deltas: 10_000, pause: 1_000 };
/** Milliseconds in which memory settles after the work that needed it. */
const settleTime = 5_000;

interface User {
  id: string;
  token: string;
}

/** When a provider did what, as performance.now() tells. */
interface Worked {
  cameAt: number;
  firstAt: number;
  endedAt: number;
}

/** A turn as its client saw it. */
interface Turn {
  conversationId: string;
  beganAt: number;
  firstAt: number;
  endedAt: number;
}

/** What the assistant takes beyond its provider, what open streams cost, and how fast much is read. */
export async function measureAssistant(folder: string, signal: AbortSignal): Promise<AssistantReport> {
  await using started = new AsyncDisposableStack();
  const worked = new Map<string, Worked>();
  const model = await startModelServer();
  started.defer(() => model.stop());
  const env = {
    DATABASE_URL: undefined,
    KAFKA_BROKERS: undefined,
    S3_ENDPOINT: undefined,
    ASSISTANT_MCP_FILE: undefined,
    SEED_USERS: String(users),
    BCRYPT_COST: '10',
    RATE_LIMIT: '0',
    ASSISTANT_BASE_URL: model.url,
    ASSISTANT_MODEL: 'measured',
    ASSISTANT_RATE_LIMIT: '100000',
  };
  const hub = await startHub(folder, env, signal);
  started.defer(() => hub.remote.stop());
  const database = new pg.Client({ connectionString: hub.databaseUrl });
  await database.connect();
  started.defer(() => database.end());
  const chatters: User[] = [];
  for (let number = 1; number <= users; number += 1) chatters.push(await login(hub.url, `user${number}`));
  const problems: string[] = [];
  let asked = 0;

  /** Turns, of each user one after the other, and what the provider took of each. */
  async function talk(by: readonly User[], each: number): Promise<{ turn: Turn; provider: Worked }[]> {
    const found: { turn: Turn; provider: Worked }[] = [];
    await Promise.all(
      by.map(async (user) => {
        for (let count = 0; count < each; count += 1) {
          signal.throwIfAborted();
          const message = `Question ${(asked += 1)}`;
          const turn = await chat(hub.url, user, message, signal).catch((error: Error) => problems.push(error.message));
          const provider = worked.get(message);
          if (typeof turn === 'object' && provider !== undefined) found.push({ turn, provider });
        }
      }),
    );
    return found;
  }
  const added = (found: { turn: Turn; provider: Worked }[]) =>
    percentiles(found.map(({ turn, provider }) => turn.endedAt - turn.beganAt - (provider.endedAt - provider.cameAt)));

  model.on(answering(short, worked));
  await talk(chatters.slice(0, 1), warmUp);
  const inARow = await talk(chatters.slice(0, 1), turnsInARow);
  model.on(answering(long, worked));
  await talk(chatters, 1);
  const atOnce = await talk(chatters, 1);

  console.log(`\n${openStreams} streams…`);
  model.on(answering(endless, worked));
  const streamsMemoryMiB = await memoryOfStreams(hub, chatters, problems, signal);

  console.log(`\nFilling a conversation of ${rows.toLocaleString('en')} messages, and as many tasks…`);
  const reader = chatters[0]!;
  await fill(database, reader, Number(inARow[0]!.turn.conversationId));
  const path = `/api/${reader.id}`;
  const history = await timeReads(hub.url, `${path}/chat/${inARow[0]!.turn.conversationId}/history`, reader, signal);
  const tasks = await timeReads(hub.url, `${path}/tasks`, reader, signal);
  return {
    added: added(inARow),
    firstDelta: percentiles(inARow.map(({ turn, provider }) => turn.firstAt - provider.firstAt)),
    addedAtOnce: added(atOnce),
    streamsMemoryMiB,
    history,
    tasks,
    problems,
  };
}

export function printAssistant(report: AssistantReport): void {
  const { added, firstDelta, addedAtOnce, history, tasks, streamsMemoryMiB, problems } = report;
  console.log('\nWhat the assistant takes beyond its provider, and what is read, in milliseconds\n');
  console.log('                             count     p50     p95     p99     max');
  const line = (name: string, { count, ...of }: Percentiles) => {
    const figures = [of.p50, of.p95, of.p99, of.max].map((each) => each.toFixed(1).padStart(7)).join(' ');
    console.log(`  ${name.padEnd(24)} ${String(count).padStart(7)} ${figures}`);
  };
  line('a turn', added);
  line('the first delta', firstDelta);
  line(`${conversationsAtOnce} turns at once`, addedAtOnce);
  line(`${rows.toLocaleString('en')} messages`, history);
  line(`${rows.toLocaleString('en')} tasks`, tasks);
  console.log(`  ${openStreams} open streams: ${streamsMemoryMiB.toFixed(1)} MiB\n`);
  const reached = (what: string, value: number, goal: number, unit = 'ms') =>
    console.log(
      `  ${value < goal ? 'reached    ' : 'NOT REACHED'} ${what} ${value.toFixed(1)} ${unit} (below ${goal})`,
    );
  reached('a turn without tools: p95', added.p95, assistantGoals.added);
  reached('the first delta: median', firstDelta.p50, assistantGoals.firstDelta);
  reached(`${conversationsAtOnce} turns at once: the most`, addedAtOnce.max, assistantGoals.addedAtOnce);
  reached(`${openStreams} open streams:`, streamsMemoryMiB, assistantGoals.streamsMemoryMiB, 'MiB');
  reached(`${rows.toLocaleString('en')} messages: p95`, history.p95, assistantGoals.history);
  reached(`${rows.toLocaleString('en')} tasks: p95`, tasks.p95, assistantGoals.tasks);
  for (const problem of new Set(problems)) console.log(`  ${problem}`);
}

/** A provider that takes its time, and notes when it did what, by the message that it answers. */
function answering({ deltas, pause }: { deltas: number; pause: number }, worked: Map<string, Worked>): Answering {
  return async (response, { body, cameAt, gone }) => {
    const question = String(body.messages.findLast(({ role }) => role === 'user')?.content);
    const noted: Worked = { cameAt, firstAt: 0, endedAt: 0 };
    worked.set(question, noted);
    beginEvents(response);
    for (let count = 0; count < deltas && !gone.aborted; count += 1) {
      await sleep(pause);
      noted.firstAt ||= performance.now();
      sendEvent(response, chunk({ content: `word ${count} ` }));
    }
    sendEvent(response, chunk({}, 'stop'));
    sendEvent(response, usageChunk(20, deltas));
    noted.endedAt = performance.now();
    response.end('data: [DONE]\n\n');
  };
}

/** Has a message answered in a conversation of its own, streamed. @throws Error unless the answer is whole */
async function chat(url: string, user: User, message: string, signal: AbortSignal): Promise<Turn> {
  const beganAt = performance.now();
  let firstAt = 0;
  let conversationId = '';
  for await (const { event, data } of eventsOf(url, user, message, signal)) {
    if (event === 'start') conversationId = String(data['conversation_id']);
    if (event === 'text') firstAt ||= performance.now();
    if (event === 'finish') return { conversationId, beganAt, firstAt, endedAt: performance.now() };
    if (event === 'error') throw new Error(`An answer has failed: ${JSON.stringify(data)}`);
  }
  throw new Error('An answer has no end');
}

async function* eventsOf(
  url: string,
  { id, token }: User,
  message: string,
  signal: AbortSignal,
): AsyncGenerator<{ event: string; data: Record<string, unknown> }> {
  const response = await fetch(`${url}/api/${id}/chat`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ message, stream: true }),
    signal,
  });
  if (!response.ok) throw new Error(`A chat is answered with ${response.status} ${await response.text()}`);
  let text = '';
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const blocks = text.split('\n\n');
    text = blocks.pop()!;
    for (const block of blocks) {
      const lines = block.split('\n');
      const field = (name: string) => lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      const event = field('event');
      if (event !== undefined) yield { event, data: JSON.parse(field('data')!) as Record<string, unknown> };
    }
  }
}

/** Opens all streams, waits until each of them has said something, and looks how much larger the assistant's process is. */
async function memoryOfStreams(
  { url, remote }: BenchedHub,
  chatters: readonly User[],
  problems: string[],
  signal: AbortSignal,
): Promise<number> {
  const memory = async () => {
    await sleep(settleTime, undefined, { signal });
    const all = await memoryOf(() => remote.ask('pids', undefined, 5_000));
    return all['assistant']!;
  };
  const before = await memory();
  const leaving = new AbortController();
  const streams = Array.from({ length: openStreams }, (_, index) =>
    eventsOf(url, chatters[index % users]!, `Stream ${index}`, AbortSignal.any([signal, leaving.signal])),
  );
  try {
    await Promise.all(
      streams.map(async (events) => {
        for (;;) {
          const next = await events.next();
          if (next.done === true) throw new Error('A stream has ended');
          if (next.value.event === 'text') return;
        }
      }),
    );
    return (await memory()) - before;
  } catch (error) {
    problems.push(`A stream could not be opened: ${(error as Error).message}`);
    return Infinity;
  } finally {
    leaving.abort();
  }
}

async function timeReads(url: string, path: string, user: User, signal: AbortSignal): Promise<Percentiles> {
  const taken: number[] = [];
  for (let count = -2; count < reads; count += 1) {
    const began = performance.now();
    const answer = (await request(url, path, { token: user.token, signal })) as unknown[];
    if (answer.length < rows) throw new Error(`${path} has ${answer.length} rows, not ${rows}`);
    // What V8 compiles and PostgreSQL reads for the first time doesn't count.
    if (count >= 0) taken.push(performance.now() - began);
  }
  return percentiles(taken);
}

async function request(
  url: string,
  path: string,
  { token, body, signal }: { token?: string; body?: object; signal?: AbortSignal },
): Promise<unknown> {
  const response = await fetch(`${url}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.any([AbortSignal.timeout(60_000), ...(signal === undefined ? [] : [signal])]),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text.slice(0, 300)}`);
  return JSON.parse(text);
}

async function login(url: string, username: string): Promise<User> {
  const body = { username, password: 'password123' };
  const { user_id: id, token } = (await request(url, '/auth/token', { body })) as { user_id: string; token: string };
  return { id, token };
}

/** Questions and answers in a conversation, some with tools, and tasks. */
async function fill(database: pg.Client, user: User, conversationId: number): Promise<void> {
  await database.query('set search_path to assistant');
  await database.query(
    `with numbered as (
       insert into messages (conversation_id, role, content, status, created_at, steps, model, input_tokens, output_tokens, finish_reason)
       select $1, case n % 2 when 1 then 'user' else 'assistant' end, repeat('Some words of a message. ', 8), 'completed',
              now() + n * interval '1 millisecond',
              case n % 2 when 0 then jsonb_build_array(jsonb_build_object('text', repeat('Some words of a message. ', 8), 'calls',
                case n % 10 when 0 then jsonb_build_array(jsonb_build_object('id', 'call_' || n, 'requestId', 'r', 'toolName', 'tasks__add_task',
                  'rawArguments', '{"title":"x"}', 'server', 'tasks', 'name', 'add_task', 'arguments', jsonb_build_object('title', 'x'),
                  'outcome', jsonb_build_object('result', jsonb_build_object('task_id', n), 'isError', false, 'durationMs', 3)))
                else '[]'::jsonb end)) end,
              case n % 2 when 0 then 'measured' end, case n % 2 when 0 then 20 end, case n % 2 when 0 then 10 end,
              case n % 2 when 0 then 'stop' end
         from generate_series(1, $2::int) as n returning id
     )
     update conversations set message_count = message_count + $2 where id = $1`,
    [conversationId, rows],
  );
  await database.query(
    `insert into tasks (user_id, title, title_key, description, completed, created_at, updated_at)
     select $1, 'Task ' || n, 'task ' || n, repeat('Some words about it. ', 5), n % 3 = 0, now(), now()
       from generate_series(1, $2::int) as n`,
    [user.id, rows],
  );
  await database.query('vacuum analyze messages, tasks');
}
