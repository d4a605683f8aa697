import test from 'ava';
import { v4 as uuid } from 'uuid';
import { MessageAccepted, MessageRejected, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { PayloadType, Priority } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import { RouterServiceService } from '#gen/chat4all/router/v1/router.ts';
import type { BusEvent, ReceivedEvent } from '#lib/bus/bus.ts';
import { busSettings, openBus } from '#lib/bus/open.ts';
import { loadConfig } from '#lib/config.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { startForgetting } from '#lib/forgetting.ts';
import { openLog } from '#lib/log.ts';
import { eventually } from '../../test/eventually.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { rejection, routing, type Files } from './events.ts';
import { copiesOf, decide, requestsFor } from './router.ts';
import { database } from './database.ts';
import { openStore } from './store.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const log = openLog({ name: 'router', format: 'json', level: 'silent' });
const db = opened(
  () => openDatabase(database, { url: harness.databaseUrl('router'), poolSize: 5, name: 'router test' }),
  (db) => db.close(),
);
const store = openStore(db);

/** A file service in which every file is there. */
const files: Files = { verifyFile: async () => ({}) };

const soon = () => new Date(Date.now() + 25_000);

function acceptedMessage(given: Partial<MessageAccepted> = {}): MessageAccepted {
  return {
    messageId: uuid(),
    conversationId: uuid(),
    seq: 1n,
    senderId: uuid(),
    recipientIds: [uuid()],
    channels: ['whatsapp'],
    payload: {
      type: PayloadType.PAYLOAD_TYPE_TEXT,
      text: 'olá',
      fileId: '',
      filename: '',
      fileSize: 0n,
      contentType: '',
    },
    priority: Priority.PRIORITY_NORMAL,
    acceptedAt: new Date(),
    deliverBy: soon(),
    replay: 0,
    only: [],
    senderUsername: 'ana',
    ...given,
  };
}

function received(message: MessageAccepted, given: Partial<ReceivedEvent> = {}): ReceivedEvent {
  return {
    id: message.messageId,
    type: 'chat4all.message.v1.MessageAccepted',
    key: message.conversationId,
    value: MessageAccepted.encode(message).finish(),
    requestId: `request of ${message.messageId}`,
    topic: 'message_processing',
    partition: 0,
    ...given,
  };
}

/** Keeps what is published, in order; `failing` names a topic that can't be published on. */
function recordingBus() {
  const published: { topic: string; events: readonly BusEvent[] }[] = [];
  const bus = {
    published,
    failing: undefined as string | undefined,
    async publish(topic: string, events: readonly BusEvent[]) {
      if (topic === bus.failing) throw new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
      published.push({ topic, events });
    },
    on: (topic: string) => published.filter((each) => each.topic === topic).flatMap((each) => each.events),
  };
  return bus;
}

const requestsOf = (events: readonly BusEvent[]) => events.map((event) => DeliveryRequested.decode(event.value));

test('decide: each recipient gets a copy over each channel, whatever was named twice', (t) => {
  const message = { ...acceptedMessage(), recipientIds: ['a', 'b', 'a'], channels: ['x', 'y', 'x'], deliverBy: soon() };
  const route = decide(message, new Date());
  t.is(route.rejectedReason, null);
  t.deepEqual(copiesOf(route), [
    { recipientId: 'a', channel: 'x' },
    { recipientId: 'b', channel: 'x' },
    { recipientId: 'a', channel: 'y' },
    { recipientId: 'b', channel: 'y' },
  ]);
});

test('decide: what can be delivered to nobody is rejected with the reason', (t) => {
  const now = new Date();
  const reason = (given: object) => decide({ ...acceptedMessage(), deliverBy: soon(), ...given }, now).rejectedReason;
  t.is(reason({ deliverBy: now }), 'The delivery deadline had passed before it could be routed');
  t.is(reason({ recipientIds: [] }), 'It has no recipients');
  t.is(reason({ channels: [] }), 'It has no channels');
  for (const channel of ['', 'WhatsApp', '1st', 'a.b', 'a b', 'a'.repeat(64), '../x']) {
    t.is(reason({ channels: ['whatsapp', channel] }), `There is no channel ${JSON.stringify(channel)}`);
  }
  t.is(reason({ channels: ['a'.repeat(63), 'sms-2_b'] }), null);
  t.deepEqual(copiesOf(decide({ ...acceptedMessage(), channels: ['A'], deliverBy: soon() }, now)), []);
});

test('routing: says that a message is routed before it asks for its deliveries, topic by topic', async (t) => {
  const bus = recordingBus();
  const recipientIds = [uuid(), uuid()];
  const message = acceptedMessage({ recipientIds, channels: ['whatsapp', 'instagram'], seq: 7n });
  await routing({ store, files, publish: bus.publish, log })([received(message)]);

  t.is(bus.published[0]!.topic, 'message_status');
  t.deepEqual(bus.published.map((each) => each.topic).toSorted(), [
    'instagram_outgoing',
    'message_status',
    'whatsapp_outgoing',
  ]);
  const [routed] = bus.on('message_status');
  t.is(routed!.type, 'chat4all.message.v1.MessageRouted');
  t.is(MessageRouted.decode(routed!.value).messageId, message.messageId);
  for (const channel of ['whatsapp', 'instagram']) {
    const events = bus.on(`${channel}_outgoing`);
    t.deepEqual(requestsOf(events), [
      {
        messageId: message.messageId,
        conversationId: message.conversationId,
        seq: 7n,
        senderId: message.senderId,
        recipientId: '',
        channel,
        payload: message.payload,
        priority: message.priority,
        deliverBy: message.deliverBy,
        replay: 0,
        recipientIds,
        acceptedAt: message.acceptedAt,
      },
    ]);
  }
  for (const event of bus.published.flatMap((each) => each.events)) {
    t.is(event.key, message.conversationId);
    t.is(event.requestId, `request of ${message.messageId}`);
  }
});

test('routing: a batch keeps the order of its messages, and is one publication for each topic', async (t) => {
  const bus = recordingBus();
  const conversationId = uuid();
  const messages = Array.from({ length: 50 }, (_, index) =>
    acceptedMessage({ conversationId, seq: BigInt(index + 1) }),
  );
  await routing({ store, files, publish: bus.publish, log })(messages.map((message) => received(message)));
  t.is(bus.published.length, 2);
  t.deepEqual(
    requestsOf(bus.on('whatsapp_outgoing')).map(({ seq }) => seq),
    messages.map(({ seq }) => seq),
  );
});

test('routing: a text travels once for all people of a channel, and for one person as it did before there were several', async (t) => {
  const bus = recordingBus();
  const text = { ...acceptedMessage().payload!, text: 'x'.repeat(65_536) };
  const recipientIds = Array.from({ length: 99 }, () => uuid());
  const [group, single] = [acceptedMessage({ recipientIds, payload: text }), acceptedMessage({ payload: text })];
  await routing({ store, files, publish: bus.publish, log })([received(group), received(single)]);
  const events = bus.on('whatsapp_outgoing');
  t.is(events.length, 2);
  t.true(events[0]!.value.byteLength < 65_536 + 99 * 40 + 500);
  t.like(requestsOf(events), [
    { recipientId: '', recipientIds },
    { recipientId: single.recipientIds[0]!, recipientIds: [] },
  ]);
});

test('requestsFor: an event has a hundred recipients at most', (t) => {
  const recipientIds = Array.from({ length: 250 }, (_, index) => String(index));
  const route = decide({ ...acceptedMessage(), recipientIds, channels: ['x', 'y'], deliverBy: soon() }, new Date());
  const requests = requestsFor(route);
  t.deepEqual(
    requests.map(({ channel, recipientIds: { length } }) => [channel, length]),
    ['x', 'y'].flatMap((channel) => [100, 100, 50].map((count) => [channel, count])),
  );
  t.deepEqual(
    requests.slice(0, 3).flatMap((request) => request.recipientIds),
    recipientIds,
  );
});

test('routing: long texts are not published all at once', async (t) => {
  const bus = recordingBus();
  const text = { ...acceptedMessage().payload!, text: 'x'.repeat(65_536) };
  const messages = Array.from({ length: 50 }, () => acceptedMessage({ payload: text }));
  await routing({ store, files, publish: bus.publish, log })(messages.map((message) => received(message)));
  const publications = bus.published.filter(({ topic }) => topic === 'whatsapp_outgoing');
  t.is(publications.length, 2);
  for (const { events } of publications) {
    t.true(events.reduce((bytes, event) => bytes + event.value.byteLength, 0) <= 2 * 1024 * 1024);
  }
  t.deepEqual(
    requestsOf(bus.on('whatsapp_outgoing')).map(({ messageId }) => messageId),
    messages.map(({ messageId }) => messageId),
  );
});

test('routing: the same batch again is the same decisions and the same events', async (t) => {
  const ids = { messageId: '11111111-1111-1111-1111-111111111111', conversationId: uuid() };
  const batch = [
    received(acceptedMessage({ ...ids, channels: ['whatsapp', 'instagram'] })),
    received(acceptedMessage({ channels: ['No Channel'] })),
  ];
  const [first, second] = [recordingBus(), recordingBus()];
  await routing({ store, files, publish: first.publish, log })([...batch, ...batch]);
  const decided = await store.find(ids.messageId);
  await routing({ store, files, publish: second.publish, log })(batch);
  t.deepEqual(second.published, first.published);
  t.is(first.on('message_status').length, 2);
  t.deepEqual(await store.find(ids.messageId), decided);
  t.is(new Set(first.published.flatMap(({ events }) => events.map(({ id }) => id))).size, 4);
});

for (const topic of ['message_status', 'whatsapp_outgoing', 'instagram_outgoing']) {
  test(`routing: cut off while it publishes on ${topic}, it does everything when the batch comes again`, async (t) => {
    const bus = recordingBus();
    bus.failing = topic;
    const message = acceptedMessage({ channels: ['whatsapp', 'instagram'] });
    const handle = routing({ store, files, publish: bus.publish, log });
    await t.throwsAsync(handle([received(message)]), { instanceOf: HubError });
    const decided = await store.find(message.messageId);
    t.truthy(decided);
    if (topic === 'message_status') t.deepEqual(bus.published, []);

    bus.failing = undefined;
    bus.published.length = 0;
    await handle([received(message)]);
    t.deepEqual(
      bus.published.map((each) => each.topic),
      ['message_status', 'whatsapp_outgoing', 'instagram_outgoing'],
    );
    t.deepEqual(MessageRouted.decode(bus.on('message_status')[0]!.value).at, decided!.routedAt);
  });
}

test('routing: the first decision stands, also when the deadline has passed before the repetition', async (t) => {
  const [first, second] = [recordingBus(), recordingBus()];
  const message = acceptedMessage();
  await routing({ store, files, publish: first.publish, log })([received(message)]);
  const late = { ...message, deliverBy: new Date(Date.now() - 1) };
  await routing({ store, files, publish: second.publish, log })([received(late)]);
  t.is(second.on('message_status')[0]!.type, 'chat4all.message.v1.MessageRouted');
  t.is(second.on('whatsapp_outgoing').length, 1);
});

test('routing: a replay is decided about anew, and asks only for what is to be done again', async (t) => {
  const bus = recordingBus();
  const [ana, bia] = [uuid(), uuid()];
  const ids = { messageId: uuid(), conversationId: uuid() };
  const people = { recipientIds: [ana, bia], channels: ['whatsapp', 'instagram'] };
  const handle = routing({ store, files, publish: bus.publish, log });
  const late = received(acceptedMessage({ ...ids, ...people, deliverBy: new Date(Date.now() - 1) }));
  const only = [
    { recipientId: bia, channel: 'whatsapp' },
    { recipientId: ana, channel: 'instagram' },
  ];
  const replay = received(acceptedMessage({ ...ids, ...people, replay: 1, only }), { id: uuid() });
  // Both in one batch: the first was still waiting when its time was over.
  await handle([late, replay]);
  const decisions = bus.on('message_status');
  t.deepEqual(
    decisions.map(({ type }) => type),
    ['chat4all.message.v1.MessageRejected', 'chat4all.message.v1.MessageRouted'],
  );
  t.is(MessageRouted.decode(decisions[1]!.value).replay, 1);
  const copies = [...bus.on('whatsapp_outgoing'), ...bus.on('instagram_outgoing')];
  t.deepEqual(
    requestsOf(copies).map(({ recipientId, channel, replay: round }) => [recipientId, channel, round]),
    [
      [bia, 'whatsapp', 1],
      [ana, 'instagram', 1],
    ],
  );
  t.like(await store.find(ids.messageId), { replay: 1, rejectedReason: null });
  t.deepEqual(copiesOf((await store.find(ids.messageId))!).length, 2);

  await handle([
    received(acceptedMessage({ ...ids, ...people, replay: 1, only, deliverBy: new Date(0) }), { id: uuid() }),
  ]);
  t.is(bus.on('message_status').at(-1)!.type, 'chat4all.message.v1.MessageRouted', 'the first decision stands');
  t.is(new Set(bus.on('whatsapp_outgoing').map(({ id }) => id)).size, 1);
});

test('routing: a message past its deadline is rejected and asks for no delivery', async (t) => {
  const bus = recordingBus();
  const message = acceptedMessage({ deliverBy: new Date(Date.now() - 1) });
  await routing({ store, files, publish: bus.publish, log })([received(message)]);
  t.deepEqual(
    bus.published.map((each) => each.topic),
    ['message_status'],
  );
  const [event] = bus.on('message_status');
  t.is(event!.type, 'chat4all.message.v1.MessageRejected');
  const { messageId, reason } = MessageRejected.decode(event!.value);
  t.is(messageId, message.messageId);
  t.is(reason, 'The delivery deadline had passed before it could be routed');
});

test('routing: an event that can not be read has no effect, and says what is wrong with it', async (t) => {
  const bus = recordingBus();
  const good = acceptedMessage();
  const bad: [ReceivedEvent, RegExp][] = [
    [received(good, { type: 'chat4all.message.v1.MessageRouted' }), /its type is/],
    [received(good, { value: Buffer.from([255, 255, 255]) }), /it is no chat4all/],
    [received(good, { id: uuid() }), /message_id/],
    [received(acceptedMessage({ messageId: 'x' })), /message_id/],
    [received(good, { key: uuid() }), /conversation_id/],
    [received(acceptedMessage({ recipientIds: [uuid(), 'y'] })), /recipient_ids\[1\]/],
    [received(acceptedMessage({ deliverBy: undefined })), /deliver_by/],
  ];
  const handle = routing({ store, files, publish: bus.publish, log });
  for (const [event, message] of bad) {
    const error = await t.throwsAsync(handle([received(good), event]), { instanceOf: HubError, message });
    t.is((error as HubError).kind, 'INVALID_ARGUMENT');
  }
  t.deepEqual(bus.published, []);
  t.is(await store.find(good.messageId), undefined);
});

test('routing: a message whose file is not there is rejected, with the reason and an error in the log', async (t) => {
  const bus = recordingBus();
  const lines: { level: number; msg: string; reason: string }[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const fileId = uuid();
  const payload = { ...acceptedMessage().payload!, type: PayloadType.PAYLOAD_TYPE_FILE, text: '', fileId };
  const [lost, whole] = [acceptedMessage({ payload }), acceptedMessage()];
  const missing: Files = {
    async verifyFile(request) {
      t.is(request.fileId, fileId);
      throw new HubError('NOT_FOUND', 'CONTENT_MISSING', 'gone');
    },
  };
  const errors = openLog({ name: 'router', format: 'json', level: 'info', destination });
  await routing({ store, files: missing, publish: bus.publish, log: errors })([received(lost), received(whole)]);
  const reason = 'The file is not in the store';
  t.is((await store.find(lost.messageId))?.rejectedReason, reason);
  t.is((await store.find(whole.messageId))?.rejectedReason, null);
  t.like(MessageRejected.decode(bus.on('message_status')[0]!.value), { messageId: lost.messageId, reason });
  t.is(bus.on('whatsapp_outgoing').length, 1);
  t.deepEqual(
    lines.map(({ level, msg, reason: why }) => [level, msg, why]),
    [[50, 'rejected', reason]],
  );
});

test('routing: nothing is decided while the file service is away; a message whose time is over is not asked about', async (t) => {
  const bus = recordingBus();
  const payload = { ...acceptedMessage().payload!, type: PayloadType.PAYLOAD_TYPE_FILE, fileId: uuid() };
  const away: Files = {
    async verifyFile() {
      throw new HubError('UNAVAILABLE', 'SERVICE_UNAVAILABLE', 'away');
    },
  };
  const handle = routing({ store, files: away, publish: bus.publish, log });
  const waiting = acceptedMessage({ payload });
  t.like(await t.throwsAsync(handle([received(waiting)])), { kind: 'UNAVAILABLE' });
  t.is(await store.find(waiting.messageId), undefined);
  t.deepEqual(bus.published, []);
  const late = acceptedMessage({ payload, deliverBy: new Date(Date.now() - 1_000) });
  await handle([received(late)]);
  t.regex((await store.find(late.messageId))!.rejectedReason!, /deadline/);
});

test('rejection: whoever waits for an event that was given up learns why', async (t) => {
  const bus = recordingBus();
  const message = acceptedMessage();
  const event = received(message, { value: Buffer.from([255]) });
  await rejection(bus.publish)(event, new HubError('INVALID_ARGUMENT', 'UNREADABLE_EVENT', 'No good'));
  await rejection(bus.publish)(event, new Error('internal text'));
  const [known, unknown] = bus.on('message_status');
  t.like(MessageRejected.decode(known!.value), { messageId: message.messageId, reason: 'No good' });
  t.is(MessageRejected.decode(unknown!.value).reason, 'Something went wrong while it was routed');
  t.is(known!.key, message.conversationId);

  await rejection(bus.publish)(received(message, { id: 'x', value: Buffer.from([255]) }), new Error('internal text'));
  t.is(bus.on('message_status').length, 2, 'nobody can say whose it is');

  const replay = acceptedMessage({ replay: 3 });
  await rejection(bus.publish)(received(replay, { id: uuid() }), new Error('internal text'));
  t.like(MessageRejected.decode(bus.on('message_status').at(-1)!.value), { messageId: replay.messageId, replay: 3 });
});

test('the router routes what comes over the bus, and answers for it over gRPC', async (t) => {
  const router = await harness.startService('router');
  const client = harness.client(RouterServiceService, router.address, {
    token: await harness.userToken({ userId: uuid(), username: 'boss', admin: true }),
  });
  const bus = await openBus(loadConfig(busSettings, { BUS_DATABASE_URL: harness.databaseUrl('bus') }), {
    log,
    clientId: 'test',
  });
  t.teardown(() => bus.stop());
  const message = acceptedMessage({ channels: ['whatsapp'] });
  const unreadable = acceptedMessage();
  const reports = Promise.withResolvers<void>();
  const requested = Promise.withResolvers<DeliveryRequested>();
  const reported = new Map<string, string>();
  await bus.consume({
    topics: ['message_status'],
    group: 'test',
    async handle(events) {
      for (const { type, value } of events) reported.set(MessageRouted.decode(value).messageId, type);
      if (reported.size === 2) reports.resolve();
    },
  });
  await bus.consume({
    topics: ['whatsapp_outgoing'],
    group: 'test',
    async handle([event]) {
      requested.resolve(DeliveryRequested.decode(event!.value));
    },
  });

  await t.throwsAsync(client.getRoute({ messageId: message.messageId }), { message: /Nothing was decided/ });
  const asPublished = ({ topic: _topic, partition: _partition, ...event }: ReceivedEvent): BusEvent => event;
  await bus.publish('message_processing', [
    asPublished(received(unreadable, { value: Buffer.from([255]) })),
    asPublished(received(message)),
  ]);
  t.is((await requested.promise).messageId, message.messageId);
  await reports.promise;
  t.is(reported.get(message.messageId), 'chat4all.message.v1.MessageRouted');
  t.is(reported.get(unreadable.messageId), 'chat4all.message.v1.MessageRejected');
  const route = await client.getRoute({ messageId: message.messageId.toUpperCase() });
  t.is(route.conversationId, message.conversationId);
  t.is(route.rejectedReason, '');
  t.deepEqual(route.deliveries, [
    { recipientId: message.recipientIds[0]!, channel: 'whatsapp', topic: 'whatsapp_outgoing' },
  ]);
});

test('decisions that were taken long ago go, and nothing else', async (t) => {
  const at = (year: number) => new Date(Date.UTC(year, 0, 1));
  const routes = [at(2001), at(2000), new Date()].map((now) =>
    decide({ ...acceptedMessage(), deliverBy: at(2100) }, now),
  );
  await store.record(routes);
  const left = async () =>
    Promise.all(routes.map(async ({ messageId }) => (await store.find(messageId)) !== undefined));
  const forgetting = startForgetting({
    database: db,
    table: 'routes',
    isOld: 'routed_at < $3',
    retention: 60_000,
    log,
  });
  t.teardown(() => forgetting.stop());
  const found = await eventually('the old ones are gone', left, ([first, second]) => !first && !second);
  t.deepEqual(found, [false, false, true]);
});
