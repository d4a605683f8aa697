import test, { type ExecutionContext } from 'ava';
import type { Rule } from './breach.ts';
import { check } from './checker.ts';
import type { SentMessage } from './journal.ts';
import type { Observations, ReadMessage, TopicRecord } from './observations.ts';

const [ana, bruno, carla] = ['ana', 'bruno', 'carla'] as const;
const conversationId = 'conversation';
const uploadLifetime = 60_000;

/** A small hub in which all is well: three messages in a group, the last one a file; one was refused, one abandoned. */
function observations(): Observations {
  const content = (text: string): SentMessage['content'] =>
    text === 'file' ? { fileId: 'holiday' } : { text: `says ${text}` };
  const sent = (messageId: string, changes: Partial<SentMessage> = {}): SentMessage => ({
    messageId,
    conversationId,
    senderId: ana,
    recipientIds: [bruno, carla],
    channels: ['whatsapp'],
    content: content(messageId),
    lane: 0,
    told: 'accepted',
    firstTried: 1,
    toldAt: 2,
    tries: [],
    ...changes,
  });
  const journal = {
    messages: [
      sent('one'),
      sent('two'),
      sent('file'),
      sent('refused', { told: 'refused', lane: -1 }),
      sent('abandoned', { told: 'nothing' }),
    ],
    files: [{ fileId: 'holiday', ownerId: ana, size: 3, checksum: 'abc', told: 'completed', again: 0 }],
  };
  const kept = ['one', 'two', 'file'];
  const pairs = kept.flatMap((messageId) =>
    [bruno, carla].map((recipientId) => ({ messageId, recipientId, channel: 'whatsapp' })),
  );
  const record = (topic: string, messageId: string, changes: Partial<TopicRecord> = {}): TopicRecord => ({
    topic,
    partition: 0,
    offset: 0,
    key: conversationId,
    type: '',
    messageId,
    recipientId: '',
    channel: '',
    requestId: '',
    at: 0,
    ...changes,
  });
  const read = (messageId: string): ReadMessage => ({
    message_id: messageId,
    conversation_id: conversationId,
    seq: kept.indexOf(messageId) + 1,
    from: ana,
    to: [bruno, carla],
    channels: ['whatsapp'],
    payload: messageId === 'file' ? { type: 'file', file_id: 'holiday' } : { type: 'text', text: `says ${messageId}` },
    status: 'delivered',
    history: ['accepted', 'in_transit', 'delivered'].map((status) => ({ status, at: '', note: '' })),
    deliveries: [bruno, carla].map((recipient) => ({
      recipient,
      channel: 'whatsapp',
      status: 'delivered',
      attempts: 1,
    })),
  });
  return {
    journal,
    read: new Map(kept.map((messageId) => [messageId, read(messageId)])),
    listed: new Map([
      [conversationId, kept.map((message_id, index) => ({ message_id, seq: index + 1, status: 'delivered' }))],
    ]),
    ledger: {
      messages: kept.map((messageId, index) => ({
        messageId,
        conversationId,
        seq: index + 1,
        status: 'delivered',
        createdAt: 1,
        endedAt: 2,
      })),
      deliveries: pairs.map((pair) => ({ ...pair, status: 'delivered', error: '' })),
      heads: [{ conversationId, lastSeq: 3 }],
      routes: [...kept],
      attempts: pairs.map((pair) => ({ ...pair, delivered: true })),
      outbox: 0,
      strays: { 'message.deliveries': 0 },
    },
    effects: pairs.map((pair) => ({ ...pair, key: Object.values(pair).join('/'), requests: 1 })),
    audit: {
      balanced: true,
      messages: { accepted: 3, delivered: 3, failed: 0, in_flight: 0 },
      deliveries: { accepted: 6, delivered: 6, failed: 0, in_flight: 0 },
      mismatched_total: 0,
      overdue: 0,
      gaps_total: 0,
      outbox_events: 0,
      dead_letters_waiting: 0,
      lag: [{ topic: 'message_status', group: 'message', events: 0 }],
      lag_known: true,
    },
    records: [
      ...kept.map((messageId) => record('message_processing', messageId)),
      ...pairs.map((pair) => record('whatsapp_outgoing', pair.messageId, pair)),
      ...pairs.map((pair) => record('message_status', pair.messageId, pair)),
      ...kept.map((messageId) => record('message_changes', messageId)),
    ],
    leftOnBus: undefined,
    files: {
      rows: [
        { fileId: 'holiday', status: 'completed', storageKey: 'holiday', idle: 1_000_000 },
        { fileId: 'begun', status: 'initiated', storageKey: null, idle: 1_000 },
      ],
      removals: [],
      laterRemovals: [],
      unusedContents: [],
      objects: ['holiday'],
      unfinished: { count: 1, keys: undefined },
    },
    downloads: new Map([['holiday', 'abc']]),
  };
}

/** What is said of observations in which something was changed. */
function broken(change: (found: Observations) => void): Rule[] {
  const found = observations();
  change(found);
  return [...new Set(check(found, { uploadLifetime }).map(({ rule }) => rule))].toSorted();
}

function breaks(t: ExecutionContext, rules: Rule[], change: (found: Observations) => void): void {
  t.deepEqual(broken(change), rules.toSorted());
}

test('check: where all is well there is nothing to say', (t) => {
  breaks(t, [], () => {});
});

test('check: a message that was accepted is there, in the ledger and over REST', (t) => {
  breaks(t, ['lost'], ({ read }) => read.delete('two'));
  breaks(t, ['lost'], ({ listed }) => listed.get(conversationId)!.pop());
  const found = observations();
  found.ledger.messages.splice(1, 1);
  const said = check(found, { uploadLifetime });
  t.true(said.some(({ rule, messageId }) => rule === 'lost' && messageId === 'two'));
  t.true(said.some(({ rule }) => rule === 'gap'));
});

test('check: what was refused, or never sent, is nowhere; what was abandoned may be', (t) => {
  breaks(t, ['forged'], ({ journal }) => (journal.messages[1]!.told = 'refused'));
  breaks(t, ['forged'], ({ journal }) => journal.messages.splice(1, 1));
  breaks(t, ['forged'], ({ effects }) => effects.push({ ...effects[0]!, messageId: 'refused', key: 'another' }));
  breaks(t, ['forged'], ({ records }) => records!.push({ ...records![0]!, messageId: 'refused' }));
  breaks(t, [], ({ journal }) => (journal.messages[1]!.told = 'nothing'));
  // A call with an id that another message has.
  breaks(t, [], ({ journal }) => journal.messages.push({ ...journal.messages[0]!, told: 'refused', lane: -1 }));
});

test('check: what was sent is what is kept', (t) => {
  breaks(t, ['changed'], ({ read }) => (read.get('one')!.payload.text = 'something else'));
  breaks(t, ['changed'], ({ read }) => (read.get('file')!.payload.file_id = 'another'));
  breaks(t, ['changed'], ({ journal }) => (journal.messages[0]!.recipientIds = [bruno]));
});

test('check: everything has ended, and was delivered unless the network said a final no', (t) => {
  breaks(t, ['audit', 'books', 'not ended'], ({ ledger }) => (ledger.messages[0]!.status = 'in_transit'));
  breaks(t, ['audit', 'books', 'not ended'], ({ ledger }) => (ledger.deliveries[0]!.status = 'in_transit'));
  breaks(t, ['audit', 'books', 'failed'], ({ ledger }) => (ledger.deliveries[0]!.status = 'failed'));
  breaks(t, ['orphan'], ({ ledger }) => (ledger.attempts[0]!.delivered = null));
  const refused = observations();
  Object.assign(refused.ledger.deliveries[0]!, { status: 'failed', error: 'no such number' });
  Object.assign(refused.ledger.attempts[0]!, { delivered: false });
  refused.ledger.messages[0]!.status = 'failed';
  refused.effects.shift();
  Object.assign(refused.audit.messages, { delivered: 2, failed: 1 });
  Object.assign(refused.audit.deliveries, { delivered: 5, failed: 1 });
  const one = refused.read.get('one')!;
  one.status = one.deliveries[0]!.status = one.history[2]!.status = 'failed';
  t.deepEqual(check(refused, { uploadLifetime, mayFail: (error) => error === 'no such number' }), []);
  t.deepEqual(
    check(refused, { uploadLifetime }).map(({ rule, messageId }) => [rule, messageId]),
    [['failed', 'one']],
  );
});

test('check: the books of a message agree: deliveries, history, REST and ledger', (t) => {
  breaks(t, ['books'], ({ read }) => read.get('one')!.deliveries.pop());
  breaks(t, ['books'], ({ read }) => (read.get('one')!.status = 'in_transit'));
  breaks(t, ['books'], ({ read }) => read.get('one')!.history.push({ status: 'delivered', at: '', note: '' }));
  breaks(t, ['books'], ({ ledger }) => (ledger.attempts[0]!.delivered = false));
});

test('check: positions have no gap, and the head is the last of them', (t) => {
  breaks(t, ['gap', 'lost'], ({ ledger }) => (ledger.messages[2]!.seq = 4));
  breaks(t, ['gap'], ({ ledger }) => (ledger.heads[0]!.lastSeq = 4));
});

test('check: each delivery has one effect', (t) => {
  breaks(t, ['no effect'], ({ effects }) => effects.pop());
  breaks(t, ['doubled'], ({ effects }) => effects.unshift({ ...effects[0]!, key: 'another' }));
  breaks(t, [], ({ effects }) => (effects[0]!.requests = 2));
});

test('check: order is kept: of effects, of events, of what a client sent one after the other', (t) => {
  const swap = <Row>(rows: Row[], one: number, other: number) =>
    ([rows[one], rows[other]] = [rows[other]!, rows[one]!]);
  breaks(t, ['order'], ({ effects }) => swap(effects, 0, 2));
  // To different people: nobody sees it.
  breaks(t, [], ({ effects }) => swap(effects, 0, 1));
  breaks(t, ['order'], ({ records }) => swap(records!, 0, 1));
  breaks(t, ['order'], ({ records }) => swap(records!, 3, 5));
  breaks(t, ['order'], ({ journal }) => swap(journal.messages, 0, 1));
  // An event that comes again is no disorder.
  breaks(t, [], ({ records }) => records!.push(records![0]!));
});

test('check: the bus carried everything, under its key, and nothing was given up', (t) => {
  breaks(t, ['topics'], ({ records }) => records!.shift());
  breaks(t, ['topics'], ({ records }) => records!.splice(3, 1));
  breaks(t, ['topics'], ({ records }) => records!.pop());
  breaks(t, [], ({ records }) => records!.push({ ...records![0]!, topic: 'file_changes', messageId: 'a file' }));
  breaks(t, ['topics'], ({ records }) => (records![0]!.key = 'another'));
  breaks(t, ['dead letter'], ({ records }) =>
    records!.push({ ...records![0]!, topic: 'message_processing.dead_letters' }),
  );
  const onPostgres = (left: Record<string, number>) => (found: Observations) =>
    Object.assign(found, { records: undefined, leftOnBus: left });
  breaks(t, [], onPostgres({}));
  breaks(t, ['topics'], onPostgres({ 'message_processing/router': 1 }));
  breaks(t, ['dead letter'], onPostgres({ 'message_status.dead_letters': 1 }));
});

test('check: no row is left over', (t) => {
  breaks(t, ['orphan'], ({ ledger }) => (ledger.outbox = 1));
  breaks(t, ['orphan'], ({ ledger }) => (ledger.strays['message.deliveries'] = 1));
  breaks(t, ['orphan'], ({ ledger }) => ledger.routes.push('unknown'));
  breaks(t, ['orphan'], ({ ledger }) => ledger.routes.pop());
  breaks(t, ['orphan'], ({ ledger }) =>
    ledger.attempts.push({ messageId: 'unknown', recipientId: ana, channel: 'whatsapp', delivered: true }),
  );
});

test('check: files are whole, and the store has nothing else', (t) => {
  breaks(t, ['file lost'], ({ downloads }) => downloads.set('holiday', 'other bytes'));
  breaks(t, ['file lost'], ({ journal }) => (journal.files[0]!.told = '409 UPLOAD_FAILED'));
  breaks(t, ['file lost'], ({ files }) => files.objects.pop());
  breaks(t, ['orphan'], ({ files }) => files.objects.push('unknown'));
  breaks(t, ['orphan'], ({ files }) => files.unusedContents.push('unknown'));
  breaks(t, ['orphan'], ({ files }) => files.removals.push('unknown'));
  breaks(t, ['file lost'], ({ journal, files }) => {
    journal.files[0]!.again = 1;
    files.unfinished = { count: 0, keys: [] };
  });
  breaks(t, [], ({ journal }) => (journal.files[0]!.again = 1));
  breaks(t, ['orphan'], ({ files }) => (files.unfinished.count = 2));
  breaks(t, [], ({ files }) => {
    files.unfinished.count = 2;
    files.laterRemovals.push('late');
  });
  breaks(t, ['orphan'], ({ files }) => (files.unfinished.keys = ['unknown']));
  breaks(t, ['orphan'], ({ files }) => (files.rows[1]!.idle = uploadLifetime + 1));
  // One that is being completed has its object already.
  breaks(t, [], ({ files }) => files.objects.push('begun'));
});

test('check: no client is told of an internal error', (t) => {
  breaks(t, ['internal error'], ({ journal }) =>
    journal.messages[0]!.tries.push({ at: 1, milliseconds: 1, status: 500, code: 'INTERNAL', requestId: 'r' }),
  );
});

test('check: the hub counts as the checker does', (t) => {
  breaks(t, ['audit'], ({ audit }) => (audit.balanced = false));
  breaks(t, ['audit'], ({ audit }) => (audit.messages.delivered = 2));
  breaks(t, ['audit'], ({ audit }) => (audit.dead_letters_waiting = 1));
  breaks(t, ['audit'], ({ audit }) => (audit.lag[0]!.events = 1));
});
