import baseTest, { type ExecutionContext } from 'ava';
import pg from 'pg';
import type { ChatResponse } from '#gen/chat4all/assistant/v1/assistant.ts';
import type { HubError } from '#lib/errors.ts';
import { Desk, kindOf, newAsker, openReplica, type Replica } from '../../../test/assistant-desk.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { ProviderError } from '../provider/provider.ts';
import type { Tool } from '../toolbox/toolbox.ts';
import type { Following } from './turns.ts';
import type { Asker } from './work.ts';

/** One after the other: each has two processes with connections of their own, of which PostgreSQL has only so many. */
const test = baseTest.serial;

const hub = opened(openHarness, (hub) => hub.stop());
const database = opened(
  () => {
    const options = '-c search_path=assistant';
    return new pg.Pool({ connectionString: hub.adminDatabaseUrl, max: 4, connectionTimeoutMillis: 10_000, options });
  },
  (pool) => pool.end(),
);

const tool = (name: string, needsApproval = false): Tool => ({
  server: 'tasks',
  name,
  description: '',
  inputSchema: { type: 'object' },
  needsApproval,
  isReadOnly: false,
});
const tools = [tool('add_task'), tool('delete_task', true)];
const never = new AbortController().signal;

interface Stage {
  desk: Desk;
  first: Replica;
  second: Replica;
  asker: Asker;
}

/** Two processes, and somebody new who asks. */
function setUp(t: ExecutionContext, limits: Parameters<typeof openReplica>[2] = {}): Stage {
  const desk = new Desk(tools);
  const [first, second] = [openReplica(hub, desk, limits), openReplica(hub, desk, limits)];
  t.teardown(async () => {
    await Promise.all([first.close(), second.close()]);
  });
  return { desk, first, second, asker: newAsker() };
}

function begin({ turns }: Replica, asker: Asker, more: Partial<Parameters<typeof turns.chat>[0]> = {}) {
  const wish = { conversationId: undefined, message: 'Hello', approveTools: false, idempotencyKey: '', ...more };
  return turns.chat(wish, asker);
}

async function collect({ turns }: Replica, following: Following, signal = never): Promise<ChatResponse[]> {
  const events: ChatResponse[] = [];
  for await (const event of turns.follow(following, signal)) events.push(event);
  return events;
}

async function conversationOf({ messageId }: Following): Promise<bigint> {
  const { rows } = await database.query<{ id: string }>('select conversation_id as id from messages where id = $1', [
    messageId,
  ]);
  return BigInt(rows[0]!.id);
}

async function messageOf(messageId: bigint) {
  const { rows } = await database.query<Record<string, unknown>>('select * from messages where id = $1', [messageId]);
  return rows[0]!;
}

/** What becomes of a process that dies, without the wait. */
async function expireLease(messageId: bigint): Promise<void> {
  await database.query(`update turns set lease_until = now() - interval '1 second' where message_id = $1`, [messageId]);
}

const refused = (t: ExecutionContext, call: Promise<unknown>) =>
  t.throwsAsync<HubError>(call, { name: 'HubError' }).then((error) => error!.reason);

test('chat: the events of an answer, the answer, and what is kept of it', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker, { message: 'Buy  milk\nand bread' });
  const events = collect(first, following);
  const call = await desk.modelCall();
  call.say('Let me');
  call.say(' see. ');
  call.finish('stop', [['tasks__add_task', '{"title":"milk"}']]);
  const toolCall = await desk.toolCall();
  t.deepEqual(toolCall.arguments, { title: 'milk' });
  t.is(toolCall.caller.userId, asker.userId);
  toolCall.answer({ result: { task_id: 1 }, isError: false });
  const second = await desk.modelCall();
  second.say('Done.');
  second.finish();
  const found = await events;
  t.deepEqual(found.map(kindOf), ['start', 'text', 'text', 'toolCall', 'toolResult', 'text', 'finish']);
  t.deepEqual(
    found.map(({ id }) => Number(id)),
    [1, 2, 3, 4, 5, 6, 7],
  );
  const last = found.at(-1)!.event;
  if (last?.$case !== 'finish') return t.fail();
  t.like(last.value, { response: 'Let me see. Done.', model: 'desk', messageId: following.messageId });
  t.deepEqual(last.value.usage, { inputTokens: 14n, outputTokens: 6n, totalTokens: 20n });
  t.like(last.value.toolCalls[0], { id: toolCall.callId, server: 'tasks', name: 'add_task', isError: false });
  t.like(await messageOf(following.messageId), {
    status: 'completed',
    content: 'Let me see. Done.',
    finish_reason: 'stop',
  });
  const { rows } = await database.query('select title, message_count from conversations where user_id = $1', [
    asker.userId,
  ]);
  t.deepEqual(rows, [{ title: 'Buy milk and bread', message_count: 2 }]);
});

test('follow: at another process an answer reads the same, from any event on, while it is made and afterwards', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker);
  const conversationId = await conversationOf(following);
  const here = collect(first, following);
  const there = collect(second, following);
  const call = await desk.modelCall();
  for (const delta of ['a', 'b', 'c', 'd']) call.say(delta);
  await eventually(
    'the other process sees the event',
    () => second.turns.resume(conversationId, 4),
    (found) => found?.after === 4,
  );
  const resumed = collect(second, (await second.turns.resume(conversationId, 3))!);
  const other = await first.turns.resume(conversationId, 99);
  t.is(other!.after, 0, 'an event of another answer is no place in this one');
  call.finish();
  const [own, foreign, rest] = await Promise.all([here, there, resumed]);
  t.deepEqual(own, foreign);
  t.deepEqual(rest, own.slice(3));
  t.is(await first.turns.resume(conversationId, 0), undefined, 'nothing is under way');
  t.is(await first.turns.resume(conversationId, own.length), undefined, 'there is nothing more to see');
  const late = await second.turns.resume(conversationId, 2);
  t.deepEqual(await collect(second, late!), own.slice(2), 'who has missed the end gets it');
});

test('chat: a client that goes away does not stop the answer', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  const control = new AbortController();
  const events = collect(first, following, control.signal);
  const call = await desk.modelCall();
  control.abort();
  t.deepEqual((await events).map(kindOf), ['start']);
  t.false(call.signal.aborted);
  call.say('Still here');
  call.finish();
  t.like((await first.turns.outcome(following, never)).event, { $case: 'finish' });
});

test('outcome: what a provider failed with, and the message is kept; the conversation goes on', async (t) => {
  const { desk, first, asker } = setUp(t);
  for (const [reason, kind] of [
    ['PROVIDER_ERROR', 'UNAVAILABLE'],
    ['PROVIDER_UNAVAILABLE', 'UNAVAILABLE'],
    ['PROVIDER_TIMEOUT', 'DEADLINE_EXCEEDED'],
  ] as const) {
    const following = await begin(first, asker);
    const outcome = first.turns.outcome(following, never);
    (await desk.modelCall()).fail(new ProviderError(reason, 'No', { retryAfter: 2_000 }));
    const error = await t.throwsAsync<HubError>(outcome);
    t.like(error, { kind, reason, retryAfter: 2 });
    t.is((await messageOf(following.messageId))['status'], 'failed');
    const conversationId = await conversationOf(following);
    const next = await begin(first, asker, { conversationId, message: 'Again' });
    const call = await desk.modelCall();
    t.deepEqual(
      call.prompt.messages.slice(1).map(({ role, content }) => `${role}: ${content}`),
      ['user: Hello', 'assistant: (There was no answer.)', 'user: Again'],
    );
    call.finish();
    await first.turns.outcome(next, never);
  }
});

test('a bug of ours ends the answer as failed, and tells nothing of it', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  const outcome = first.turns.outcome(following, never);
  (await desk.modelCall()).fail(new TypeError('secret'));
  const error = await t.throwsAsync<HubError>(outcome);
  t.is(error!.reason, 'INTERNAL');
  t.notRegex(error!.message, /secret/);
});

test('chat: two answers at once in one conversation are one too many, whichever process is asked', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker);
  const conversationId = await conversationOf(following);
  for (const replica of [first, second]) {
    t.is(await refused(t, begin(replica, asker, { conversationId })), 'TURN_IN_PROGRESS');
    t.is(await refused(t, replica.turns.regenerate(conversationId, false, asker)), 'TURN_IN_PROGRESS');
  }
  (await desk.modelCall()).finish();
  await first.turns.outcome(following, never);
  const both = await Promise.allSettled([
    begin(first, asker, { conversationId }),
    begin(second, asker, { conversationId }),
  ]);
  t.deepEqual(both.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected']);
});

test('chat: a conversation of somebody else is not there', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  (await desk.modelCall()).finish();
  const conversationId = await conversationOf(following);
  t.is(await refused(t, begin(first, newAsker(), { conversationId })), 'CONVERSATION_NOT_FOUND');
});

test('stop: ends the answer at the process that makes it and at any other, and keeps what was said', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  for (const stopping of [first, second]) {
    const following = await begin(first, asker);
    const conversationId = await conversationOf(following);
    const events = collect(first, following);
    const call = await desk.modelCall();
    call.say('Once upon');
    const began = Date.now();
    t.true(await stopping.turns.stop(conversationId));
    t.true(call.signal.aborted);
    t.true(Date.now() - began < 5_000);
    t.is(kindOf((await events).at(-1)!), 'stopped');
    t.like(await messageOf(following.messageId), { status: 'stopped', content: 'Once upon', finish_reason: 'stopped' });
    t.false(await stopping.turns.stop(conversationId), 'there is nothing to stop any more');
  }
});

test('stop: a tool that is being called is cut off, and the answer does not call that a success', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  const events = collect(first, following);
  (await desk.modelCall()).finish('stop', [['tasks__add_task', '{}']]);
  await desk.toolCall();
  t.true(await first.turns.stop(await conversationOf(following)));
  const last = (await events).at(-1)!.event;
  if (last?.$case !== 'stopped') return t.fail(last?.$case);
  t.is(last.value.toolCalls.length, 1);
  t.like(last.value.toolCalls[0], { name: 'add_task', isError: true });
  t.regex(String(last.value.toolCalls[0]!.result), /^Cut off: /);
});

test('stop: an answer that waits for the user is stopped, too', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker, { approveTools: true });
  (await desk.modelCall()).finish('stop', [['tasks__delete_task', '{}']]);
  await first.turns.outcome(following, never);
  const conversationId = await conversationOf(following);
  t.true(await second.turns.stop(conversationId));
  t.is((await messageOf(following.messageId))['status'], 'stopped');
  t.is(desk.toolCalls.length, 0);
});

test('the time limit ends an answer as max_steps, with what is known', async (t) => {
  const { desk, first, asker } = setUp(t, { turnLimit: 4_000 });
  const following = await begin(first, asker);
  (await desk.modelCall()).say('So far');
  const { event } = await first.turns.outcome(following, never);
  t.is(event?.$case, 'finish');
  t.like(await messageOf(following.messageId), { status: 'completed', content: 'So far', finish_reason: 'max_steps' });
});

test('approvals: the answer waits, at no process; any takes the decision, once, and goes on', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker, { approveTools: true });
  const conversationId = await conversationOf(following);
  (await desk.modelCall()).finish('stop', [
    ['tasks__add_task', '{}'],
    ['tasks__delete_task', '{"task_id":1}'],
    ['tasks__delete_task', '{"task_id":2}'],
  ]);
  (await desk.toolCall()).answer({ result: 'added', isError: false });
  const held = await first.turns.outcome(following, never);
  if (held.event?.$case !== 'finish') return t.fail();
  t.is(held.event.value.finishReason, 5);
  t.is(held.event.value.toolCalls.length, 1);
  const [approval] = held.event.value.approvals;
  t.like(approval, { name: 'delete_task', server: 'tasks', arguments: { task_id: 1 } });
  t.is(await refused(t, begin(first, asker, { conversationId })), 'TURN_IN_PROGRESS');
  t.is(await refused(t, second.turns.decide(conversationId, 'approval_x', true, asker)), 'APPROVAL_NOT_FOUND');
  t.is(
    await refused(t, second.turns.decide(conversationId, approval!.approvalId, true, newAsker())),
    'CONVERSATION_NOT_FOUND',
  );

  const goesOn = await second.turns.decide(conversationId, approval!.approvalId, true, asker);
  t.is(await refused(t, first.turns.decide(conversationId, approval!.approvalId, true, asker)), 'ALREADY_DECIDED');
  const deletion = await desk.toolCall();
  t.deepEqual(deletion.arguments, { task_id: 1 });
  deletion.answer({ result: 'deleted', isError: false });
  const next = await second.turns.outcome(goesOn, never);
  if (next.event?.$case !== 'finish') return t.fail();
  const [another] = next.event.value.approvals;
  t.deepEqual(another!.arguments, { task_id: 2 });

  const denied = await first.turns.decide(conversationId, another!.approvalId, false, asker);
  const call = await desk.modelCall();
  t.regex(call.prompt.messages.at(-1)!.content, /the user has refused it/);
  call.say('As you wish');
  call.finish();
  const last = await first.turns.outcome(denied, never);
  if (last.event?.$case !== 'finish') return t.fail();
  t.deepEqual(
    last.event.value.toolCalls.map(({ isError }) => isError),
    [false, false, true],
  );
  t.is(desk.toolCalls.length, 2, 'what was refused was not called');
  const all = await collect(second, { messageId: following.messageId, after: 0 });
  t.deepEqual(all.map(kindOf), [
    'start',
    'toolCall',
    'toolResult',
    'approval',
    'toolCall',
    'toolResult',
    'approval',
    'toolCall',
    'toolResult',
    'text',
    'finish',
  ]);
});

test('approvals: an answer about which nobody decides for a day is stopped', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker, { approveTools: true });
  (await desk.modelCall()).finish('stop', [['tasks__delete_task', '{}']]);
  await first.turns.outcome(following, never);
  await database.query(`update turns set began_at = now() - interval '25 hours' where message_id = $1`, [
    following.messageId,
  ]);
  const another = openReplica(hub, desk);
  t.teardown(() => another.close());
  await eventually(
    'it is stopped',
    async () => (await messageOf(following.messageId))['status'],
    (status) => status === 'stopped',
  );
  t.is(desk.toolCalls.length, 0);
});

test('a process that dies: its answer is failed with what it said, and the conversation goes on elsewhere', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker);
  const conversationId = await conversationOf(following);
  const call = await desk.modelCall();
  call.say('Half an ans');
  await eventually(
    'it is kept',
    async () => (await second.store.read(following.messageId, 0)).events.length,
    (count) => count === 2,
  );
  const followed = collect(second, following);
  first.die();
  await expireLease(following.messageId);
  const next = await begin(second, asker, { conversationId, message: 'Go on' });
  const events = await followed;
  t.deepEqual(events.map(kindOf), ['start', 'text', 'error']);
  t.true(events.at(-1)!.id > 3n, 'its number is behind all that the process may have shown');
  t.like(await messageOf(following.messageId), { status: 'failed', content: 'Half an ans' });
  const again = await desk.modelCall();
  t.deepEqual(
    again.prompt.messages.slice(1).map(({ content }) => content),
    ['Hello', 'Half an ans', 'Go on'],
  );
  again.finish();
  t.is(kindOf(await second.turns.outcome(next, never)), 'finish');
});

test('a process that dies in a tool: the call is in the trace, and nobody makes it again', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  (await desk.modelCall()).finish('stop', [['tasks__add_task', '{}']]);
  await desk.toolCall();
  first.die();
  await expireLease(following.messageId);
  await eventually(
    'it is failed',
    async () => (await messageOf(following.messageId))['status'],
    (status) => status === 'failed',
  );
  t.is(desk.toolCalls.length, 1);
  t.like(((await messageOf(following.messageId))['steps'] as { calls: object[] }[])[0]!.calls[0], { isBegun: true });
});

test('a process that was taken for dead stops at once, and changes nothing any more', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker);
  const events = collect(first, following);
  const call = await desk.modelCall();
  await database.query(`update turns set owner = gen_random_uuid() where message_id = $1`, [following.messageId]);
  await eventually('it notices', () => call.signal.aborted, Boolean);
  t.is(kindOf((await events).at(-1)!), 'error');
  t.is((await messageOf(following.messageId))['status'], 'streaming');
  await expireLease(following.messageId);
  await eventually(
    'the other one ends it',
    async () => (await messageOf(following.messageId))['status'],
    (status) => status === 'failed',
  );
});

test('close: what is under way is failed at once, and says so', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const following = await begin(first, asker);
  const events = collect(first, following);
  (await desk.modelCall()).say('Half');
  await eventually(
    'it is kept',
    async () => (await second.store.read(following.messageId, 0)).events.length,
    (count) => count === 2,
  );
  await first.turns.close();
  t.is(kindOf((await events).at(-1)!), 'error');
  t.like(await messageOf(following.messageId), { status: 'failed', content: 'Half' });
});

test('regenerate: the last message gets another answer; the old ones are its siblings, which the model does not see', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker, { message: 'First' });
  const conversationId = await conversationOf(following);
  let call = await desk.modelCall();
  call.say('one');
  call.finish();
  await first.turns.outcome(following, never);
  for (const answer of ['two', 'three']) {
    const anew = await first.turns.regenerate(conversationId, false, asker);
    call = await desk.modelCall();
    t.deepEqual(
      call.prompt.messages.slice(1).map(({ content }) => content),
      ['First'],
    );
    call.say(answer);
    call.finish();
    await first.turns.outcome(anew, never);
  }
  const next = await begin(first, asker, { conversationId, message: 'Second' });
  call = await desk.modelCall();
  t.deepEqual(
    call.prompt.messages.slice(1).map(({ content }) => content),
    ['First', 'three', 'Second'],
  );
  call.finish();
  await first.turns.outcome(next, never);
  const { rows } = await database.query(
    `select content, replaced_by is not null as "isOld" from messages where conversation_id = $1 order by id`,
    [conversationId],
  );
  t.deepEqual(
    rows.map(({ content, isOld }: { content: string; isOld: boolean }) => [content, isOld]),
    [
      ['First', false],
      ['one', true],
      ['two', true],
      ['three', false],
      ['Second', false],
      ['', false],
    ],
  );
});

test('idempotency keys: the same request gets the first answer, at any process; another one is refused', async (t) => {
  const { desk, first, second, asker } = setUp(t);
  const idempotencyKey = 'key 1';
  const following = await begin(first, asker, { idempotencyKey });
  const meanwhile = await begin(second, asker, { idempotencyKey });
  t.is(meanwhile.messageId, following.messageId);
  const waiting = second.turns.outcome(meanwhile, never);
  const call = await desk.modelCall();
  call.say('The one');
  call.finish();
  const answer = await first.turns.outcome(following, never);
  t.deepEqual((await waiting).event, answer.event);
  const again = await begin(second, asker, { idempotencyKey });
  t.deepEqual((await second.turns.outcome(again, never)).event, answer.event);
  t.is(await refused(t, begin(second, asker, { idempotencyKey, message: 'Other' })), 'IDEMPOTENCY_KEY_REUSED');
  const other = await begin(second, newAsker(), { idempotencyKey });
  t.not(other.messageId, following.messageId, 'keys are of one user');
  (await desk.modelCall()).finish();
  await database.query('delete from turns where message_id = $1', [following.messageId]);
  const later = await begin(first, asker, { idempotencyKey });
  t.deepEqual((await first.turns.outcome(later, never)).event, answer.event, 'when its events are forgotten, too');
  t.is(desk.modelCalls.length, 2);
});

test('idempotency keys: where no model has answered, the message that is kept is answered anew', async (t) => {
  const { desk, first, asker } = setUp(t);
  const idempotencyKey = 'key 2';
  const following = await begin(first, asker, { idempotencyKey });
  const failing = first.turns.outcome(following, never);
  (await desk.modelCall()).fail(new ProviderError('PROVIDER_UNAVAILABLE', 'Busy'));
  await t.throwsAsync(failing);
  const again = await begin(first, asker, { idempotencyKey });
  const call = await desk.modelCall();
  call.say('Now');
  call.finish();
  t.is(kindOf(await first.turns.outcome(again, never)), 'finish');
  const { rows } = await database.query(
    `select role from messages where conversation_id = $1 and replaced_by is null order by id`,
    [await conversationOf(again)],
  );
  t.deepEqual(
    rows.map(({ role }: { role: string }) => role),
    ['user', 'assistant'],
  );
});

test('the rate of one user is limited over all processes, and says when to come again', async (t) => {
  const { desk, first, second, asker } = setUp(t, { rateLimit: 2 });
  for (const replica of [first, second]) {
    const following = await begin(replica, asker);
    (await desk.modelCall()).finish();
    await replica.turns.outcome(following, never);
  }
  const error = await t.throwsAsync<HubError>(begin(first, asker));
  t.is(error!.reason, 'RATE_LIMITED');
  t.true(error!.retryAfter! > 0 && error!.retryAfter! <= 60);
  await begin(first, newAsker());
});

test('the model is shown the newest whole exchanges that fit, of this conversation alone', async (t) => {
  const { desk, first, asker } = setUp(t, { contextTokens: 1_000 });
  const foreign = await begin(first, newAsker(), { message: 'FOREIGN' });
  (await desk.modelCall()).finish();
  await first.turns.outcome(foreign, never);
  let conversationId: bigint | undefined;
  for (let index = 0; index < 6; index += 1) {
    const following = await begin(first, asker, { conversationId, message: `question ${index} ${'x'.repeat(600)}` });
    conversationId ??= await conversationOf(following);
    const call = await desk.modelCall();
    const said = call.prompt.messages.map(({ content }) => content).join('\n');
    t.notRegex(said, /FOREIGN/);
    t.is(call.prompt.messages[0]!.role, 'system');
    t.is(call.prompt.messages[1]!.role, 'user', 'whole exchanges only');
    if (index === 5) {
      t.notRegex(said, /question 0/);
      t.regex(said, /question 4/);
    }
    call.say(`answer ${index}`);
    call.finish();
    await first.turns.outcome(following, never);
  }
});

test('what PostgreSQL takes in no text is no end of an answer', async (t) => {
  const { desk, first, asker } = setUp(t);
  const following = await begin(first, asker, { message: 'NUL \0 and \ud800' });
  const call = await desk.modelCall();
  call.say('zero \0');
  call.finish('stop', [['tasks__add_task', '{"title":"a\\u0000b\\ud800"}']]);
  (await desk.toolCall()).answer({ result: { text: 'c\0d\udc00' }, isError: false });
  (await desk.modelCall()).finish();
  t.is(kindOf(await first.turns.outcome(following, never)), 'finish');
});
