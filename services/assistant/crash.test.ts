import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pg from 'pg';
import { v4 as uuid } from 'uuid';
import { AssistantServiceService, MessageStatus, type ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import { loadConfig } from '#lib/config.ts';
import { generateKeys, identitySettings, openIdentities } from '#lib/identity.ts';
import { freePorts } from '../../dev/ports.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { beginEvents, calling, chunk, saying, sendEvent, startModelServer } from '../../test/model-server.ts';
import { opened } from '../../test/opened.ts';

const root = path.resolve(import.meta.dirname, '../..');
const hub = opened(openHarness, (hub) => hub.stop());
const model = opened(
  () => startModelServer(),
  (server) => server.stop(),
);
const database = opened(
  () => {
    const options = '-c search_path=assistant';
    return new pg.Pool({ connectionString: hub.adminDatabaseUrl, max: 3, connectionTimeoutMillis: 10_000, options });
  },
  (pool) => pool.end(),
);
const keys = opened(async () => {
  const { privateKeys, trusted } = await generateKeys(['auth', 'assistant']);
  const envOf = (name: string) => ({ IDENTITY_KEY: privateKeys[name], TRUSTED_KEYS: trusted });
  return { env: envOf('assistant'), auth: openIdentities(loadConfig(identitySettings, envOf('auth'))) };
});

/** An assistant in a process of its own, which can be killed so that nothing of it can be finished. */
async function startAssistant(t: ExecutionContext): Promise<{ address: string; kill(): Promise<void> }> {
  const [port] = (await freePorts(1)) as [number];
  const child: ChildProcess = spawn(process.execPath, [path.join(root, 'services/main.ts'), 'assistant'], {
    env: {
      PATH: process.env.PATH,
      LAPTOP_MODE: 'true',
      GRPC_PORT: String(port),
      DATABASE_URL: hub.databaseUrl('assistant'),
      DATABASE_POOL: '3',
      AUTH_ADDRESS: '127.0.0.1:1',
      CONVERSATION_ADDRESS: '127.0.0.1:1',
      MESSAGE_ADDRESS: '127.0.0.1:1',
      ASSISTANT_BASE_URL: model.url,
      ASSISTANT_MODEL: 'told',
      LOG_FORMAT: 'json',
      LOG_LEVEL: 'error',
      ...keys.env,
    },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
  t.teardown(kill);
  await once(child, 'message', { signal: AbortSignal.timeout(60_000) });
  return { address: `127.0.0.1:${port}`, kill };
}

const numId = 7n;
const userId = uuid();

async function clients(address: string) {
  const expiresAt = new Date(Date.now() + 3_600_000);
  const token = await keys.auth.userToken({ userId, numId, username: 'u', admin: false, sessionId: uuid(), expiresAt });
  return {
    streams: hub.streams(AssistantServiceService, address, { token, timeout: 60_000 }),
    calls: hub.client(AssistantServiceService, address, { token }),
  };
}

type Clients = Awaited<ReturnType<typeof clients>>;

function chat({ streams }: Clients, message: string, conversationId?: bigint, approveTools = false) {
  return streams.chat({
    userId: String(numId),
    conversationId,
    message,
    stream: true,
    approveTools,
    idempotencyKey: '',
  });
}

/** Reads a stream that is expected to break. */
async function readUntilBroken(stream: AsyncIterable<ChatResponse>): Promise<ChatResponse[]> {
  const events: ChatResponse[] = [];
  try {
    for await (const event of stream) events.push(event);
  } catch {
    // The process has been killed.
  }
  return events;
}

async function historyOf({ streams }: Clients, conversationId: bigint) {
  const rows = [];
  const request = { userId: String(numId), conversationId, limit: undefined, beforeId: undefined };
  for await (const { messages } of streams.getHistory(request)) rows.push(...messages);
  return rows;
}

async function tasksCalled(title: string): Promise<number> {
  const { rows } = await database.query<{ count: number }>(
    'select count(*)::int as count from tasks where title = $1',
    [title],
  );
  return rows[0]!.count;
}

const addTask = (title: string) =>
  calling({ id: `c_${title}`, name: 'tasks__add_task', arguments: JSON.stringify({ title }) });

for (const [where, prepare] of [
  [
    'while the model is silent',
    () => {
      const asked = Promise.withResolvers<void>();
      model.on(() => asked.resolve());
      return { ready: asked.promise, said: '', tasks: 0 };
    },
  ],
  [
    'while the model speaks',
    () => {
      const asked = Promise.withResolvers<void>();
      model.on((response) => {
        beginEvents(response);
        sendEvent(response, chunk({ content: 'Half an ans' }));
        asked.resolve();
      });
      return { ready: asked.promise, said: 'Half an ans', tasks: 0 };
    },
  ],
  [
    'between a tool and what the model says of it',
    (title: string) => {
      const asked = Promise.withResolvers<void>();
      model.on((response, call) => {
        if (call.body.messages.at(-1)?.role === 'tool') asked.resolve();
        else return addTask(title)(response, call);
      });
      return { ready: asked.promise, said: '', tasks: 1 };
    },
  ],
] as [string, (title: string) => { ready: Promise<void>; said: string; tasks: number }][]) {
  test.serial(
    `a process that is killed ${where}: the answer reads failed, the message is kept, nothing is done twice`,
    async (t) => {
      t.timeout(150_000);
      const [first, second] = await Promise.all([startAssistant(t), startAssistant(t)]);
      const [here, there] = [await clients(first.address), await clients(second.address)];
      const title = `task ${uuid()}`;
      const { ready, said, tasks } = prepare(title);
      const stream = chat(here, title);
      const { value } = await stream.next();
      const start = (value as ChatResponse).event;
      if (start?.$case !== 'start') return t.fail();
      const { conversationId } = start.value;
      const events = readUntilBroken(stream);
      await ready;
      const wanted = said === '' ? 1 + 2 * tasks : 2;
      await eventually(
        'its events are kept',
        async () => {
          const { rows } = await database.query('select number from turn_events where message_id = $1', [
            start.value.messageId,
          ]);
          return rows.length;
        },
        (count) => count >= wanted,
      );
      const followed = readUntilBroken(
        there.streams.streamAnswer({ userId: String(numId), conversationId, lastEventId: 0n }),
      );
      await first.kill();
      await events;
      const seen = await followed;
      t.is(seen[0]!.event?.$case, 'start');
      t.is(seen.at(-1)!.event?.$case, 'error');
      const [question, answer] = await historyOf(there, conversationId);
      t.like(question, { content: title, status: MessageStatus.MESSAGE_STATUS_COMPLETED });
      t.like(answer, { content: said, status: MessageStatus.MESSAGE_STATUS_FAILED });
      t.is(answer!.toolCalls.length, tasks);
      model.on(saying('I am back'));
      const next = await readUntilBroken(chat(there, 'Go on', conversationId));
      t.is(next.at(-1)!.event?.$case, 'finish');
      t.is(await tasksCalled(title), tasks);
    },
  );
}

test.serial(
  'a process that is killed while a tool works: the tool has its effect once, and the call is in the history',
  async (t) => {
    t.timeout(150_000);
    const [first, second] = await Promise.all([startAssistant(t), startAssistant(t)]);
    const [here, there] = [await clients(first.address), await clients(second.address)];
    const title = `task ${uuid()}`;
    model.on(addTask(title));
    const blocking = await database.connect();
    await blocking.query('begin');
    await blocking.query('lock table tasks in access exclusive mode');
    const stream = chat(here, title);
    const { value } = await stream.next();
    const start = (value as ChatResponse).event;
    if (start?.$case !== 'start') return t.fail();
    const events = readUntilBroken(stream);
    await eventually(
      'the tool waits',
      async () => {
        const { rows } = await database.query(
          `select from pg_stat_activity where wait_event_type = 'Lock' and query like '%tasks%' and datname = current_database()`,
        );
        return rows.length;
      },
      (count) => count > 0,
    );
    await first.kill();
    await blocking.query('rollback');
    blocking.release();
    await events;
    const { conversationId } = start.value;
    const [, answer] = await eventually(
      'the answer reads failed',
      () => historyOf(there, conversationId),
      ([, found]) => found?.status === MessageStatus.MESSAGE_STATUS_FAILED,
    );
    t.like(answer!.toolCalls[0], { name: 'add_task', isError: true });
    t.regex(String(answer!.toolCalls[0]!.result), /^Cut off: /);
    t.true((await tasksCalled(title)) <= 1);
    model.on(saying('I am back'));
    const next = await readUntilBroken(chat(there, 'Go on', conversationId));
    t.is(next.at(-1)!.event?.$case, 'finish');
    t.true((await tasksCalled(title)) <= 1);
  },
);

test.serial(
  'a process that is killed while the answer waits for the user: another one takes the decision',
  async (t) => {
    t.timeout(150_000);
    const [first, second] = await Promise.all([startAssistant(t), startAssistant(t)]);
    const [here, there] = [await clients(first.address), await clients(second.address)];
    model.on(calling({ id: 'c', name: 'tasks__delete_task', arguments: '{"task_id":999999}' }));
    const events = await readUntilBroken(chat(here, 'Delete it', undefined, true));
    const last = events.at(-1)!.event;
    if (last?.$case !== 'finish') return t.fail();
    const { conversationId, approvals } = last.value;
    await first.kill();
    model.on(saying('There is no such task'));
    const decided = await readUntilBroken(
      there.streams.decideApproval({
        userId: String(numId),
        conversationId,
        approvalId: approvals[0]!.approvalId,
        approve: true,
        stream: true,
      }) as AsyncIterable<ChatResponse>,
    );
    t.deepEqual(
      decided.map(({ event }) => event?.$case).filter((kind) => kind !== 'text'),
      ['toolCall', 'toolResult', 'finish'],
    );
  },
);
