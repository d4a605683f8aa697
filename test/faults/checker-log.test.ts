import test from 'ava';
import { checkLog } from './checker-log.ts';
import type { Observations } from './observations.ts';
import type { EventObservations, Said } from './observe-events.ts';

const [ana, bia] = ['ana', 'bia'] as const;
const conversationId = 'group';

const about = (type: string, more: Partial<Said>): Said => ({
  type,
  conversationId,
  subjectId: '',
  seq: 0,
  status: '',
  message: undefined,
  deliveries: [],
  userIds: [],
  ...more,
});
const accepted = (subjectId: string, seq: number) =>
  about('message_accepted', {
    subjectId,
    seq,
    status: 'accepted',
    message: { from: ana, to: [bia], channels: ['whatsapp'], text: `says ${subjectId}`, fileId: '' },
  });
const change = (subjectId: string, status: string, state: string) =>
  about('delivery_changed', {
    subjectId,
    status,
    deliveries: [{ recipient: bia, channel: 'whatsapp', status: state }],
  });

/** Two messages, one of which has failed; bia has left and come back, and read both; ana has a file. */
function right(): { found: EventObservations; observations: Observations } {
  const said = [
    about('conversation_created', { userIds: [ana, bia] }),
    accepted('one', 1),
    change('one', 'in_transit', 'in_transit'),
    accepted('two', 2),
    change('one', 'delivered', 'delivered'),
    change('two', 'failed', 'failed'),
    about('message_read', { userIds: [bia], seq: 1 }),
    about('message_read', { userIds: [bia], seq: 2 }),
    about('member_left', { userIds: [bia] }),
    about('member_joined', { userIds: [bia] }),
    about('file_completed', { conversationId: '', subjectId: 'file' }),
  ];
  const found: EventObservations = {
    log: said.map((each, index) => ({
      id: index + 1,
      eventId: `event ${index + 1}`,
      conversationId: each.conversationId,
      userId: each.conversationId === '' ? ana : '',
      type: 0,
    })),
    head: { lastId: said.length, removedTo: 0, epoch: 1 },
    stretches: [],
    lists: new Map(),
    said: new Map(said.map((each, index) => [`event ${index + 1}`, each])),
    followers: [],
    endpoints: [],
    statuses: new Map(),
    backlogs: 0,
    members: new Map([[conversationId, [bia, ana]]]),
    reads: [{ conversationId, userId: bia, seq: 2 }],
    movers: { conversationId, moverId: bia, times: 1, readerId: bia, reads: [1, 2] },
  };
  const messages = [
    { messageId: 'one', seq: 1, status: 'delivered' },
    { messageId: 'two', seq: 2, status: 'failed' },
  ].map((message) => ({ ...message, conversationId, createdAt: 1, endedAt: 2 }));
  const read = ({ messageId, seq, status }: (typeof messages)[number], steps: string[]) => ({
    message_id: messageId,
    conversation_id: conversationId,
    seq,
    from: ana,
    to: [bia],
    channels: ['whatsapp'],
    payload: { type: 'text', text: `says ${messageId}` },
    status,
    history: steps.map((step) => ({ status: step, at: '', note: '' })),
    deliveries: [],
  });
  const observations = {
    journal: {
      messages: [],
      files: [{ fileId: 'file', ownerId: ana, size: 3, checksum: 'abc', told: 'completed', again: 0 }],
    },
    read: new Map([
      ['one', read(messages[0]!, ['accepted', 'in_transit', 'delivered'])],
      // What comes at once is told as one change.
      ['two', read(messages[1]!, ['accepted', 'in_transit', 'failed'])],
    ]),
    ledger: {
      messages,
      deliveries: messages.map(({ messageId, status }) => ({
        messageId,
        recipientId: bia,
        channel: 'whatsapp',
        status,
        error: '',
      })),
    },
    files: { rows: [{ fileId: 'file', status: 'completed', storageKey: 'file', idle: 0 }] },
  } as unknown as Observations;
  return { found, observations };
}

type Parts = ReturnType<typeof right>;

/** Takes an event out of the log, or puts one at its place. */
const without = ({ found }: Parts, id: number) => (found.log = found.log.filter((row) => row.id !== id));
const saying = ({ found }: Parts, id: number, changes: Partial<Said>) =>
  Object.assign(found.said.get(`event ${id}`)!, changes);
function again({ found }: Parts, id: number): void {
  const row = found.log.find((each) => each.id === id)!;
  found.log.push({ ...row, id: 20, eventId: 'event 20' });
  found.said.set('event 20', found.said.get(row.eventId)!);
}
function swapped({ found }: Parts, one: number, other: number): void {
  [found.log[one - 1], found.log[other - 1]] = [found.log[other - 1]!, found.log[one - 1]!];
}

test('checkLog: finds nothing where the log tells what has happened', (t) => {
  const { found, observations } = right();
  t.deepEqual(checkLog(found, observations), []);
});

const broken: [string, (parts: Parts) => void, string[]][] = [
  [
    'a message that was never told',
    (parts) => {
      without(parts, 4);
      without(parts, 6);
    },
    ['lost'],
  ],
  ['a message that is told twice', (parts) => again(parts, 4), ['doubled', 'order']],
  [
    'a message that was never accepted',
    ({ observations }) => {
      observations.ledger.messages.pop();
      observations.ledger.deliveries.pop();
    },
    ['forged'],
  ],
  ['messages in another order', (parts) => swapped(parts, 2, 4), ['order', 'order', 'order']],
  [
    'a message that says something else',
    (parts) =>
      saying(parts, 2, { message: { from: ana, to: [bia], channels: ['whatsapp'], text: 'another', fileId: '' } }),
    ['changed'],
  ],
  ['a change before its message', (parts) => swapped(parts, 2, 3), ['order']],
  ['a message that goes back', (parts) => swapped(parts, 3, 5), ['order', 'order', 'lost', 'lost']],
  ['a message whose end was not told', (parts) => without(parts, 6), ['lost', 'lost']],
  ['a delivery whose end was not told', (parts) => saying(parts, 6, { deliveries: [] }), ['lost']],
  [
    'a step that is not in the history',
    ({ observations }) => void observations.read.get('one')!.history.splice(1, 1),
    ['books'],
  ],
  ['somebody who leaves twice', (parts) => again(parts, 9), ['lost', 'lost']],
  ['somebody who comes and is there', (parts) => again(parts, 10), ['doubled', 'lost']],
  ['somebody of whose return nothing is said', (parts) => without(parts, 10), ['lost', 'lost']],
  ['a reader whose last step was not told', (parts) => without(parts, 8), ['lost', 'lost']],
  ['a reader of whose step nothing is said', (parts) => without(parts, 7), ['lost']],
  ['a reader who goes back', (parts) => swapped(parts, 7, 8), ['order', 'lost']],
  ['a file of which its owner was not told', (parts) => without(parts, 11), ['lost']],
  ['a file of which somebody else was told', ({ found }) => void (found.log[10]!.userId = bia), ['lost']],
  ['a file that is told twice', (parts) => again(parts, 11), ['doubled']],
  ['a file that is not complete', ({ observations }) => void observations.files.rows.pop(), ['forged']],
];

for (const [what, breakIt, rules] of broken) {
  test(`checkLog: finds ${what}`, (t) => {
    const parts = right();
    breakIt(parts);
    t.deepEqual(
      checkLog(parts.found, parts.observations).map(({ rule }) => rule),
      rules,
    );
  });
}
