import { randomUUID } from 'node:crypto';
import test from 'ava';
import { MessageAccepted } from '#gen/chat4all/message/v1/events.ts';
import { Priority } from '#gen/chat4all/message/v1/message.ts';
import { openDatabase } from '#lib/database.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { fingerprintOf, timesOf, type Draft, type Report } from '../message.ts';
import { openOutbox, type Lease } from '../outbox/store.ts';
import type { NewMessage } from './acceptance-store.ts';
import { openStore } from './store.ts';
import { database as definition } from '../database.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('message'), poolSize: 10, name: 'test' }),
  (database) => database.close(),
);
const store = openStore(database);
const outbox = openOutbox(database);

const ana = randomUUID();
const bia = randomUUID();
const caio = randomUUID();

function newMessage(changes: Partial<NewMessage & { expiresIn: number }> = {}): NewMessage {
  const draft: Draft = {
    messageId: randomUUID(),
    conversationId: randomUUID(),
    senderId: ana,
    to: [],
    channels: ['whatsapp'],
    content: { type: 'text', text: 'Olá, 世界', fileId: '' },
    priority: 'high',
    ...changes,
  };
  const createdAt = new Date();
  return {
    ...draft,
    channels: [...draft.channels],
    senderUsername: 'ana',
    recipientIds: [bia, caio],
    fingerprint: fingerprintOf(draft),
    createdAt,
    ...timesOf(createdAt, changes.expiresIn ?? 30_000),
    requestId: 'request-1',
    ...changes,
  };
}

async function sent(changes: Partial<NewMessage> = {}): Promise<NewMessage> {
  const message = newMessage(changes);
  await store.append(message);
  return message;
}

function ended(recipientId: string, error = ''): Report {
  return {
    kind: 'ended',
    at: new Date(),
    replay: 0,
    recipientId,
    channel: 'whatsapp',
    delivered: error === '',
    attempts: 1,
    error,
  };
}

test('append: what was kept is read back, with its first history row and its open deliveries', async (t) => {
  const message = newMessage({ channels: ['whatsapp', 'instagram'] });
  await store.append(message);
  const found = await store.find(message.messageId);
  t.like(found, {
    messageId: message.messageId,
    seq: 1,
    senderUsername: 'ana',
    content: { type: 'text', text: 'Olá, 世界', fileId: '' },
    priority: 'high',
    status: 'accepted',
  });
  t.deepEqual(found?.createdAt, message.createdAt);
  t.deepEqual(found?.history, [{ status: 'accepted', at: message.createdAt, note: '' }]);
  t.deepEqual(
    found?.deliveries.map(({ recipientId, channel, status, attempts }) => [recipientId, channel, status, attempts]),
    [bia, caio].flatMap((recipient) => [
      [recipient, 'instagram', 'accepted', 0],
      [recipient, 'whatsapp', 'accepted', 0],
    ]),
  );
  t.is(await store.find(randomUUID()), undefined);
});

test('append: senders at once get every position once, without a gap', async (t) => {
  const conversationId = randomUUID();
  const messages = Array.from({ length: 100 }, () => newMessage({ conversationId }));
  await Promise.all(messages.map((message) => store.append(message)));
  t.is((await store.positions(conversationId)).lastSeq, 100);
  const listed = await store.list(conversationId, { from: 1, to: 100, order: 'asc' });
  t.deepEqual(
    listed.map(({ seq }) => seq),
    Array.from({ length: 100 }, (_, index) => index + 1),
  );
  const idsOf = (some: readonly { messageId: string }[]) => some.map(({ messageId }) => messageId).toSorted();
  t.deepEqual(idsOf(listed), idsOf(messages));
});

test('append: the same message at once and again is kept once and takes one position', async (t) => {
  const message = newMessage();
  await Promise.all(Array.from({ length: 20 }, () => store.append(message)));
  await store.append(message);
  t.is((await store.positions(message.conversationId)).lastSeq, 1);
  await store.append(newMessage({ conversationId: message.conversationId }));
  t.is((await store.positions(message.conversationId)).lastSeq, 2);
  const [{ events }] = (await database.sql<{ events: bigint }>(
    'select count(*) as events from outbox where message_id = $1',
    [message.messageId],
  )) as [{ events: bigint }];
  t.is(events, 1n);
});

test('append: an id that was used for something else is refused, also at once and in another conversation', async (t) => {
  const message = newMessage();
  const other = newMessage({ messageId: message.messageId });
  const results = await Promise.allSettled([store.append(message), store.append(other)]);
  const refused = results.filter((result) => result.status === 'rejected');
  t.is(refused.length, 1);
  t.like(refused[0]?.reason, { kind: 'ALREADY_EXISTS', reason: 'MESSAGE_ID_REUSED' });
  const heads = await Promise.all([store.positions(message.conversationId), store.positions(other.conversationId)]);
  t.is(heads[0].lastSeq + heads[1].lastSeq, 1, 'the refused one took no position');
});

test('append: of many at once only the one that PostgreSQL refuses fails', async (t) => {
  const conversationId = randomUUID();
  const messages = Array.from({ length: 40 }, (_, index) =>
    newMessage({
      conversationId,
      content: { type: 'text', text: index === 17 ? 'a NUL: \0' : `Oi ${index}`, fileId: '' },
    }),
  );
  const results = await Promise.allSettled(messages.map((message) => store.append(message)));
  t.deepEqual(
    results.flatMap(({ status }, index) => (status === 'rejected' ? [index] : [])),
    [17],
  );
  t.is((await store.positions(conversationId)).lastSeq, 39, 'it has taken no position');
});

test('append: messages at once to many conversations, of every kind, are kept as they are', async (t) => {
  const label = { filename: 'a "quoted", {name}.png', fileSize: 3, contentType: 'image/png' };
  const messages = Array.from({ length: 60 }, (_, index) =>
    newMessage({
      channels: index % 3 === 0 ? ['whatsapp'] : ['whatsapp', 'instagram'],
      content:
        index % 2 === 0
          ? { type: 'text', text: `{"${index}",\\ NULL}`, fileId: '' }
          : { type: 'file', text: '', fileId: randomUUID(), label },
    }),
  );
  t.deepEqual(
    await Promise.all(messages.map((message) => store.append(message))),
    messages.map(() => true),
  );
  for (const { messageId, content, channels } of messages) {
    const found = await store.find(messageId);
    t.deepEqual(found?.content, content);
    t.deepEqual([found?.channels, found?.seq], [channels, 1]);
  }
});

/** Locks the head of a conversation, as a round of another process does, until what is returned is called. */
async function holdHead(conversationId: string): Promise<() => Promise<void>> {
  const { promise: letGo, resolve } = Promise.withResolvers<void>();
  const { promise: held, resolve: isHeld } = Promise.withResolvers<void>();
  const holding = database.transaction(async (transaction) => {
    await transaction.sql('select 1 from conversation_heads where conversation_id = $1 for update', [conversationId]);
    isHeld();
    await letGo;
  });
  await held;
  return () => (resolve(), holding);
}

test('append: who writes to a conversation that is held up holds up nobody else, and is told at last', async (t) => {
  const { conversationId } = await sent();
  const release = await holdHead(conversationId);
  const stuck = Array.from({ length: 30 }, () => store.append(newMessage({ conversationId })));
  const refusals = Promise.allSettled(stuck);
  // More rounds than there are connections, in conversations that are new and in one that is there.
  const other = (await sent()).conversationId;
  for (let round = 0; round < 12; round += 1) {
    const others = [newMessage(), newMessage(), newMessage({ conversationId: other })];
    t.deepEqual(await Promise.all(others.map((message) => store.append(message))), [true, true, true]);
  }
  for (const outcome of await refusals) {
    t.like(outcome, {
      status: 'rejected',
      reason: { kind: 'UNAVAILABLE', reason: 'CONVERSATION_BUSY', retryAfter: 1 },
    });
  }
  await release();
  t.true(await store.append(newMessage({ conversationId })));
  t.is((await store.positions(conversationId)).lastSeq, 2, 'those that were refused have taken no position');
});

test('append: who comes while a conversation is held up for a moment is kept after it', async (t) => {
  const { conversationId } = await sent();
  const release = await holdHead(conversationId);
  const message = newMessage({ conversationId });
  const twice = [store.append(message), store.append(message), store.append(newMessage({ conversationId }))];
  await store.append(newMessage());
  await release();
  t.deepEqual((await Promise.all(twice)).filter(Boolean).length, 2);
  t.is((await store.positions(conversationId)).lastSeq, 3);
});

test('outbox: the order of each conversation is the order of its positions', async (t) => {
  const conversations = [randomUUID(), randomUUID(), randomUUID()];
  const messages = Array.from({ length: 90 }, (_, index) =>
    newMessage({ conversationId: conversations[index % conversations.length] as string }),
  );
  await Promise.all(messages.map((message) => store.append(message)));
  const { entries } = await outbox.unpublished(100_000);
  for (const conversationId of conversations) {
    t.deepEqual(
      entries
        .filter(({ event }) => event.key === conversationId)
        .map(({ event }) => MessageAccepted.decode(event.value).seq),
      Array.from({ length: 30 }, (_, index) => BigInt(index + 1)),
    );
  }
  const { event } = entries.findLast(({ event }) => event.id === messages[0]!.messageId)!;
  t.like(event, { requestId: 'request-1', key: conversations[0], type: 'chat4all.message.v1.MessageAccepted' });
  const { messageId, conversationId, senderId, recipientIds, channels, createdAt, deliverBy } = messages[0]!;
  t.like(MessageAccepted.decode(event.value), {
    messageId,
    conversationId,
    senderId,
    recipientIds,
    channels,
    deliverBy,
    acceptedAt: createdAt,
    replay: 0,
    only: [],
    priority: Priority.PRIORITY_HIGH,
  });
});

test.serial('lease: one owner at a time, a new epoch for each, and only the holder takes events out', async (t) => {
  const [first, second] = [randomUUID(), randomUUID()];
  const held = await outbox.holdLease(first, 60_000);
  t.truthy(held);
  t.is(await outbox.holdLease(second, 60_000), undefined);
  t.deepEqual(await outbox.holdLease(first, 60_000), held, 'keeping it is no new epoch');

  const message = newMessage();
  await store.append(message);
  const entryOf = async () =>
    (await outbox.unpublished(100_000)).entries.find(({ event }) => event.id === message.messageId);
  const entry = (await entryOf())!;

  await outbox.releaseLease(first);
  const taken = await outbox.holdLease(second, 60_000);
  t.is(taken?.epoch, (held?.epoch as bigint) + 1n);
  await outbox.published([entry], held as Lease);
  t.truthy(await entryOf(), 'the former holder takes nothing out');
  await outbox.releaseLease(second);
  t.is((await outbox.holdLease(first, 60_000))?.epoch, (held?.epoch as bigint) + 2n);
  await outbox.published([entry], held as Lease);
  t.truthy(await entryOf(), 'nor does it for what it published in an earlier epoch');
  await outbox.releaseLease(first);
  const again = await outbox.holdLease(second, 60_000);
  await outbox.published([entry], again as Lease);
  t.is(await entryOf(), undefined);
  await outbox.releaseLease(first);
  t.is(await outbox.holdLease(first, 60_000), undefined, 'only its holder lets go of it');
  await outbox.releaseLease(second);
});

test('applyReports: ledger, history and status follow, and a repetition changes nothing', async (t) => {
  const message = newMessage();
  await store.append(message);
  const { messageId } = message;
  const reports = new Map([
    [messageId, [{ kind: 'routed', at: new Date(), replay: 0 } as const, ended(bia), ended(caio, 'blocked')]],
  ]);
  t.deepEqual(await store.applyReports(reports), {
    unknown: [],
    ended: [{ status: 'failed', acceptedAt: message.createdAt, replay: 0 }],
  });
  const after = await store.find(messageId);
  t.is(after?.status, 'failed');
  t.deepEqual(
    after?.history.map(({ status, note }) => [status, note]),
    [
      ['accepted', ''],
      ['in_transit', ''],
      ['failed', '1 of 2 deliveries failed: blocked'],
    ],
  );
  t.deepEqual(
    after?.deliveries.map(({ status, attempts, error }) => [status, attempts, error]),
    [
      ['delivered', 1, ''],
      ['failed', 1, 'blocked'],
    ],
  );
  await store.applyReports(reports);
  t.deepEqual(await store.find(messageId), after);
});

test('applyReports: what is known of the last attempt and the next one is kept while a delivery is open', async (t) => {
  const message = newMessage();
  await store.append(message);
  const { messageId } = message;
  const nextAttemptAt = new Date(Date.now() + 5_000);
  const attempted = {
    kind: 'attempted',
    at: new Date(),
    replay: 0,
    recipientId: bia,
    channel: 'whatsapp',
    attempts: 4,
    error: 'away',
    nextAttemptAt,
  } as const;
  await store.applyReports(new Map([[messageId, [attempted]]]));
  const [open, other] = (await store.find(messageId))!.deliveries;
  t.like(open, { status: 'accepted', attempts: 4, error: 'away', nextAttemptAt });
  t.like(other, { attempts: 0, error: '', nextAttemptAt: null });
  await store.applyReports(new Map([[messageId, [ended(bia), ended(caio)]]]));
  const after = await store.find(messageId);
  t.is(after?.status, 'delivered');
  t.like(after?.deliveries[0], { status: 'delivered', attempts: 4, error: '', nextAttemptAt: null });
});

test('applyReports: batches that share messages, at once and in other orders, neither block nor lose anything', async (t) => {
  const messages = Array.from({ length: 40 }, () => newMessage());
  await Promise.all(messages.map((message) => store.append(message)));
  const half = (recipient: string, order: typeof messages) =>
    store.applyReports(new Map(order.map(({ messageId }) => [messageId, [ended(recipient)]])));
  await Promise.all([half(bia, messages), half(caio, messages.toReversed()), half(bia, messages.toReversed())]);
  const statuses = await Promise.all(messages.map(async ({ messageId }) => (await store.find(messageId))?.status));
  t.deepEqual(new Set(statuses), new Set(['delivered']));
});

test('applyReports: what was never accepted is returned', async (t) => {
  const unknown = randomUUID();
  t.deepEqual(await store.applyReports(new Map([[unknown, [ended(bia)]]])), { unknown: [unknown], ended: [] });
});

test('expire: what is still open at its end fails with the reason, whatever was delivered stays', async (t) => {
  const late = newMessage({ expiresIn: 1_000 });
  const unrouted = newMessage({ expiresIn: 1_000 });
  const inTime = newMessage();
  await Promise.all([late, unrouted, inTime].map((message) => store.append(message)));
  await store.applyReports(new Map([[late.messageId, [ended(bia)]]]));
  t.is(await store.expire(new Date(late.expiresAt.getTime() - 1), 'too early', 500), 0);
  const now = unrouted.expiresAt;
  t.is(await store.expire(now, 'too late', 500), 2);
  t.is(await store.expire(now, 'too late', 500), 0);
  const never = await store.find(unrouted.messageId);
  t.deepEqual(
    never?.history.map(({ status, note }) => [status, note]),
    [
      ['accepted', ''],
      ['failed', '2 of 2 deliveries failed: too late'],
    ],
  );
  const after = await store.find(late.messageId);
  t.is(after?.status, 'failed');
  t.deepEqual(
    after?.deliveries.map(({ status, error }) => [status, error]),
    [
      ['delivered', ''],
      ['failed', 'too late'],
    ],
  );
  t.is((await store.find(inTime.messageId))?.status, 'accepted');
});
