import test from 'ava';
import {
  expandChannels,
  channelViolations,
  contentViolations,
  deliveriesOf,
  fingerprintOf,
  historyOf,
  pageOf,
  recipientsOf,
  settle,
  timesOf,
  type DeliveryState,
  type Draft,
  type MessageState,
  type Report,
  type Status,
} from './message.ts';

const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second));
const [ana, bia, caio, davi] = ['a', 'b', 'c', 'd'].map((letter) => `${letter}0000000-0000-4000-8000-000000000000`) as [
  string,
  string,
  string,
  string,
];

const draft: Draft = {
  messageId: '10000000-0000-4000-8000-000000000000',
  conversationId: '20000000-0000-4000-8000-000000000000',
  senderId: ana,
  to: [],
  channels: ['whatsapp'],
  content: { type: 'text', text: 'Oi', fileId: '' },
  priority: 'normal',
};

test('channels: `all` is every installed one, and a repeated one counts once', (t) => {
  const installed = ['instagram', 'whatsapp'];
  t.deepEqual(expandChannels(['whatsapp', 'WhatsApp'], installed), ['whatsapp']);
  t.deepEqual(expandChannels(['whatsapp', 'all'], installed), installed);
  t.deepEqual(channelViolations(['ALL', 'whatsapp', 'sms', 'fax'], installed), [
    { field: 'channels[2]', description: 'must be one of instagram, whatsapp, all' },
    { field: 'channels[3]', description: 'must be one of instagram, whatsapp, all' },
  ]);
});

test('content: the field that belongs to the type has to be there', (t) => {
  t.deepEqual(contentViolations({ type: 'text', text: '', fileId: 'x' }), [
    { field: 'payload.text', description: 'is required' },
  ]);
  t.deepEqual(contentViolations({ type: 'text', text: 'Oi', fileId: '' }), []);
  t.deepEqual(contentViolations({ type: 'file', text: 'Oi', fileId: '' }), [
    { field: 'payload.file_id', description: 'is required' },
  ]);
});

test('recipients: everyone else, or those named, once each', (t) => {
  const members = [ana, bia, caio];
  t.deepEqual(recipientsOf(draft, members), [bia, caio]);
  t.deepEqual(recipientsOf({ ...draft, to: [caio, caio] }, members), [caio]);
});

test('recipients: outsiders, as sender or recipient, are refused', (t) => {
  const refused = (work: () => unknown) => t.throws(work, { message: /^Access denied/ }) as { reason?: string };
  t.is(refused(() => recipientsOf({ ...draft, senderId: davi }, [ana, bia])).reason, 'NOT_A_MEMBER');
  t.is(refused(() => recipientsOf({ ...draft, to: [bia, davi] }, [ana, bia])).reason, 'NOT_A_MEMBER');
  t.like(
    t.throws(() => recipientsOf(draft, [ana])),
    { reason: 'NO_RECIPIENTS' },
  );
});

test('fingerprint: changes with each thing that makes a message another one, and with nothing else', (t) => {
  const same = (other: Partial<Draft>) => fingerprintOf({ ...draft, ...other }).equals(fingerprintOf(draft));
  t.true(same({}));
  t.true(same({ channels: ['WhatsApp', 'whatsapp'] }));
  t.true(
    fingerprintOf({ ...draft, to: [bia, caio] }).equals(fingerprintOf({ ...draft, to: [caio, bia, caio] })),
    'order and repetition in `to`',
  );
  t.false(same({ senderId: bia }));
  t.false(same({ conversationId: draft.messageId }));
  t.false(same({ to: [bia] }));
  t.false(same({ channels: ['instagram'] }));
  t.false(same({ channels: ['all'] }));
  t.false(same({ content: { type: 'text', text: 'Oi!', fileId: '' } }));
  t.false(same({ content: { type: 'file', text: '', fileId: bia } }));
  t.false(same({ priority: 'high' }));
});

test('times: no delivery begins so late that its report could come after the end, and the end keeps the promise', (t) => {
  for (const deadline of [1_000, 30_000, 86_400_000]) {
    const { deliverBy, expiresAt } = timesOf(at(0), deadline);
    t.true(deliverBy > at(0) && deliverBy < expiresAt);
    t.true(expiresAt.getTime() < at(0).getTime() + deadline);
  }
});

function message(...recipients: string[]): MessageState {
  return {
    status: 'accepted',
    updatedAt: at(0),
    replay: 0,
    deliveries: recipients.map((recipientId) => ({
      recipientId,
      channel: 'whatsapp',
      status: 'accepted',
      attempts: 0,
      error: '',
      updatedAt: at(0),
      nextAttemptAt: null,
    })),
  };
}

function ended(recipientId: string, second: number, error = ''): Report {
  return {
    kind: 'ended',
    at: at(second),
    replay: 0,
    recipientId,
    channel: 'whatsapp',
    delivered: error === '',
    attempts: 1,
    error,
  };
}

/** The message after the reports, to apply more to it. */
function after(state: MessageState, reports: Report[]): MessageState {
  const { deliveries, history } = settle(state, reports);
  const changed = (known: DeliveryState) =>
    deliveries.find(({ recipientId, channel }) => recipientId === known.recipientId && channel === known.channel);
  const last = history.at(-1);
  return {
    status: last?.status ?? state.status,
    updatedAt: last?.at ?? state.updatedAt,
    replay: state.replay,
    deliveries: state.deliveries.map((known) => changed(known) ?? known),
  };
}

test('settle: accepted, in transit, delivered once every delivery is', (t) => {
  const routed = settle(message(bia, caio), [{ kind: 'routed', at: at(1), replay: 0 }]);
  t.deepEqual(routed.history, [{ status: 'in_transit', at: at(1), note: '' }]);
  t.deepEqual(routed.deliveries, [], 'that is told of the message');

  const half = after(message(bia, caio), [{ kind: 'routed', at: at(1), replay: 0 }, ended(bia, 2)]);
  t.is(half.status, 'in_transit');
  t.deepEqual(settle(half, [ended(caio, 3)]).history, [{ status: 'delivered', at: at(3), note: '' }]);
});

test('settle: failed only when all have ended and one failed, with the reasons in the note', (t) => {
  const half = after(message(bia, caio), [ended(bia, 1, 'blocked')]);
  t.is(half.status, 'in_transit');
  t.deepEqual(settle(half, [ended(caio, 2)]).history, [
    { status: 'failed', at: at(2), note: '1 of 2 deliveries failed: blocked' },
  ]);
  t.deepEqual(settle(message(bia), [ended(bia, 1, 'blocked')]).history, [
    { status: 'in_transit', at: at(1), note: '' },
    { status: 'failed', at: at(1), note: 'blocked' },
  ]);
});

test('settle: what has ended stays so, whatever comes again or too late', (t) => {
  const over = after(message(bia), [ended(bia, 1)]);
  const nothing = { deliveries: [], history: [] };
  t.deepEqual(settle(over, [ended(bia, 2)]), nothing);
  t.deepEqual(settle(over, [ended(bia, 2, 'no')]), nothing);
  t.deepEqual(settle(over, [{ kind: 'routed', at: at(2), replay: 0 }]), nothing);
  t.deepEqual(settle(over, [{ kind: 'expired', at: at(2), reason: 'late' }]), nothing);

  const half = after(message(bia, caio), [ended(bia, 1)]);
  t.deepEqual(settle(half, [ended(bia, 2, 'no')]), nothing);
  t.deepEqual(settle(half, [ended(davi, 2)]), nothing, 'a delivery that was never asked for');
});

test('settle: a rejected or expired message fails what is open and keeps what was delivered', (t) => {
  t.deepEqual(settle(message(bia), [{ kind: 'rejected', at: at(1), reason: 'no route', replay: 0 }]).history, [
    { status: 'failed', at: at(1), note: 'no route' },
  ]);
  const half = after(message(bia, caio), [ended(bia, 1)]);
  const { deliveries, history } = settle(half, [{ kind: 'expired', at: at(9), reason: 'late' }]);
  t.like(deliveries, { length: 1, 0: { recipientId: caio, status: 'failed', error: 'late' } });
  t.is(history.at(-1)?.status, 'failed');
});

test('settle: an attempt that failed shows in its delivery, and never takes anything back', (t) => {
  const attempted = (attempts: number, error: string, replay = 0): Report => ({
    kind: 'attempted',
    at: at(attempts),
    replay,
    recipientId: bia,
    channel: 'whatsapp',
    attempts,
    error,
    nextAttemptAt: at(attempts + 1),
  });
  const tried = after(message(bia, caio), [attempted(3, 'away')]);
  t.is(tried.status, 'accepted');
  t.like(tried.deliveries[0], {
    status: 'accepted',
    attempts: 3,
    error: 'away',
    nextAttemptAt: at(4),
    updatedAt: at(3),
  });
  t.like(tried.deliveries[1], { attempts: 0, error: '', nextAttemptAt: null });
  const nothing = { deliveries: [], history: [] };
  t.deepEqual(settle(tried, [attempted(3, 'again'), attempted(2, 'earlier')]), nothing);
  t.deepEqual(settle({ ...tried, replay: 1 }, [attempted(4, 'of an earlier round')]), nothing);

  const over = after(tried, [ended(bia, 5)]);
  t.like(over.deliveries[0], { status: 'delivered', attempts: 3, error: '', nextAttemptAt: null });
  t.deepEqual(settle(over, [attempted(6, 'late')]), nothing);

  const expired = after(tried, [{ kind: 'expired', at: at(9), reason: 'too late' }]);
  t.like(expired.deliveries[0], {
    status: 'failed',
    attempts: 3,
    error: 'too late; the last answer was: away',
    nextAttemptAt: null,
  });
  t.like(expired.deliveries[1], { status: 'failed', error: 'too late' });
});

test('settle: history never runs backwards, whatever the clocks of others say', (t) => {
  const { history } = settle(message(bia), [{ kind: 'routed', at: at(5), replay: 0 }, ended(bia, 3)]);
  t.deepEqual(
    history.map((change) => change.at),
    [at(5), at(5)],
  );
});

test('settle: a failure of an earlier round does not end a replay, a delivery does', (t) => {
  const replayed = { ...message(bia), replay: 2 };
  const nothing = { deliveries: [], history: [] };
  t.deepEqual(settle(replayed, [{ ...ended(bia, 1, 'blocked'), replay: 1 } as Report]), nothing);
  t.deepEqual(settle(replayed, [{ kind: 'rejected', at: at(1), reason: 'no route', replay: 0 }]), nothing);
  t.deepEqual(settle(replayed, [{ kind: 'routed', at: at(1), replay: 1 }]), nothing);
  t.is(settle(replayed, [{ ...ended(bia, 1), replay: 1 } as Report]).history.at(-1)?.status, 'delivered');
  const failed = settle(replayed, [{ ...ended(bia, 1, 'blocked'), replay: 2 } as Report]);
  t.is(failed.history.at(-1)?.status, 'failed');
  t.is(settle(replayed, [{ kind: 'expired', at: at(9), reason: 'late' }]).history.at(-1)?.status, 'failed');
});

test('deliveriesOf: each recipient over each channel, with what there is to tell', (t) => {
  const told: DeliveryState = {
    recipientId: caio,
    channel: 'whatsapp',
    status: 'delivered',
    attempts: 1,
    error: '',
    updatedAt: at(9),
    nextAttemptAt: null,
  };
  const tried = {
    ...told,
    recipientId: bia,
    status: 'accepted',
    attempts: 3,
    error: 'away',
    updatedAt: at(7),
  } as const;
  const accepted = { recipientIds: [caio, bia], channels: ['whatsapp', 'instagram'], createdAt: at(1) };
  const seen = (status: Status, since?: Date) =>
    deliveriesOf({ ...accepted, status }, [tried, told], since).map(({ recipientId, channel, status, updatedAt }) => [
      recipientId,
      channel,
      status,
      updatedAt,
    ]);
  t.deepEqual(seen('accepted'), [
    [caio, 'instagram', 'accepted', at(1)],
    [caio, 'whatsapp', 'delivered', at(9)],
    [bia, 'instagram', 'accepted', at(1)],
    [bia, 'whatsapp', 'accepted', at(7)],
  ]);
  t.deepEqual(seen('in_transit', at(5)), [
    [caio, 'instagram', 'in_transit', at(5)],
    [caio, 'whatsapp', 'delivered', at(9)],
    [bia, 'instagram', 'in_transit', at(5)],
    [bia, 'whatsapp', 'in_transit', at(7)],
  ]);
});

test('historyOf: begins with the acceptance once, whether or not that was written down', (t) => {
  const first = { status: 'accepted', at: at(0), note: '' } as const;
  const routed = { status: 'in_transit', at: at(1), note: '' } as const;
  const replayed = { status: 'accepted', at: at(3), note: 'replayed by root' } as const;
  t.deepEqual(historyOf(at(0), []), [first]);
  t.deepEqual(historyOf(at(0), [first]), [first]);
  t.deepEqual(historyOf(at(0), [first, routed, replayed]), [first, routed, replayed]);
  t.deepEqual(historyOf(at(0), [routed, replayed]), [first, routed, replayed]);
});

test('page: positions are arithmetic, in both orders and with both filters', (t) => {
  const page = (changes: object) =>
    pageOf(
      { firstSeq: 1, lastSeq: 10 },
      { afterSeq: 0, beforeSeq: undefined, limit: 3, offset: 0, order: 'desc', ...changes },
    );
  t.deepEqual(page({}), { total: 10, from: 8, to: 10 });
  t.deepEqual(page({ offset: 9 }), { total: 10, from: 1, to: 1 });
  t.deepEqual(page({ order: 'asc', offset: 2 }), { total: 10, from: 3, to: 5 });
  t.deepEqual(page({ order: 'asc', offset: 9 }), { total: 10, from: 10, to: 10 });
  t.deepEqual(page({ afterSeq: 4, beforeSeq: 7 }), { total: 2, from: 5, to: 6 });
  t.deepEqual(page({ afterSeq: 4, order: 'asc' }), { total: 6, from: 5, to: 7 });
  const { total, from, to } = page({ afterSeq: 20 });
  t.is(total, 0);
  t.true(to < from);
  t.like(page({ beforeSeq: 0 }), { total: 0 });
  const filter = { afterSeq: 2, beforeSeq: undefined, limit: 3, offset: 1 };
  const kept = { firstSeq: 5, lastSeq: 10 };
  t.deepEqual(
    pageOf(kept, { ...filter, order: 'asc' }),
    { total: 6, from: 6, to: 8 },
    'what was removed is not counted',
  );
  t.deepEqual(pageOf(kept, { ...filter, offset: 5, order: 'desc' }), { total: 6, from: 5, to: 5 });
  t.like(pageOf({ firstSeq: 11, lastSeq: 10 }, { ...filter, order: 'desc' }), { total: 0 });
});
