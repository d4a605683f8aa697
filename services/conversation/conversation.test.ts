import test, { type ExecutionContext } from 'ava';
import { v4 as uuid } from 'uuid';
import { AuthServiceService } from '#gen/chat4all/auth/v1/auth.ts';
import { ConversationServiceService, ConversationType } from '#gen/chat4all/conversation/v1/conversation.ts';
import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import type { BusEvent } from '#lib/bus/bus.ts';
import { loadConfig } from '#lib/config.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness, type TestUser } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { chooseMembers, latestActivity, possibleUsers } from './conversation.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';

const { CONVERSATION_TYPE_PRIVATE: privately, CONVERSATION_TYPE_GROUP: group } = ConversationType;
const seeds = 200;

const hub = opened(openHarness, (hub) => hub.stop());
const auth = opened(() => hub.startService('auth', { SEED_USERS: `${seeds}` }));
const service = opened(() => hub.startService('conversation'));
const userByName = opened(async () => {
  const { users } = await hub
    .client(AuthServiceService, auth.address, { token: await hub.serviceToken('conversation', 'auth') })
    .lookupUsers({ userIds: [], usernames: Array.from({ length: seeds }, (_, number) => `user${number + 1}`) });
  return new Map(users.map((user) => [user.username, user]));
});
const db = opened(
  () => openDatabase(database, { url: hub.databaseUrl('conversation'), poolSize: 2, name: 'test' }),
  (db) => db.close(),
);
const store = openStore(db);
const bus = opened(
  () =>
    openBus(loadConfig(busSettings, { BUS_DATABASE_URL: hub.databaseUrl('bus') }), {
      log: openLog({ name: 'test', format: 'json', level: 'silent' }),
      clientId: 'test',
    }),
  (bus) => bus.stop(),
);

function user(number: number): TestUser {
  return userByName.get(`user${number}`)!;
}
const ids = (...numbers: number[]) => numbers.map((number) => user(number).userId);
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, place) => from + place);
const as = async (who: TestUser) =>
  hub.client(ConversationServiceService, service.address, { token: await hub.userToken(who) });
const asService = async () =>
  hub.client(ConversationServiceService, service.address, {
    token: await hub.serviceToken('message', 'conversation'),
  });
const open = async (who: TestUser, type: ConversationType, members: string[]) =>
  (await (await as(who)).createConversation({ type, members, metadata: undefined })).conversation!;

async function refusal(t: ExecutionContext, call: Promise<unknown>): Promise<HubError> {
  const error = await t.throwsAsync(call, { instanceOf: HubError });
  return error as HubError;
}

async function badFields(t: ExecutionContext, call: Promise<unknown>): Promise<string[]> {
  const { kind, fields } = await refusal(t, call);
  t.is(kind, 'INVALID_ARGUMENT');
  return fields.map(({ field }) => field);
}

const ada = { userId: '00000000-0000-4000-8000-00000000000a', username: 'ada' };
const bob = { userId: '00000000-0000-4000-8000-00000000000b', username: 'bob' };

test('possibleUsers: whatever looks like an id may be a name as well', (t) => {
  t.deepEqual(possibleUsers(['ada', bob.userId.toUpperCase(), 'ada']), {
    userIds: [bob.userId],
    usernames: ['ada', bob.userId.toUpperCase()],
  });
});

test('chooseMembers: keeps the order in which they were named, by whatever name', (t) => {
  const { userIds, problems } = chooseMembers('private', ['bob', ada.userId.toUpperCase()], [ada, bob]);
  t.deepEqual(problems, []);
  t.deepEqual(userIds, [bob.userId, ada.userId]);
});

test('chooseMembers: a username that looks like an id is found, unless it is the id of another', (t) => {
  const odd = { userId: uuid(), username: uuid() };
  t.deepEqual(chooseMembers('private', [odd.username, 'ada'], [ada, odd]).userIds, [odd.userId, ada.userId]);
  const clash = { userId: uuid(), username: ada.userId };
  t.deepEqual(chooseMembers('private', [ada.userId, 'bob'], [ada, bob, clash]).userIds, [ada.userId, bob.userId]);
});

test('chooseMembers: names everything that is wrong at once', (t) => {
  const { problems } = chooseMembers('private', ['ada', 'nobody', ada.userId.toUpperCase()], [ada, bob]);
  t.deepEqual(
    problems.map(({ field }) => field),
    ['members', 'members[1]', 'members[2]'],
  );
});

test('chooseMembers: a conversation for two takes 2, a group 3 to 100', (t) => {
  const people = Array.from({ length: 101 }, (_, number) => ({ userId: uuid(), username: `p${number}` }));
  const wrong = (kind: 'private' | 'group', count: number) =>
    chooseMembers(
      kind,
      people.slice(0, count).map(({ username }) => username),
      people,
    ).problems.map(({ field }) => field);
  t.deepEqual(
    [1, 2, 3].map((count) => wrong('private', count)),
    [['members'], [], ['members']],
  );
  t.deepEqual(
    [2, 3, 100, 101].map((count) => wrong('group', count)),
    [['members'], [], [], ['members']],
  );
});

test('latestActivity: the newest of each conversation, whatever the order', (t) => {
  const at = (second: number) => new Date(second * 1000);
  t.deepEqual(
    latestActivity([
      { conversationId: 'a', at: at(2) },
      { conversationId: 'b', at: at(5) },
      { conversationId: 'a', at: at(1) },
      { conversationId: 'a', at: at(3) },
    ]),
    [
      { conversationId: 'a', at: at(3) },
      { conversationId: 'b', at: at(5) },
    ],
  );
});

test('createConversation: members by id and by name, read back as they were answered', async (t) => {
  const client = await as(user(1));
  const { conversation } = await client.createConversation({
    type: group,
    members: ['user3', user(1).userId.toUpperCase(), 'user2'],
    metadata: { name: 'Équipe', description: 'about "it"' },
  });
  t.deepEqual(conversation!.members, ids(3, 1, 2));
  t.deepEqual(conversation!.metadata, { name: 'Équipe', description: 'about "it"' });
  t.is(conversation!.type, group);
  for (const number of [1, 2, 3]) {
    const reader = await as(user(number));
    t.deepEqual(
      (await reader.getConversation({ conversationId: conversation!.conversationId.toUpperCase() })).conversation,
      conversation,
    );
  }
});

test('createConversation: without metadata name and description are empty', async (t) => {
  const conversation = await open(user(1), privately, ['user1', 'user2']);
  t.deepEqual(conversation.metadata, { name: '', description: '' });
});

test('createConversation: names unknown and repeated members and a wrong number of them, all at once', async (t) => {
  const client = await as(user(1));
  const create = (type: ConversationType, members: string[]) =>
    client.createConversation({ type, members, metadata: undefined });
  t.deepEqual(await badFields(t, create(privately, ['user1', 'nobody', uuid()])), [
    'members',
    'members[1]',
    'members[2]',
  ]);
  t.deepEqual(await badFields(t, create(group, ['user1', 'user2', user(1).userId.toUpperCase()])), ['members[2]']);
  t.deepEqual(await badFields(t, create(privately, ['user1', 'user1'])), ['members[1]']);
  t.deepEqual(await badFields(t, create(group, ['user1', 'user2'])), ['members']);
  t.deepEqual(
    await badFields(
      t,
      create(
        group,
        range(1, 101).map((number) => `user${number}`),
      ),
    ),
    ['members'],
  );
  t.deepEqual(await badFields(t, create(privately, [])), ['members']);
  t.deepEqual(await badFields(t, create(0, ['', 'user1'])), ['type', 'members[0]']);
});

test('createConversation: a name that is too long and members that are wrong are named together', async (t) => {
  const client = await as(user(1));
  const refused = await t.throwsAsync(
    client.createConversation({
      type: privately,
      members: ['user1', 'user2', 'nobody'],
      metadata: { name: 'x'.repeat(256), description: '' },
    }),
    { instanceOf: HubError },
  );
  t.deepEqual(
    refused?.fields.map(({ field }) => field),
    ['metadata.name', 'members', 'members[2]'],
  );
});

test('createConversation: a group of 100 is possible', async (t) => {
  const everybody = range(101, 200);
  const conversation = await open(
    user(101),
    group,
    everybody.map((number) => `user${number}`),
  );
  t.deepEqual(conversation.members, ids(...everybody));
});

test('createConversation: only for oneself and others', async (t) => {
  const client = await as(user(5));
  const refused = await refusal(
    t,
    client.createConversation({ type: privately, members: ['user1', 'user2'], metadata: undefined }),
  );
  t.is(refused.kind, 'PERMISSION_DENIED');
  t.is(refused.reason, 'NOT_A_MEMBER');
  t.regex(refused.message, /^Access denied/);
});

test('createConversation: every call opens a new one', async (t) => {
  const both = await Promise.all([1, 2].map(async () => open(user(1), privately, ['user1', 'user2'])));
  t.not(both[0]!.conversationId, both[1]!.conversationId);
});

test('createConversation: says that nobody can be looked up while the auth service is away', async (t) => {
  const alone = await hub.startService('conversation', { AUTH_ADDRESS: '127.0.0.1:1' });
  const client = hub.client(ConversationServiceService, alone.address, { token: await hub.userToken(user(1)) });
  const refused = await refusal(
    t,
    client.createConversation({ type: privately, members: ['user1', 'user2'], metadata: undefined }),
  );
  t.is(refused.kind, 'UNAVAILABLE');
  t.is(refused.reason, 'SERVICE_UNAVAILABLE');
});

test('start: the service works while the bus is away', async (t) => {
  const alone = await hub.startService('conversation', { KAFKA_BROKERS: '127.0.0.1:1', BUS_DATABASE_URL: '' });
  const client = hub.client(ConversationServiceService, alone.address, { token: await hub.userToken(user(51)) });
  const members = ['user51', 'user52'];
  const { conversation } = await client.createConversation({ type: privately, members, metadata: undefined });
  t.deepEqual(conversation!.members, ids(51, 52));
  const warned = (lines: string[]) => lines.some((line) => line.includes('stands still until the bus is back'));
  await eventually('its log', () => alone.lines, warned);
  await alone.stop();
});

test('getConversation: 404 if there is none, 403 for an outsider', async (t) => {
  const { conversationId } = await open(user(1), privately, ['user1', 'user2']);
  const outsider = await as(user(3));
  const denied = await refusal(t, outsider.getConversation({ conversationId }));
  t.is(denied.kind, 'PERMISSION_DENIED');
  t.is(denied.reason, 'NOT_A_MEMBER');
  t.regex(denied.message, /^Access denied/);
  const missing = await refusal(t, outsider.getConversation({ conversationId: uuid() }));
  t.is(missing.kind, 'NOT_FOUND');
  t.is(missing.reason, 'CONVERSATION_NOT_FOUND');
  t.is(missing.message, 'Conversation not found');
  t.deepEqual(await badFields(t, outsider.getConversation({ conversationId: 'nonsense' })), ['conversation_id']);
});

test('leaveConversation: who has left is no member any more, and the others stay', async (t) => {
  const { conversationId } = await open(user(11), group, ['user11', 'user12', 'user13']);
  const leaver = await as(user(12));
  await leaver.leaveConversation({ conversationId });
  t.is((await refusal(t, leaver.leaveConversation({ conversationId }))).reason, 'NOT_A_MEMBER');
  t.is((await refusal(t, leaver.getConversation({ conversationId }))).reason, 'NOT_A_MEMBER');
  t.is((await leaver.listConversations({ limit: undefined, offset: 0 })).total, 0n);
  const other = await as(user(13));
  t.deepEqual((await other.getConversation({ conversationId })).conversation!.members, ids(11, 13));
  t.deepEqual(await (await asService()).getMembership({ conversationId }), { memberIds: ids(11, 13) });
  t.is((await refusal(t, leaver.leaveConversation({ conversationId: uuid() }))).kind, 'NOT_FOUND');
});

test('leaveConversation: twice at once is one departure', async (t) => {
  const { conversationId } = await open(user(14), privately, ['user14', 'user15']);
  const leaver = await as(user(15));
  const outcomes = await Promise.allSettled([1, 2, 3].map(() => leaver.leaveConversation({ conversationId })));
  t.deepEqual(outcomes.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected', 'rejected']);
});

test('getMemberships: those of each conversation that there is', async (t) => {
  const one = (await open(user(3), group, ['user3', 'user1', 'user2'])).conversationId;
  const other = (await open(user(16), privately, ['user16', 'user17'])).conversationId;
  const client = await asService();
  const { memberships } = await client.getMemberships({ conversationIds: [one, uuid(), other, one] });
  const found = new Map(memberships.map(({ conversationId, memberIds }) => [conversationId, memberIds]));
  t.is(memberships.length, 2);
  t.deepEqual(found.get(one), ids(3, 1, 2));
  t.deepEqual(found.get(other), ids(16, 17));
  t.deepEqual(await client.getMemberships({ conversationIds: [] }), { memberships: [] });
});

test('getMembership: the active members, in the order in which they were named', async (t) => {
  const { conversationId } = await open(user(1), group, ['user3', 'user1', 'user2']);
  const client = await asService();
  t.deepEqual(await client.getMembership({ conversationId }), { memberIds: ids(3, 1, 2) });
  t.is((await refusal(t, client.getMembership({ conversationId: uuid() }))).reason, 'CONVERSATION_NOT_FOUND');
});

test("listConversations: one's own, the newest first, in pages with the total", async (t) => {
  const opened: string[] = [];
  for (const partner of range(22, 26)) {
    opened.unshift((await open(user(21), privately, ['user21', `user${partner}`])).conversationId);
  }
  const client = await as(user(21));
  const listed = async (limit: number | undefined, offset: number) => {
    const { conversations, ...page } = await client.listConversations({ limit, offset });
    return { ...page, ids: conversations.map(({ conversationId }) => conversationId) };
  };
  t.deepEqual(await listed(undefined, 0), { total: 5n, limit: 50, offset: 0, ids: opened });
  t.deepEqual(await listed(2, 1), { total: 5n, limit: 2, offset: 1, ids: opened.slice(1, 3) });
  t.deepEqual(await listed(2, 9), { total: 5n, limit: 2, offset: 9, ids: [] });
  const [first] = (await client.listConversations({ limit: 1, offset: 0 })).conversations;
  t.deepEqual((await client.getConversation({ conversationId: opened[0]! })).conversation, first);
  const partner = await as(user(22));
  t.is((await partner.listConversations({ limit: undefined, offset: 0 })).total, 1n);
  t.deepEqual(await badFields(t, client.listConversations({ limit: 0, offset: -1 })), ['limit', 'offset']);
});

function accepted(conversationId: string, acceptedAt: Date): BusEvent {
  const value = MessageAccepted.encode(MessageAccepted.create({ conversationId, acceptedAt })).finish();
  return { id: uuid(), type: 'chat4all.message.v1.MessageAccepted', key: conversationId, value, requestId: 'test' };
}

test('activity: a message moves its conversation to the top, and one that comes late moves nothing back', async (t) => {
  const older = (await open(user(31), privately, ['user31', 'user32'])).conversationId;
  const newer = (await open(user(31), privately, ['user31', 'user33'])).conversationId;
  const client = await as(user(31));
  const first = async () => (await client.listConversations({ limit: 1, offset: 0 })).conversations[0]!.conversationId;
  t.is(await first(), newer);
  await bus.publish('message_processing', [accepted(older, new Date(Date.now() + 60_000))]);
  await eventually('the first conversation', first, (id) => id === older);

  const later = new Date(Date.now() + 120_000);
  await bus.publish('message_processing', [
    accepted(newer, later),
    accepted(newer, new Date(0)),
    accepted(older, new Date(0)),
    accepted(newer, later),
  ]);
  await eventually('the first conversation', first, (id) => id === newer);
  await eventually(
    'what the conversation service has still to read',
    async () => bus.lag('message_processing', 'conversation'),
    (lags) => lags.every(({ events }) => events === 0),
  );
  const rows = await db.sql<{ last_activity_at: Date }>('select last_activity_at from conversations where id = $1', [
    newer,
  ]);
  t.deepEqual(rows[0]?.last_activity_at, later);
});

test("activity: recorded in one batch, repeatable, without conversations that don't exist", async (t) => {
  const { id } = await store.createConversation(
    {
      type: 'private',
      name: '',
      description: '',
      memberIds: ids(41, 42),
    },
    'request',
  );
  const at = new Date('2101-01-01T00:00:00.123Z');
  const batch = [
    { conversationId: id, at },
    { conversationId: uuid(), at },
  ];
  await store.recordActivity(batch);
  await store.recordActivity(batch);
  const rows = await db.sql<{ last_activity_at: Date }>('select last_activity_at from conversations where id = $1', [
    id,
  ]);
  t.deepEqual(rows[0]?.last_activity_at, at);
});
