import test, { type ExecutionContext } from 'ava';
import { Webhook as StandardWebhook } from 'standardwebhooks';
import { Webhook as SvixWebhook } from 'svix';
import { v4 as uuid } from 'uuid';
import { ConversationType } from '#gen/chat4all/conversation/v1/conversation.ts';
import { EventType, StreamEventsResponse } from '#gen/chat4all/events/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import { openDatabase } from '#lib/database.ts';
import { encode } from '#lib/encode.ts';
import { eventually } from '../../../test/eventually.ts';
import { openHarness, type TestUser } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { startReceiver, type Receiver } from '../../../test/webhook-receiver.ts';
import { openLogStore, type NewEntry } from '../log/log-store.ts';
import { database } from '../database.ts';
import { fieldOf } from '../wire.ts';

/** Through REST, on a service that knows nothing of being tested. */

const hub = opened(openHarness, (hub) => hub.stop());
opened(() => hub.startService('auth', { SEED_USERS: '2' }));
opened(() => hub.startService('events'));
const gateway = opened(() => hub.startGateway());
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('events'), poolSize: 2, name: 'test' }),
  (db) => db.close(),
);
const log = opened(() => openLogStore(db));

interface Reply {
  status: number;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- JSON of any form
  body: any;
}

type Ask = (method: string, path: string, body?: unknown) => Promise<Reply>;

async function someone(): Promise<TestUser & { ask: Ask }> {
  const user = { userId: uuid(), username: `u${uuid().slice(0, 8)}` };
  const token = await hub.userToken(user);
  return {
    ...user,
    async ask(method, path, body) {
      const response = await fetch(`http://${gateway.address}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
    },
  };
}

async function receiving(t: ExecutionContext): Promise<Receiver> {
  const receiver = await startReceiver();
  t.teardown(() => receiver.stop());
  return receiver;
}

type What = NonNullable<StreamEventsResponse['event']>;

function entry(
  type: keyof typeof fieldOf,
  event: What,
  about: Partial<Pick<NewEntry, 'conversationId' | 'userId' | 'joins' | 'leaves'>>,
): NewEntry {
  const eventId = uuid();
  const body = encode(StreamEventsResponse, StreamEventsResponse.fromPartial({ eventId, at: new Date(), event }));
  return { eventId, conversationId: null, userId: null, type: fieldOf[type], body, ...about };
}

/** An event of each kind that stands in the log, for a user. */
function oneOfEach(userId: string, conversationId: string): NewEntry[] {
  const at = new Date();
  const messageId = uuid();
  const inIt = { conversationId };
  const own = { userId };
  const delivery = {
    recipient: userId,
    channel: 'whatsapp',
    status: MessageStatus.MESSAGE_STATUS_FAILED,
    attempts: 2,
    error: 'no such number',
    updatedAt: at,
    nextAttemptAt: undefined,
  };
  return [
    entry(
      EventType.EVENT_TYPE_CONVERSATION_CREATED,
      {
        $case: 'conversationCreated',
        value: {
          conversation: {
            conversationId,
            type: ConversationType.CONVERSATION_TYPE_GROUP,
            members: [userId],
            createdAt: at,
            metadata: { name: 'Ünï', description: '' },
          } as never,
        },
      },
      { ...inIt, joins: [userId, uuid()] },
    ),
    entry(
      EventType.EVENT_TYPE_MESSAGE_ACCEPTED,
      {
        $case: 'messageAccepted',
        value: {
          message: {
            messageId,
            conversationId,
            seq: 7n,
            from: userId,
            sender: { userId, username: 'ada' },
            to: [userId],
            channels: ['all'],
            payload: { type: 1, text: 'hé "llo"\n' } as never,
            priority: 0,
            status: MessageStatus.MESSAGE_STATUS_ACCEPTED,
            createdAt: at,
            updatedAt: at,
            readBy: 0,
          } as never,
        },
      },
      inIt,
    ),
    entry(
      EventType.EVENT_TYPE_DELIVERY_CHANGED,
      {
        $case: 'deliveryChanged',
        value: {
          messageId,
          conversationId,
          seq: 7n,
          status: MessageStatus.MESSAGE_STATUS_FAILED,
          note: 'why',
          deliveries: [delivery],
          replay: 1,
        },
      },
      inIt,
    ),
    entry(
      EventType.EVENT_TYPE_MESSAGE_READ,
      { $case: 'messageRead', value: { conversationId, userId, seq: 7n } },
      inIt,
    ),
    entry(
      EventType.EVENT_TYPE_MEMBER_JOINED,
      { $case: 'memberJoined', value: { conversationId, userId: uuid(), addedBy: userId } },
      inIt,
    ),
    entry(
      EventType.EVENT_TYPE_FILE_COMPLETED,
      {
        $case: 'fileCompleted',
        value: { fileId: uuid(), filename: 'a.txt', fileSize: 4_294_967_297n, contentType: 'text/plain' },
      },
      own,
    ),
    entry(
      EventType.EVENT_TYPE_WEBHOOK_PAUSED,
      {
        $case: 'webhookPaused',
        value: { webhookId: uuid(), url: 'https://a.example/', reason: 2, failingSince: undefined },
      },
      own,
    ),
    entry(
      EventType.EVENT_TYPE_MEMBER_LEFT,
      { $case: 'memberLeft', value: { conversationId, userId } },
      { ...inIt, leaves: [userId] },
    ),
  ];
}

test('a webhook is sent each kind of event as GET /v1/events has it, signed so that standardwebhooks and svix accept it', async (t) => {
  const receiver = await receiving(t);
  const user = await someone();
  const { body: beginning } = await user.ask('GET', '/v1/events:list');
  const { status, body: made } = await user.ask('POST', '/v1/webhooks', { url: `${receiver.url}/hook` });
  t.is(status, 201, JSON.stringify(made));
  t.regex(made.secret, /^whsec_[A-Za-z0-9+/]{43}=$/);
  t.is(made.webhook.status, 'active');
  await log.append(oneOfEach(user.userId, uuid()));
  await eventually(
    'all are there',
    () => receiver.received.length,
    (count) => count >= 8,
  );
  const { body: listed } = await user.ask('GET', `/v1/events:list?cursor=${beginning.cursor}`);
  t.is(listed.events.length, 8);
  const byId = new Map(receiver.received.map((one) => [one.headers['webhook-id'], one]));
  t.is(byId.size, 8);
  for (const event of listed.events) {
    const one = byId.get(event.event_id)!;
    t.deepEqual(one.event.data, event);
    t.is(one.event.timestamp, event.at);
    const kind = one.event.type.replace('.', '_');
    t.true(kind in event, kind);
    t.is(one.headers['content-type'], 'application/json');
    const headers = one.headers as Record<string, string>;
    t.deepEqual(new StandardWebhook(made.secret).verify(one.body, headers), one.event);
    t.notThrows(() => new SvixWebhook(made.secret).verify(one.body, headers));
    t.throws(() => new SvixWebhook(made.secret).verify(`${one.body} `, headers));
    t.throws(() => new StandardWebhook(made.secret).verify(`${one.body} `, headers));
  }
  t.deepEqual([...new Set(receiver.received.map(({ event }) => event.type))].toSorted(), [
    'conversation.created',
    'delivery.changed',
    'file.completed',
    'member.joined',
    'member.left',
    'message.accepted',
    'message.read',
    'webhook.paused',
  ]);
});

test('types and conversations choose what a webhook is sent, also once they are changed', async (t) => {
  const receiver = await receiving(t);
  const user = await someone();
  const [first, second] = [uuid(), uuid()];
  const { body: made } = await user.ask('POST', '/v1/webhooks', {
    url: `${receiver.url}/hook`,
    types: ['message_accepted', 'message_read'],
    conversation_ids: [first],
  });
  t.deepEqual(made.webhook.types, ['message_accepted', 'message_read']);
  await log.append([...oneOfEach(user.userId, first).slice(0, 6), ...oneOfEach(user.userId, second).slice(0, 6)]);
  const types = () => receiver.received.map(({ event }) => event.type);
  await eventually(
    'the chosen ones are there',
    () => receiver.received.length,
    (count) => count >= 2,
  );
  t.deepEqual(types(), ['message.accepted', 'message.read']);
  const path = `/v1/webhooks/${made.webhook.webhook_id}`;
  const { body: changed } = await user.ask('PATCH', path, { types: ['file_completed'], all_conversations: true });
  t.deepEqual([changed.types, changed.conversation_ids], [['file_completed'], []]);
  t.is(changed.url, `${receiver.url}/hook`);
  await log.append(oneOfEach(user.userId, uuid()));
  await eventually(
    'and another',
    () => receiver.received.length,
    (count) => count >= 3,
  );
  t.deepEqual(types(), ['message.accepted', 'message.read', 'file.completed']);
});

test('a user has webhooks of their own: to list, get, change and delete, ten at most', async (t) => {
  const [user, other] = [await someone(), await someone()];
  const ids: string[] = [];
  for (let number = 0; number < 10; number += 1) {
    const { status, body } = await user.ask('POST', '/v1/webhooks', { url: `https://example.com/${number}` });
    t.is(status, 201);
    ids.push(body.webhook.webhook_id);
  }
  const eleventh = await user.ask('POST', '/v1/webhooks', { url: 'https://example.com/11' });
  t.deepEqual([eleventh.status, eleventh.body.error_code], [429, 'TOO_MANY_WEBHOOKS']);
  const { body: list } = await user.ask('GET', '/v1/webhooks');
  t.deepEqual(
    list.webhooks.map((each: { webhook_id: string }) => each.webhook_id),
    ids,
  );
  t.false(JSON.stringify(list).includes('whsec_'));
  t.deepEqual((await other.ask('GET', '/v1/webhooks')).body.webhooks, []);
  const path = `/v1/webhooks/${ids[0]}`;
  t.is((await user.ask('GET', path)).body.url, 'https://example.com/0');
  const refused = [
    await other.ask('GET', path),
    await other.ask('PATCH', path, { url: 'https://example.com/mine' }),
    await other.ask('DELETE', path),
    await other.ask('POST', `${path}/secret`, {}),
    await other.ask('POST', `${path}/ping`, {}),
    await other.ask('POST', `${path}/pause`, {}),
    await other.ask('POST', `${path}/resume`, {}),
    await other.ask('POST', `${path}/replay`, { since: new Date().toISOString() }),
    await other.ask('GET', `${path}/attempts`),
  ];
  for (const { status, body } of refused) t.deepEqual([status, body.error_code], [404, 'WEBHOOK_NOT_FOUND']);
  t.is((await user.ask('DELETE', path)).status, 204);
  t.is((await user.ask('GET', path)).status, 404);
  t.is((await user.ask('POST', '/v1/webhooks', { url: 'https://example.com/11' })).status, 201);
});

test('a URL at an address that is not public, or that is none, is refused by name of the field', async (t) => {
  const user = await someone();
  const wrong = [
    'http://10.0.0.1/',
    'http://169.254.169.254/latest',
    'http://[fd00::1]/',
    'ftp://example.com',
    'x',
    '',
  ];
  for (const url of wrong) {
    const { status, body } = await user.ask('POST', '/v1/webhooks', { url });
    t.is(status, 400, url);
    t.deepEqual(Object.keys(body.field_errors), ['url'], url);
  }
  const { body: made } = await user.ask('POST', '/v1/webhooks', { url: 'https://example.com/' });
  const path = `/v1/webhooks/${made.webhook.webhook_id}`;
  t.is((await user.ask('PATCH', path, { url: 'http://192.168.0.1' })).status, 400);
  t.is((await user.ask('PATCH', path, { types: ['message_read'], all_types: true })).status, 400);
  t.is((await user.ask('POST', `${path}/replay`, {})).status, 400);
  const badCursor = await user.ask('POST', `${path}/replay`, { cursor: 'nonsense' });
  t.deepEqual([badCursor.status, badCursor.body.error_code], [400, 'CURSOR_INVALID']);
});

test('a ping is sent at once and says how it was answered; a rotated secret signs beside the old one', async (t) => {
  const receiver = await receiving(t);
  const user = await someone();
  const { body: made } = await user.ask('POST', '/v1/webhooks', { url: `${receiver.url}/hook` });
  const path = `/v1/webhooks/${made.webhook.webhook_id}`;
  const { status, body: ping } = await user.ask('POST', `${path}/ping`, {});
  t.is(status, 200, JSON.stringify(ping));
  t.deepEqual([ping.outcome, ping.status_code, ping.type, ping.error], ['delivered', 204, 'ping', '']);
  const [first] = receiver.received;
  t.deepEqual(first!.event.data, {});
  t.is(first!.headers['webhook-id'], ping.event_id);
  const { body: rotated } = await user.ask('POST', `${path}/secret`, {});
  t.not(rotated.secret, made.secret);
  t.true(Math.abs(Date.parse(rotated.old_secret_until) - Date.now() - 86_400_000) < 60_000);
  receiver.answer = (response) => void response.writeHead(500).end();
  const { body: failed } = await user.ask('POST', `${path}/ping`, {});
  t.deepEqual([failed.outcome, failed.status_code, failed.error], ['failed', 500, 'Answered with 500']);
  const [, second] = receiver.received;
  t.is((second!.headers['webhook-signature'] as string).split(' ').length, 2);
  for (const secret of [made.secret, rotated.secret]) {
    t.notThrows(() => new StandardWebhook(secret).verify(second!.body, second!.headers as Record<string, string>));
  }
  const { body: listed } = await user.ask('GET', `${path}/attempts?limit=1`);
  t.deepEqual(listed.attempts, [failed]);
  const { body: before } = await user.ask('GET', `${path}/attempts?before=${failed.attempt_id}`);
  t.deepEqual(before.attempts, [ping]);
});

test('a paused webhook is sent nothing, and what happened meanwhile once it is resumed, unless that is skipped', async (t) => {
  const receiver = await receiving(t);
  const user = await someone();
  const conversation = uuid();
  const events = oneOfEach(user.userId, conversation);
  const { body: made } = await user.ask('POST', '/v1/webhooks', { url: `${receiver.url}/hook` });
  const path = `/v1/webhooks/${made.webhook.webhook_id}`;
  t.is((await user.ask('POST', `${path}/pause`, {})).body.status, 'paused');
  await log.append(events.slice(0, 2));
  const replay = await user.ask('POST', `${path}/replay`, { since: new Date(0).toISOString() });
  t.deepEqual([replay.status, replay.body.error_code], [400, 'WEBHOOK_NOT_ACTIVE']);
  t.is((await user.ask('POST', `${path}/resume`, {})).body.status, 'active');
  await eventually(
    'both are there',
    () => receiver.received.length,
    (count) => count >= 2,
  );
  await user.ask('POST', `${path}/pause`, {});
  await log.append(events.slice(2, 4));
  await user.ask('POST', `${path}/resume`, { skip: true });
  await log.append(events.slice(5, 6));
  await eventually(
    'the last is there',
    () => receiver.received.length,
    (count) => count >= 3,
  );
  t.deepEqual(
    receiver.received.map(({ event }) => event.type),
    ['conversation.created', 'message.accepted', 'file.completed'],
  );
});

test('a replay sends events once more, in their order, from a cursor or a time on and up to a limit', async (t) => {
  const receiver = await receiving(t);
  const user = await someone();
  const { body: made } = await user.ask('POST', '/v1/webhooks', { url: `${receiver.url}/hook` });
  const path = `/v1/webhooks/${made.webhook.webhook_id}`;
  const conversation = uuid();
  const began = new Date(Date.now() - 1_000);
  await log.append(oneOfEach(user.userId, conversation).slice(0, 6));
  await eventually(
    'all are there',
    () => receiver.received.length,
    (count) => count >= 6,
  );
  const ids = () => receiver.received.map(({ headers }) => headers['webhook-id'] as string);
  const first = [...receiver.received].toSorted((a, b) =>
    (a.event.data['cursor'] as string) < (b.event.data['cursor'] as string) ? -1 : 1,
  );
  const { status } = await user.ask('POST', `${path}/replay`, { cursor: first[1]!.event.data['cursor'], limit: 3 });
  t.is(status, 202);
  await eventually(
    'three more',
    () => receiver.received.length,
    (count) => count >= 9,
  );
  t.deepEqual(
    ids().slice(6, 9),
    first.slice(2, 5).map(({ headers }) => headers['webhook-id']),
  );
  t.is((await user.ask('POST', `${path}/replay`, { since: began.toISOString() })).status, 202);
  await eventually(
    'all once more',
    () => receiver.received.length,
    (count) => count >= 15,
  );
  t.deepEqual(
    ids().slice(9),
    first.map(({ headers }) => headers['webhook-id']),
  );
});
