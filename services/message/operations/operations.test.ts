import { randomUUID } from 'node:crypto';
import test from 'ava';
import { DeliveryEnded, MessageAccepted, MessageRouted } from '#gen/chat4all/message/v1/events.ts';
import { MessageStatus } from '#gen/chat4all/message/v1/message.ts';
import { DeliveryRequested } from '#gen/chat4all/router/v1/events.ts';
import type { ReceivedEvent } from '#lib/bus/bus.ts';
import { openDatabase } from '#lib/database.ts';
import { HubError } from '#lib/errors.ts';
import { openHarness } from '../../../test/harness.ts';
import { opened } from '../../../test/opened.ts';
import { balances, openAudit } from './audit.ts';
import { openDeadLetters, type DeadLetterWithValue, type Replaying } from './dead-letters-store.ts';
import { deadLetterOf } from './dead-letters.ts';
import { fingerprintOf, timesOf, type Draft, type Report } from '../message.ts';
import { openOutbox } from '../outbox/store.ts';
import type { NewMessage } from '../messages/acceptance-store.ts';
import { openStore } from '../messages/store.ts';
import { database as definition } from '../database.ts';

const harness = opened(openHarness, (harness) => harness.stop());
const database = opened(
  () => openDatabase(definition, { url: harness.databaseUrl('message'), poolSize: 10, name: 'test' }),
  (database) => database.close(),
);
const store = openStore(database);
const outbox = openOutbox(database);
const letters = openDeadLetters(database);
const audit = openAudit(database);

const [ana, bia, caio] = [randomUUID(), randomUUID(), randomUUID()];
/** Of one message over two channels to two people each. */
const channels = ['instagram', 'whatsapp'];

async function append(changes: Partial<NewMessage> = {}): Promise<NewMessage> {
  const draft: Draft = {
    messageId: randomUUID(),
    conversationId: randomUUID(),
    senderId: ana,
    to: [],
    channels,
    content: { type: 'text', text: 'Olá', fileId: '' },
    priority: 'normal',
  };
  const createdAt = changes.createdAt ?? new Date();
  const message = {
    ...draft,
    channels,
    senderUsername: 'ana',
    recipientIds: [bia, caio],
    fingerprint: fingerprintOf(draft),
    createdAt,
    ...timesOf(createdAt, 30_000),
    requestId: 'request-1',
    ...changes,
  };
  await store.append(message);
  return message;
}

function ended(recipientId: string, channel: string, error = '', replay = 0): Report {
  const delivered = error === '';
  return { kind: 'ended', at: new Date(), replay, recipientId, channel, delivered, attempts: 1, error };
}

const report = ({ messageId }: NewMessage, ...reports: Report[]) => store.applyReports(new Map([[messageId, reports]]));

/** Every delivery has ended: those named have failed, the others were made. */
function endAll(message: NewMessage, failed: readonly (readonly [string, string])[] = []) {
  const all = [bia, caio].flatMap((recipient) => channels.map((channel) => [recipient, channel] as const));
  const error = (recipient: string, channel: string) =>
    failed.some(([who, over]) => who === recipient && over === channel) ? 'broken' : '';
  return report(message, ...all.map(([who, over]) => ended(who, over, error(who, over))));
}

/** A dead letter as the bus brings it. */
function buried(changes: Partial<ReceivedEvent> & { of?: string } = {}): ReceivedEvent {
  const { of: topic = 'whatsapp_outgoing', ...given } = changes;
  return {
    id: randomUUID(),
    type: 'nothing.known',
    key: randomUUID(),
    value: Buffer.from('?'),
    requestId: 'request-1',
    topic: `${topic}.dead_letters`,
    partition: 3,
    deadLetter: { topic, partition: 5, group: 'some', reason: 'broken', attempts: 5, failedAt: Date.now() },
    ...given,
  };
}

function requested({ messageId }: { messageId: string }, recipientId: string, channel: string): ReceivedEvent {
  const request = { ...DeliveryRequested.decode(Buffer.alloc(0)), messageId, recipientId, channel };
  return buried({
    of: `${channel}_outgoing`,
    type: 'chat4all.router.v1.DeliveryRequested',
    value: DeliveryRequested.encode(request).finish(),
  });
}

async function bury(...events: ReceivedEvent[]): Promise<string[]> {
  const found = events.map(deadLetterOf);
  await letters.record(found);
  return found.map(({ id }) => id);
}

function replaying(published: DeadLetterWithValue[] = []): Replaying {
  return {
    by: 'root',
    requestId: 'request-2',
    limit: 100,
    timesOf: (at) => timesOf(at, 30_000),
    publish: async (some) => void published.push(...some),
    signal: new AbortController().signal,
  };
}

const statusOf = async ({ messageId }: NewMessage) => (await store.find(messageId))?.status;

test('record: a dead letter that comes twice is kept once, whatever is in it', async (t) => {
  const event = buried({ key: 'a\0b', type: '\0', requestId: '\0', id: '' });
  const [id] = await bury(event);
  await bury(event, { ...event, topic: event.topic, partition: 4 });
  t.like(await letters.find(id!), {
    topic: 'whatsapp_outgoing',
    partition: 5,
    group: 'some',
    reason: 'broken',
    attempts: 5,
    key: 'ab',
    channel: 'whatsapp',
    messageId: null,
    replayedAt: null,
  });
  const { deadLetter: _, ...unexplained } = buried({ of: 'message_status' });
  t.like(await letters.find((await bury(unexplained))[0]!), { topic: 'message_status', partition: 3, reason: '' });
});

test('deadLetterOf: says what an event is about, as far as it can be read', (t) => {
  const messageId = randomUUID();
  t.like(deadLetterOf(requested({ messageId }, bia, 'whatsapp')), { messageId, recipientId: bia, channel: 'whatsapp' });
  const accepted = { of: 'message_processing', type: 'chat4all.message.v1.MessageAccepted' };
  const value = MessageAccepted.encode({ ...MessageAccepted.decode(Buffer.alloc(0)), messageId, replay: 2 }).finish();
  t.like(deadLetterOf(buried({ ...accepted, value })), { messageId, recipientId: null, channel: null });
  t.like(deadLetterOf(buried({ ...accepted, id: messageId, value: Buffer.from([255]) })), { messageId });
  t.like(deadLetterOf(requested({ messageId: 'x' }, 'y', 'sms')), {
    messageId: null,
    recipientId: null,
    channel: 'sms',
  });
});

test('replay: only what failed, and what the dead letter is about, begins anew, in one round', async (t) => {
  const message = await append();
  await endAll(message, [[bia, 'whatsapp'], [caio, 'whatsapp'], [bia, 'instagram']]); // prettier-ignore
  const ids = await bury(requested(message, bia, 'whatsapp'), requested(message, bia, 'whatsapp'));
  const done = await letters.replay({ messageId: message.messageId, state: 'waiting' }, replaying());
  t.deepEqual(done, { replayed: 2, settled: 0, open: 0, messages: 1 });

  const found = await store.find(message.messageId);
  t.like(found, { status: 'accepted', replay: 1 });
  t.true(found!.deliverBy > message.deliverBy);
  t.like(found!.history.at(-1), { status: 'accepted', note: 'replayed by root' });
  const isOpen = (status: string) => status === 'accepted';
  t.deepEqual(
    found!.deliveries.filter(({ status }) => isOpen(status)).map(({ recipientId, channel }) => [recipientId, channel]),
    [[bia, 'whatsapp']],
  );
  const { entries } = await outbox.unpublished(100_000);
  const { event } = entries.findLast(({ event, kind }) => kind === 'accepted' && event.key === message.conversationId)!;
  const ofIt = entries.filter((entry) => entry.event.key === message.conversationId);
  t.deepEqual(
    ofIt.map(({ kind }) => kind),
    ['accepted', ...ofIt.slice(2).map(() => 'change'), 'accepted'],
    'a round is told behind all that became of the one before',
  );
  t.true(ofIt.length > 2);
  t.not(event.id, message.messageId, 'each round is an event of its own');
  t.like(MessageAccepted.decode(event.value), {
    messageId: message.messageId,
    seq: 1n,
    only: [{ recipientId: bia, channel: 'whatsapp' }],
    replay: 1,
    deliverBy: found!.deliverBy,
  });
  t.like(await letters.find(ids[0]!), { replayedBy: 'root' });

  await report(message, ended(bia, 'whatsapp', 'of the first round', 0));
  t.is(await statusOf(message), 'accepted');
  await report(message, ended(bia, 'whatsapp', '', 1));
  t.is(await statusOf(message), 'failed', 'the other two deliveries still have');
  t.deepEqual(await letters.replay({ ids }, replaying()), { replayed: 0, settled: 2, open: 0, messages: 0 });
});

test('replay: of an open message nothing is replayed but reports, which are published again', async (t) => {
  const message = await append();
  const { messageId } = message;
  const asEnded = {
    ...DeliveryEnded.decode(Buffer.alloc(0)),
    messageId,
    recipientId: bia,
    channel: 'whatsapp',
    status: MessageStatus.MESSAGE_STATUS_DELIVERED,
  };
  const event = buried({
    of: 'message_status',
    type: 'chat4all.message.v1.DeliveryEnded',
    value: DeliveryEnded.encode(asEnded).finish(),
  });
  await bury(event, requested(message, caio, 'whatsapp'));
  const published: DeadLetterWithValue[] = [];
  const done = await letters.replay({ messageId, state: 'waiting' }, replaying(published));
  t.deepEqual(done, { replayed: 1, settled: 0, open: 1, messages: 0 });
  t.like(published, [{ topic: 'message_status', eventId: event.id, value: Buffer.from(event.value) }]);
  t.like(await store.find(messageId), { status: 'accepted', replay: 0 });
  t.is(await letters.count({ messageId, state: 'waiting' }), 1);
});

test('replay: what was delivered meanwhile is settled and not sent again', async (t) => {
  const message = await append();
  await endAll(message);
  await bury(requested(message, bia, 'whatsapp'));
  const selection = { messageId: message.messageId, state: 'waiting' } as const;
  t.deepEqual(await letters.replay(selection, replaying()), { replayed: 0, settled: 1, open: 0, messages: 0 });
  t.is(await statusOf(message), 'delivered');
  t.deepEqual(await letters.replay(selection, replaying()), { replayed: 0, settled: 0, open: 0, messages: 0 });
});

test('replay: of an ended message a report that it was routed has nothing left to do', async (t) => {
  const message = await append();
  const { messageId } = message;
  await endAll(message, [[bia, 'whatsapp']]);
  const value = MessageRouted.encode({ messageId, at: new Date(), replay: 0 }).finish();
  await bury(buried({ of: 'message_status', type: 'chat4all.message.v1.MessageRouted', value }));
  const done = await letters.replay({ messageId, state: 'waiting' }, replaying());
  t.deepEqual(done, { replayed: 0, settled: 1, open: 0, messages: 0 });
  t.like(await store.find(messageId), { status: 'failed', replay: 0 });
});

test('replay: two at once begin one round, and publish what belongs to no message once', async (t) => {
  const messages = await Promise.all(Array.from({ length: 8 }, () => append()));
  const channel = `net${randomUUID().slice(0, 8)}`;
  for (const message of messages) await endAll(message, [[bia, 'whatsapp']]);
  const about = (message: NewMessage): ReceivedEvent => ({ ...requested(message, bia, 'whatsapp') });
  const ids = await bury(...messages.map(about));
  await bury(...Array.from({ length: 30 }, () => buried({ of: `${channel}_outgoing` })));
  const published: DeadLetterWithValue[] = [];
  const twice = (selection: object) =>
    Promise.all([1, 2, 3].map(() => letters.replay({ ...selection, state: 'waiting' }, replaying(published))));
  const sum = (all: { replayed: number }[]) => all.reduce((total, { replayed }) => total + replayed, 0);
  t.is(sum(await twice({ ids })), messages.length);
  for (const message of messages) t.like(await store.find(message.messageId), { replay: 1 });
  t.is(sum(await twice({ channel })), 30);
  t.is(published.length, 30);
});

test('replay: while the bus is away nothing counts as replayed', async (t) => {
  const [id] = await bury(buried());
  const away = new HubError('UNAVAILABLE', 'BUS_UNAVAILABLE', 'away');
  const publish = () => Promise.reject(away);
  await t.throwsAsync(letters.replay({ ids: [id!] }, { ...replaying(), publish }), { is: away });
  t.is(await letters.count({ ids: [id!], state: 'waiting' }), 1);
});

test('replay: at most as many as were asked for, the oldest first, and nothing once nobody waits', async (t) => {
  const topic = `t${randomUUID()}`;
  const at = (failedAt: number) =>
    buried({ of: topic, deadLetter: { ...buried({ of: topic }).deadLetter!, failedAt } });
  const now = Date.now();
  const ids = await bury(...[now, now - 2_000, now - 1_000].map(at));
  const selection = { topic, state: 'waiting' } as const;
  t.like(await letters.replay(selection, { ...replaying(), signal: AbortSignal.abort() }), { replayed: 0 });
  t.like(await letters.replay(selection, { ...replaying(), limit: 2 }), { replayed: 2 });
  const { letters: left, total } = await letters.list(selection, { limit: 10, offset: 0 });
  t.deepEqual([left.map(({ id }) => id), total], [[ids[0]!], 1]);
  const page = await letters.list({ topic }, { limit: 1, offset: 1 });
  t.like(page, { total: 3, letters: [{ id: ids[2]! }] });
  t.is(await letters.count({ topic, from: new Date(now - 2_000), to: new Date(now) }), 2);
});

test('forget: what was given up and last replayed long ago goes, and nothing else', async (t) => {
  const old = { ...buried().deadLetter!, failedAt: Date.parse('2020-01-01') };
  const [gone, replayed, kept] = await bury(buried({ deadLetter: old }), buried({ deadLetter: old }), buried());
  await letters.replay({ ids: [replayed!] }, replaying());
  t.is(await letters.forget(new Date('2021-01-01'), 100), 1);
  t.is(await letters.find(gone!), undefined);
  t.truthy(await letters.find(replayed!));
  t.truthy(await letters.find(kept!));
});

/** A period of its own for a test, so that it sees its own messages only. */
function period(year: number) {
  const from = new Date(Date.UTC(year, 0, 1));
  const inside = (second: number) => new Date(from.getTime() + second * 1_000);
  const books = async () => (await audit.books(from, inside(3_600))).books;
  const sent = (second: number, changes: Partial<NewMessage> = {}) =>
    append({ createdAt: inside(second), expiresAt: new Date(Date.now() + 60_000), ...changes });
  return { from, inside, books, sent };
}

test('audit: accepted is delivered and failed and in flight, message by message and delivery by delivery', async (t) => {
  const { inside, books, sent } = period(2001);
  const conversationId = randomUUID();
  const [first, second, third] = [
    await sent(1, { conversationId }),
    await sent(2, { conversationId }),
    await sent(3, { conversationId }),
  ];
  await endAll(first);
  await endAll(second, [[bia, 'whatsapp']]);
  await report(third, ended(bia, 'whatsapp'));
  await sent(3_600);
  const found = await books();
  t.like(found, {
    messages: { accepted: 3n, delivered: 1n, failed: 1n, inFlight: 1n },
    deliveries: { accepted: 12n, delivered: 8n, failed: 1n, inFlight: 3n },
    mismatched: [],
    mismatchedTotal: 0n,
    overdue: 0n,
    gaps: [],
    gapsTotal: 0n,
  });
  t.deepEqual(found.oldestInFlight, { messageId: third.messageId, acceptedAt: inside(3) });
  t.true(found.outboxEvents > 0n);
  t.true(balances(found));

  await bury(requested(second, bia, 'whatsapp'));
  await letters.replay({ messageId: second.messageId }, replaying());
  const replayed = await books();
  t.like(replayed.messages, { failed: 0n, inFlight: 2n });
  t.true(balances(replayed), 'a replay is in flight');
});

test('audit: a position without a message is a gap, at the beginning, inside and at the end', async (t) => {
  const { books, sent } = period(2002);
  const lost = async (seq: number): Promise<string> => {
    const conversationId = randomUUID();
    for (const second of [1, 2, 3, 4]) await endAll(await sent(second, { conversationId }));
    await database.sql('delete from messages where conversation_id = $1 and seq = $2', [conversationId, seq]);
    return conversationId;
  };
  const whole = randomUUID();
  await endAll(await sent(1, { conversationId: whole }));
  const gaps = [await lost(1), await lost(2), await lost(4)];
  const found = await books();
  t.is(found.gapsTotal, 3n);
  t.deepEqual(
    found.gaps.toSorted((a, b) => gaps.indexOf(a.conversationId) - gaps.indexOf(b.conversationId)),
    [
      { conversationId: gaps[0]!, fromSeq: 1n, toSeq: 4n, missing: 1n },
      { conversationId: gaps[1]!, fromSeq: 1n, toSeq: 4n, missing: 1n },
      { conversationId: gaps[2]!, fromSeq: 1n, toSeq: 4n, missing: 1n },
    ],
  );
  t.false(balances(found));
});

test('audit: a message whose deliveries or history tell something else is named', async (t) => {
  const { books, sent } = period(2003);
  const message = async (second: number): Promise<string> => {
    const some = await sent(second);
    await endAll(some);
    return some.messageId;
  };
  const [fewer, other, untold, good] = [await message(1), await message(2), await message(3), await message(4)];
  await database.sql('delete from deliveries where message_id = $1 and recipient_id = $2', [fewer, bia]);
  await database.sql(`update deliveries set status = 'failed' where message_id = $1`, [other]);
  await database.sql('update messages set history = history - (-1) where message_id = $1', [untold]);
  const found = await books();
  t.deepEqual(found.mismatched, [fewer, other, untold]);
  t.is(found.mismatchedTotal, 3n);
  t.false(found.mismatched.includes(good));
  t.false(balances(found));
});

test('audit: a long period is gone through in parts, whose books add up to its own', async (t) => {
  const { from, inside, books, sent } = period(2005);
  const conversations = [randomUUID(), randomUUID(), randomUUID()];
  for (let second = 0; second < 30; second += 1) {
    // Some have one and the same time: they are in one part.
    const message = await sent(second - (second % 4), { conversationId: conversations[second % 3]! });
    if (second % 5 !== 0) await endAll(message, second % 7 === 0 ? [[bia, 'whatsapp']] : []);
    if (second === 8) await database.sql('delete from deliveries where message_id = $1', [message.messageId]);
    if ([12, 13, 15, 29].includes(second)) {
      await database.sql('delete from messages where message_id = $1', [message.messageId]);
    }
  }
  const whole = await books();
  t.like(whole, { messages: { accepted: 26n }, mismatchedTotal: 1n, gapsTotal: 3n });
  t.is(
    whole.gaps.reduce((sum, { missing }) => sum + missing, 0n),
    4n,
  );
  t.false(balances(whole));
  const inParts = await openAudit(database, { atOnce: 3 }).books(from, inside(3_600));
  t.deepEqual(inParts.to, inside(3_600));
  const missing = inParts.books.gaps.reduce((sum, gap) => sum + gap.missing, 0n);
  t.is(missing, 4n);
  const waiting = { outboxEvents: 0n, oldestOutboxEvent: undefined, gaps: [], gapsTotal: 0n };
  t.deepEqual({ ...inParts.books, ...waiting }, { ...whole, ...waiting });

  // As much as there is time for in one call, and from there on in the next.
  const hasty = openAudit(database, { atOnce: 3, limitMs: 0 });
  let calls = 0;
  let accepted = 0n;
  for (let next = from; next < inside(3_600); calls += 1) {
    const { books: part, to } = await hasty.books(next, inside(3_600));
    accepted += part.messages.accepted;
    next = to;
  }
  t.is(accepted, 26n);
  t.true(calls > 4);
});

test('remove: what was accepted before a moment and has ended goes with all that was written of it, and leaves no gap', async (t) => {
  const { from, inside, books, sent } = period(1990);
  const conversationId = randomUUID();
  const messages: NewMessage[] = [];
  for (let second = 1; second <= 6; second += 1) messages.push(await sent(second, { conversationId }));
  const open = messages[1]!;
  for (const message of messages) if (message !== open) await endAll(message);
  t.is(await store.remove(inside(5), 2), 2, 'some at a time');
  t.is(await store.remove(inside(5), 100), 1);
  t.is(await store.remove(inside(5), 100), 0, 'what is open stays, and what is younger');
  const left = await Promise.all(messages.map(async (message) => (await statusOf(message)) !== undefined));
  t.deepEqual(left, [false, true, false, false, true, true]);
  t.deepEqual(await store.positions(conversationId), { firstSeq: 5, lastSeq: 6 });
  const gone = messages.filter((_, index) => !left[index]).map(({ messageId }) => messageId);
  for (const table of ['deliveries', 'status_changes', 'outbox']) {
    const [row] = await database.sql<{ rows: bigint }>(
      `select count(*) as rows from ${table} where message_id = any($1)`,
      [gone],
    );
    t.is(row!.rows, 0n, table);
  }
  const found = await books();
  t.like(found, { messages: { accepted: 3n, delivered: 2n, inFlight: 1n }, gapsTotal: 0n });
  t.true(balances(found));
  t.deepEqual(found.removedBefore, inside(5));
  t.true(from < found.removedBefore!);

  await endAll(open);
  t.is(await store.remove(inside(5), 100), 1);
  t.deepEqual(await store.positions(conversationId), { firstSeq: 5, lastSeq: 6 });
});

test('audit: what should have ended and has not is overdue', async (t) => {
  const { books, sent } = period(2004);
  await sent(1, { expiresAt: new Date(Date.now() - 5_000) });
  const found = await books();
  t.is(found.overdue, 1n);
  t.false(balances(found));
});
