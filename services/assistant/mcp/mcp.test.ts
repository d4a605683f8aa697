import { randomUUID } from 'node:crypto';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import test, { type ExecutionContext } from 'ava';
import { TaskFilter, TaskServiceService, TaskSort, SortOrder } from '#gen/chat4all/assistant/v1/assistant.ts';
import { McpServiceService } from '#gen/chat4all/assistant/v1/protocols.ts';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness, type StartedProcess } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';

const harness = opened(openHarness, (each) => each.stop());
/** Services of the mesh by name, each after those that it calls. */
const services = opened(async () => {
  const started: Record<string, StartedProcess> = {};
  for (const name of ['auth', 'conversation', 'file', 'connectors', 'message', 'router', 'assistant']) {
    started[name] = await harness.startService(name, { SEED_USERS: '5' });
  }
  return started;
});

interface Person {
  userId: string;
  numId: bigint;
  username: string;
  token: string;
}

/** One of user1 to user5. */
async function person(username: string): Promise<Person> {
  const { address } = services['auth']!;
  const anonymous = harness.client(AuthServiceService, address);
  const { accessToken: token } = await anonymous.issueToken({ username, password: 'password123' });
  const { user } = await harness.client(AuthServiceService, address, { token }).getCurrentUser({});
  return { userId: user!.userId, numId: user!.numId, username, token };
}

/** An MCP client of somebody, over the RPC that the gateway calls. */
async function mcp(t: ExecutionContext, server: 'tasks' | 'hub', { token }: { token: string }): Promise<Client> {
  const rpcs = harness.streams(McpServiceService, services['assistant']!.address, { token });
  const serve = server === 'tasks' ? rpcs.serveTasks : rpcs.serveHub;
  const client = new Client({ name: 'test', version: '1' });
  t.teardown(() => client.close());
  const viaRpc = async (url: URL | string, init: RequestInit = {}) => {
    const request = new Request(url, init);
    const parts = serve(
      {
        method: request.method,
        path: new URL(request.url).pathname,
        query: '',
        headers: [...request.headers].map(([name, value]) => ({ name, value })),
        body: Buffer.from(await request.arrayBuffer()),
      },
      init.signal ?? undefined,
    )[Symbol.asyncIterator]();
    const { value: head } = await parts.next();
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { done, value } = await parts.next();
        if (done) controller.close();
        else controller.enqueue(value.body);
      },
      async cancel() {
        await parts.return?.();
      },
    });
    const { status, headers } = head!;
    const isEmpty = status === 202 || status === 204;
    return new Response(isEmpty ? null : body, {
      status,
      headers: headers.map(({ name, value }: { name: string; value: string }): [string, string] => [name, value]),
    });
  };
  await client.connect(
    new StreamableHTTPClientTransport(new URL(`http://rpc.invalid/mcp/${server}`), { fetch: viaRpc }),
  );
  return client;
}

/** Calls a tool that succeeds. */
async function call<Result>(client: Client, name: string, given: object = {}): Promise<Result> {
  const { structuredContent, isError, content } = await client.callTool({
    name,
    arguments: given as Record<string, unknown>,
  });
  if (isError) throw new Error(`${name}: ${JSON.stringify(content)}`);
  return structuredContent as Result;
}

/** Calls a tool that fails, and returns what it says. */
async function refused(client: Client, name: string, given: object): Promise<string> {
  const { isError, content } = await client.callTool({ name, arguments: given as Record<string, unknown> });
  if (!isError) throw new Error(`${name} has not failed`);
  return (content as { text: string }[])[0]!.text;
}

test('tasks: what a tool does is there for the RPCs, and the other way round', async (t) => {
  const user = await person('user1');
  const client = await mcp(t, 'tasks', user);
  const { address } = services['assistant']!;
  const rpcs = harness.client(TaskServiceService, address, { token: user.token });
  const list = harness.streams(TaskServiceService, address, { token: user.token }).listTasks;

  const { task_id: first } = await call<{ task_id: number }>(client, 'add_task', {
    title: 'Buy groceries',
    description: 'milk',
  });
  const { task } = await rpcs.createTask({ userId: String(user.numId), title: ' Pay bills ', description: undefined });
  t.like(task, { title: 'Pay bills', userId: user.numId, description: undefined, completed: false });
  await call(client, 'complete_task', { task_id: Number(task!.id) });
  const listed = [];
  const all = { status: TaskFilter.TASK_FILTER_ALL, sortBy: TaskSort.TASK_SORT_TITLE, order: SortOrder.SORT_ORDER_ASC };
  for await (const { tasks } of list({ userId: user.userId, ...all })) listed.push(...tasks);
  t.deepEqual(
    listed.map(({ title, completed }) => [title, completed]),
    [
      ['Buy groceries', false],
      ['Pay bills', true],
    ],
  );
  t.false((await rpcs.toggleTask({ userId: user.userId, taskId: task!.id })).task!.completed);
  const { task: renamed } = await rpcs.updateTask({
    userId: user.userId,
    taskId: BigInt(first),
    title: 'Buy food',
    description: '',
  });
  t.like(renamed, { title: 'Buy food', description: undefined });
  await rpcs.deleteTask({ userId: user.userId, taskId: BigInt(first) });
  t.deepEqual(await call(client, 'list_tasks'), {
    tasks: [{ id: Number(task!.id), title: 'Pay bills', description: null, completed: false }],
  });
});

test('tasks: whose path it is comes before what is there, and that before what is wrong', async (t) => {
  const [user3, user2] = await Promise.all([person('user3'), person('user2')]);
  const { address } = services['assistant']!;
  const ofUser1 = harness.client(TaskServiceService, address, { token: user3.token });
  const ofUser2 = harness.client(TaskServiceService, address, { token: user2.token });
  const { task } = await ofUser1.createTask({ userId: user3.userId, title: 'Mine', description: undefined });
  const bad = { title: ' ', description: undefined };
  await t.throwsAsync(() => ofUser2.updateTask({ userId: user3.userId, taskId: task!.id, ...bad }), {
    message: /not you/,
  });
  for (const taskId of [task!.id, 999_999n]) {
    const error = await t.throwsAsync(() => ofUser2.updateTask({ userId: user2.userId, taskId, ...bad }));
    t.like(error, { kind: 'NOT_FOUND', reason: 'TASK_NOT_FOUND' });
  }
  const error = await t.throwsAsync(() => ofUser1.updateTask({ userId: user3.userId, taskId: task!.id, ...bad }));
  t.like(error, { kind: 'INVALID_ARGUMENT', fields: [{ field: 'title' }] });
});

test('hub: somebody is found, written to, and hears of it; the sender learns what became of it', async (t) => {
  const [sender, recipient] = await Promise.all([person('user1'), person('user2')]);
  const client = await mcp(t, 'hub', sender);
  const { users } = await call<{ users: { user_id: string; username: string }[] }>(client, 'find_users', {
    query: 'USER2',
  });
  t.deepEqual(users[0], { user_id: recipient.userId, username: 'user2' });
  const found = await call<{ users: unknown[] }>(client, 'find_users', { query: 'user' });
  t.true(found.users.length >= 5);

  interface Sent {
    message_id: string;
    conversation_id: string;
    status: string;
  }
  const sent = await call<Sent>(client, 'send_message', { to: 'user2', text: 'hi there', channels: ['whatsapp'] });
  t.is(sent.status, 'accepted');
  // Whoever is meant by id, by name or by the conversation, it is the same conversation.
  for (const to of [recipient.userId, sent.conversation_id, 'User2']) {
    const again = await call<Sent>(client, 'send_message', { to, text: `for ${to}`, channels: ['whatsapp'] });
    t.is(again.conversation_id, sent.conversation_id);
  }
  interface Status {
    status: string;
    deliveries: { channel: string; recipient: string; status: string }[];
  }
  const status = await eventually(
    'the message is delivered',
    () => call<Status>(client, 'message_status', { message_id: sent.message_id }),
    (each) => each.status === 'delivered',
  );
  t.like(status.deliveries, [{ channel: 'whatsapp', recipient: recipient.userId, status: 'delivered' }]);

  const hers = await mcp(t, 'hub', recipient);
  const { messages } = await call<{ messages: { from: string; text: string }[] }>(hers, 'read_messages', {
    conversation: 'user1',
    limit: 4,
  });
  t.deepEqual(messages[0], { ...messages[0]!, from: 'user1', text: 'hi there' });
  const { conversations } = await call<{ conversations: { conversation_id: string }[] }>(hers, 'list_conversations');
  t.true(conversations.some(({ conversation_id: id }) => id === sent.conversation_id));
});

test('hub: the rules of the hub are those for its user', async (t) => {
  const [user3, user4, user5] = await Promise.all([person('user3'), person('user4'), person('user5')]);
  const ofUser3 = await mcp(t, 'hub', user3);
  const sent = await call<{ message_id: string; conversation_id: string }>(ofUser3, 'send_message', {
    to: user4.userId,
    text: 'between us',
  });
  const ofUser5 = await mcp(t, 'hub', user5);
  t.regex(await refused(ofUser5, 'read_messages', { conversation: sent.conversation_id }), /not a member/i);
  t.regex(await refused(ofUser5, 'send_message', { to: sent.conversation_id, text: 'me too' }), /not a member/i);
  t.truthy(await refused(ofUser5, 'message_status', { message_id: sent.message_id }));
  t.regex(await refused(ofUser5, 'send_message', { to: 'nobody-here', text: 'x' }), /no user "nobody-here"/);
  t.truthy(await refused(ofUser5, 'send_message', { to: randomUUID(), text: 'x' }));
  t.regex(await refused(ofUser5, 'send_message', { to: 'user3', text: 'x', channels: ['pigeon'] }), /channels/);
  t.regex(await refused(ofUser5, 'read_messages', { conversation: 'user4' }), /no conversation/i);
});
