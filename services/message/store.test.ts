import { randomUUID } from 'node:crypto';
import test from 'ava';
import { openDatabase } from '#lib/database.ts';
import { openHarness } from '../../test/harness.ts';
import { opened } from '../../test/opened.ts';
import { fingerprintOf, timesOf, type Draft, type Report } from './message.ts';
import { openOutbox, type Lease } from './outbox.ts';
import { database as definition, openStore, type NewMessage } from './store.ts';

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
  t.is(await store.lastSeq(conversationId), 100);
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
  t.is(await store.lastSeq(message.conversationId), 1);
  await store.append(newMessage({ conversationId: message.conversationId }));
  t.is(await store.lastSeq(message.conversationId), 2);
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
  const heads = await Promise.all([store.lastSeq(message.conversationId), store.lastSeq(other.conversationId)]);
  t.deepEqual(heads.toSorted(), [0, 1], 'the refused one took no position');
});

test('outbox: the order of each conversation is the order of its positions', async (t) => {
  const conversations = [randomUUID(), randomUUID(), randomUUID()];
  const messages = Array.from({ length: 90 }, (_, index) =>
    newMessage({ conversationId: conversations[index % conversations.length] as string }),
  );
  await Promise.all(messages.map((message) => store.append(message)));
  const entries = await outbox.unpublished(100_000);
  for (const conversationId of conversations) {
    t.deepEqual(
      entries.filter(({ message }) => message.conversationId === conversationId).map(({ message }) => message.seq),
      Array.from({ length: 30 }, (_, index) => index + 1),
    );
  }
  t.is(entries.at(-1)?.requestId, 'request-1');
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
    (await outbox.unpublished(100_000)).find((entry) => entry.message.messageId === message.messageId);
  const id = (await entryOf())?.id as bigint;

  await outbox.releaseLease(first);
  const taken = await outbox.holdLease(second, 60_000);
  t.is(taken?.epoch, (held?.epoch as bigint) + 1n);
  await outbox.published([id], held as Lease);
  t.truthy(await entryOf(), 'the former holder takes nothing out');
  await outbox.releaseLease(second);
  t.is((await outbox.holdLease(first, 60_000))?.epoch, (held?.epoch as bigint) + 2n);
  await outbox.published([id], held as Lease);
  t.truthy(await entryOf(), 'nor does it for what it published in an earlier epoch');
  await outbox.releaseLease(first);
  const again = await outbox.holdLease(second, 60_000);
  await outbox.published([id], again as Lease);
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
  t.deepEqual(await store.applyReports(reports), { unknown: [], ended: ['failed'] });
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
